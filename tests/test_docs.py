"""The documentation is true: generated pages are fresh, links lead somewhere, code runs, nothing is left out."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from backend.demo.serving import ROOT, Server
from indelible import errors
from indelible.cli.app import app as cli
from indelible.metrics import METRICS
from indelible.settings import Settings
from indelible.web.api import audit_router
from scripts import reference

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
VENV_BIN = Path(sys.executable).parent
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block: ``info`` is what stands behind the opening fence."""

    info: str
    code: str


def snippets(page: str, language: str) -> Iterator[Snippet]:
    """The blocks of a page in one language, dedented."""
    for match in _FENCE.finditer((ROOT / page).read_text()):
        if match["info"].split(" ")[0] == language:
            indent = len(match["indent"])
            yield Snippet(match["info"], "".join(line[indent:] or "\n" for line in match["code"].splitlines(True)))


def commands(program: str) -> list[tuple[str, str]]:
    """Every line of the pages' shell blocks that runs this program, with its page."""
    lines = ((page, line.strip()) for page in PAGES for block in snippets(page, "bash") for line in _lines(block.code))
    return [(page, line) for page, line in lines if line.split(" ")[0] == program]


def _lines(code: str) -> list[str]:
    return code.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_generated_page_is_fresh(page: str) -> None:
    """The page is what the code says today; `make docs` rewrites it."""
    assert (reference.REFERENCE / page).read_text() == reference.PAGES[page]()


def test_every_setting_error_and_metric_is_documented() -> None:
    """Each setting has a description and a row, each error and each metric a line."""
    settings = (reference.REFERENCE / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"| `{name}` | `INDELIBLE_{name.upper()}` |" in settings
    tree = (reference.REFERENCE / "errors.md").read_text()
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.IndelibleError):
            assert f"- `{name}`: " in tree
    metrics = (reference.REFERENCE / "metrics.md").read_text()
    for metric in METRICS.values():
        assert re.search(rf"^\| `{metric.name}(_total)?` \| {metric.kind} \| \S", metrics, re.MULTILINE)


def test_every_endpoint_and_parameter_is_documented() -> None:
    """reference/api.md lists the router's endpoints, no more and no fewer, and names every parameter and field."""
    page = (reference.REFERENCE / "api.md").read_text()
    app = FastAPI()
    app.include_router(audit_router(require_admin=lambda: None))
    schema = app.openapi()
    served = {f"{method.upper()} {path}" for path, each in schema["paths"].items() for method in each}
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", page, re.MULTILINE)) == served
    for operations in schema["paths"].values():
        for parameter in operations["get"].get("parameters", ()):
            assert re.search(rf"[`{{?]{parameter['name']}[`}}=]", page), parameter["name"]
    for name in ("LogPage", "LogStats", "LogHealthReasons"):
        for field in schema["components"]["schemas"][name]["properties"]:
            assert f"`{field}`" in page, field


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file of the repository, and its anchor a heading there."""
    source = ROOT / page
    text = _FENCE.sub("", source.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (source.parent / name).resolve() if name else source
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ +(.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/guide.md" and list(snippets(page, "python"))])
def test_python_runs(page: str, tmp_path: Path) -> None:
    """The Python blocks of a page run, one after the other in one namespace; parts of a named file only compile."""
    whole: list[str] = []
    for snippet in snippets(page, "python"):
        compile(snippet.code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        # A block with a file's name is a part of that file; one that awaits is the guide's, run by its own tests.
        if snippet.info == "python" and not re.search(r"^await ", snippet.code, re.MULTILINE):
            whole.append(snippet.code)
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "auth.py").write_text("def require_admin() -> None: ...\n")
    program = tmp_path / "page.py"
    program.write_text("\n".join(whole))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "INDELIBLE"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_application_is_audited(tmp_path: Path) -> None:
    """The README's ten lines make an application that answers with a correlation id and shows its log."""
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "auth.py").write_text("def require_admin() -> None: ...\n")
    (tmp_path / "app.py").write_text(next(snippets("README.md", "python")).code)
    env = {
        "INDELIBLE_DATABASE_URL": f"sqlite:///{tmp_path / 'log.db'}",
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
    }
    with Server("app:app", cwd=tmp_path, env=env) as server:
        assert httpx.post(f"{server.url}/nowhere", timeout=30).headers["X-Correlation-ID"]
        page = httpx.get(f"{server.url}/api/audit/logs", timeout=30)
        assert set(page.raise_for_status().json()) >= {"logs", "total"}


def test_the_first_steps_lead_where_they_say(tmp_path: Path) -> None:
    """The tutorial, followed to the letter: its program served, its requests sent, its questions asked."""
    page = "docs/tutorial/first-steps.md"
    (tmp_path / "shop.py").write_text(next(snippets(page, "python")).code)
    blocks = [block.code for block in snippets(page, "bash")]
    assert [block.split(" ")[0] for block in blocks] == [
        "pip", "uvicorn", "curl", "indelible", "indelible", "python", "indelible",
    ]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "INDELIBLE"))}
    clean |= {"PATH": f"{VENV_BIN}:{clean['PATH']}", "COLUMNS": "300", "NO_COLOR": "1"}

    def run(block: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", block], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60
        )

    with Server(
        "shop:app", cwd=tmp_path, env={name: None for name in os.environ if name.startswith("INDELIBLE")}
    ) as server:
        answers = run(blocks[2].replace("localhost:8000", f"localhost:{server.port}")).stdout
    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["200", "200", "403", "404"]
    assert answers.lower().count("x-correlation-id:") == 4

    everything = run(blocks[3]).stdout
    said = re.findall(r"audit\.started|data_access|data_modify|permission_denied|audit\.stopped", everything)
    assert said == ["audit.started", "data_access", "data_modify", "permission_denied", "data_access", "audit.stopped"]
    narrow = run(blocks[4]).stdout
    assert "permission_denied" in narrow
    assert '"new_value":{"price":4}' in narrow
    assert run(blocks[3]).stdout.count("audit.read") >= 2
    refused = run(blocks[5])
    assert refused.returncode != 0
    assert "append-only" in refused.stderr
    doctor = run(blocks[6])
    assert doctor.returncode == 0, doctor.stdout
    assert "DELETE is refused" in doctor.stdout


@pytest.mark.parametrize(("page", "line"), commands("indelible"))
def test_commands_exist(page: str, line: str) -> None:
    """Every command line of the pages names a command and options that the program has."""
    words = shlex.split(line)[1:]
    if words[0] == "--database-url":
        words = words[2:]
    depth = 2 if words[0] in ("bench", "db", "journal", "key", "witness") else 1
    path = [word for word in words if not word.startswith("-")][:depth]
    shown = CliRunner().invoke(cli, [*path, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"})
    assert shown.exit_code == 0, shown.output
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", shown.output), option


@pytest.mark.parametrize(("page", "line"), commands("make"))
def test_targets_exist(page: str, line: str) -> None:
    """Every `make` line of the pages names targets of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for word in shlex.split(line, comments=True)[1:] if "=" not in word}
    assert named <= targets


def test_the_map_shows_every_room() -> None:
    """Each module and package of the library stands in the architecture's map, and the map shows none that is not there."""
    (plan,) = (
        block.code for block in snippets("docs/explanation/architecture.md", "text") if "src/indelible/" in block.code
    )
    shown = set(re.findall(r"^  (\w+(?:\.py|/))", plan, re.MULTILINE))
    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "src" / "indelible").iterdir()
        if path.is_dir() or path.suffix == ".py"
    }
    assert shown == there - {"__init__.py", "__pycache__/"}
