"""The package as others get it: cheap to import, complete when installed, pinned."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backend.server.settings import Settings as HostSettings
from indelible.errors import ConfigurationError
from indelible.settings import Settings
from scripts import constraints
from scripts.skips import skipped

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("sqlalchemy", "fastapi", "starlette", "pydantic", "typer", "alembic", "asyncio")


def python(*arguments: str, executable: str | Path = sys.executable, cwd: Path = ROOT) -> str:
    """What an isolated interpreter prints."""
    done = subprocess.run(
        [executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what the repository holds."""
    out = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(out))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and the distributions it requires, and nothing else."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    target = Path(
        python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", executable=interpreter).strip()
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name, distribution in constraints.closure(["indelible"], version).items():
        if name != "indelible":
            _copy(distribution, target)
    python("-m", "pip", "--python", str(interpreter), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    return interpreter


def _copy(distribution: metadata.Distribution, target: Path) -> None:
    # Copied, not downloaded: the test needs no network, and what is not declared is not there.
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(str(distribution.locate_file(file))), target / file)


def test_import_is_cheap() -> None:
    """`import indelible` loads no database library, no web framework and not even asyncio."""
    code = "import sys, json, indelible; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python("-c", code)))
    assert loaded.isdisjoint(HEAVY)


def test_logging_needs_no_web_framework() -> None:
    """The public names and the middleware load without FastAPI, Starlette and Typer."""
    code = (
        "import sys, json; from indelible import *; import indelible.capture.asgi;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = set(json.loads(python("-c", code)))
    assert loaded.isdisjoint({"fastapi", "starlette", "typer"})


def test_every_public_name_is_there() -> None:
    """Each name in `__all__` can be imported, and an unknown one is an AttributeError."""
    import indelible

    for name in indelible.__all__:
        assert getattr(indelible, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = indelible.no_such_name


def test_the_wheel_works_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    """Installed with nothing but what it declares, the wheel makes a log, records, and its command answers."""
    command = installed.with_name("indelible")
    assert "Usage" in python("--help", executable=command, cwd=tmp_path)
    python("db", "upgrade", executable=command, cwd=tmp_path)
    program = """
import indelible
service = indelible.configure()
service.open()
service.log(event_type="login", action="log_in")
service.close()
"""
    python("-c", program, executable=installed, cwd=tmp_path)
    rows = python("query", "--event-type", "login", "--json", executable=command, cwd=tmp_path)
    assert json.loads(rows)["action"] == "log_in"


def test_the_wheel_is_complete(wheel: Path) -> None:
    """Types, migrations, the auditors' verifier and licence are in it; tests and the reference host are not."""
    names = python("-m", "zipfile", "-l", str(wheel))
    offline = "indelible/verification/verify_bundle.py"
    for wanted in ("indelible/py.typed", "indelible/migrations/versions/", offline, "licenses/LICENSE"):
        assert wanted in names
    assert "backend/" not in names
    assert "tests/" not in names


@pytest.mark.parametrize(
    ("environment", "compiled"), [({}, True), ({"CC": "false"}, False), ({"INDELIBLE_PURE": "1"}, False)]
)
def test_the_wheel_is_compiled_where_it_can_be(tmp_path: Path, environment: dict[str, str], compiled: bool) -> None:
    """Without a compiler, or where that is asked for, the wheel is one for every machine. The tree is left as it was."""
    before = sorted((ROOT / "src" / "indelible").glob("*.so"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        modules = [name for name in wheel.namelist() if name.endswith((".so", ".c"))]
    assert built.name.endswith("-py3-none-any.whl") is not compiled
    assert len(modules) == compiled
    assert ("not compiled" in done.stdout + done.stderr) is (environment.get("CC") == "false")
    assert sorted((ROOT / "src" / "indelible").glob("*.so")) == before


def test_a_module_of_another_version_is_not_used() -> None:
    """What an older installation has left beside newer code."""
    code = (
        "import sys, types; sys.modules['indelible._native'] = types.SimpleNamespace(VERSION=0)\n"
        "from indelible.native import native; print(native)"
    )
    assert python("-c", code, cwd=ROOT).strip() == "None"


def test_a_missing_extra_names_the_command(installed: Path, tmp_path: Path) -> None:
    """Without its extra, a module fails with an error that says what to install."""
    for module, extra in (
        ("indelible.web.api", "web"),
        ("indelible.web.dashboard", "web"),
        ("indelible.stores.postgres", "postgres"),
    ):
        code = (
            f"import indelible.errors\ntry: import {module}\nexcept indelible.errors.ConfigurationError as e: print(e)"
        )
        assert f"indelible[{extra}]" in python("-c", code, executable=installed, cwd=tmp_path)


def test_the_dashboard_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FastAPI and without Jinja2, the dashboard says which extra to install."""
    for name in [name for name in sys.modules if name.startswith("indelible.web.dashboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"indelible\[dashboard\]"):
        importlib.import_module("indelible.web.dashboard")


def test_the_pins_cover_and_satisfy_the_ranges() -> None:
    """constraints.txt pins everything the project can install, within the ranges, by name and version alone."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines)
    assert all(name == canonicalize_name(name) for name in pins)
    needed: set[str] = set()
    for version in constraints.PYTHONS:
        for name, distribution in constraints.closure(["indelible[dev]"], version).items():
            needed.add(name)
            for line in distribution.requires or ():
                requirement = Requirement(line)
                pin = pins.get(canonicalize_name(requirement.name))
                if pin is not None and requirement.marker is None:
                    assert requirement.specifier.contains(pin, prereleases=True), line
    assert needed - {"indelible"} == set(pins)


def test_the_container_files_fit_the_repository() -> None:
    """compose.yaml parses and sets only variables that exist; the Dockerfile copies only what is there."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"database", "migrate", "backend"}
    known = {name.upper() for name in HostSettings.model_fields}
    known |= {f"INDELIBLE_{name.upper()}" for name in Settings.model_fields}
    assert set(services["backend"]["environment"]) <= known
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services) - {name}
    dockerfile = (ROOT / services["backend"]["build"]["dockerfile"]).read_text()
    assert set(re.findall(r"(INDELIBLE_\w+)=", dockerfile)) <= known
    for sources in re.findall(r"^COPY (?:--chown=\w+ )?([^-\n].*) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert "hatch_build.py" in dockerfile
    assert "**/*.so" in (ROOT / ".dockerignore").read_text().splitlines()


def test_skips_are_listed_but_not_expected_failures() -> None:
    """The build's check lists a skipped test with its reason and leaves expected failures alone."""
    report = """<testsuites><testsuite>
      <testcase classname="tests.a" name="ran"/>
      <testcase classname="tests.a" name="lacks"><skipped type="pytest.skip" message="no engine"/></testcase>
      <testcase classname="tests.a" name="known"><skipped type="pytest.xfail" message="later"/></testcase>
    </testsuite></testsuites>"""
    assert skipped(report) == ["tests.a.lacks: no engine"]
