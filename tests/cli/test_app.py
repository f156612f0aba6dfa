"""The command line as a program: help, version, exit codes, signals, pipes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

import indelible
from indelible.cli import query
from indelible.cli.app import app
from indelible.errors import StoreUnavailable
from scripts.cli_reference import PAGE, cli_page

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def commands(path: str = "indelible", command: Any = None) -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(f"{path} {name}", child)


def test_the_reference_is_what_the_commands_say() -> None:
    """docs/reference/cli.md has every command and option with its meaning; `make docs` writes it."""
    assert PAGE.read_text(encoding="utf-8") == cli_page()


def test_every_command_has_help_and_an_example_and_every_option_a_meaning() -> None:
    """Nothing is left for the reader to guess."""
    for path, command in commands():
        assert command.help, path
        if path == "indelible" or not hasattr(command, "commands"):
            assert "Examples" in command.epilog
            assert path in command.epilog
        for option in command.params:
            assert option.help, (path, option.name)
            assert getattr(option, "is_flag", False) or option.metavar, (path, option.name)


def test_the_commands_are_these() -> None:
    """No command deletes or changes an event: a new one has to be added here, and thought about."""
    assert [path for path, _ in commands()] == [
        "indelible",
        "indelible query",
        "indelible show",
        "indelible stats",
        "indelible tail",
        "indelible export",
        "indelible dashboard",
        "indelible verify",
        "indelible checkpoint",
        "indelible prove",
        "indelible prove-consistency",
        "indelible export-tiles",
        "indelible doctor",
        "indelible writer",
        "indelible db",
        "indelible db upgrade",
        "indelible db current",
        "indelible db check",
        "indelible db adopt",
        "indelible db roles",
        "indelible key",
        "indelible key new",
        "indelible key show",
        "indelible key rotate",
        "indelible key new-epoch",
        "indelible witness",
        "indelible witness serve",
        "indelible journal",
        "indelible journal list",
        "indelible journal inspect",
        "indelible journal replay",
        "indelible bench",
        "indelible bench load",
    ]


def test_every_example_is_a_command_line_that_parses() -> None:
    """The examples of the help texts name real commands and options."""
    tree = typer.main.get_command(app)
    for _, command in commands():
        for line in re.findall(r"^indelible [^\n|>]*", command.epilog or "", re.MULTILINE):
            with tree.make_context("indelible", shlex.split(line)[1:]) as context:
                rest = [*getattr(context, "_protected_args", ()), *context.args]
                resolved: Any = tree
                while hasattr(resolved, "commands"):
                    resolved = resolved.commands[rest.pop(0)]
                resolved.make_context("indelible", rest, parent=context)


def test_the_version_is_the_packages() -> None:
    """--version prints it and nothing else."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"indelible {indelible.__version__}\n")


def test_help_loads_no_database_driver_and_no_web_framework() -> None:
    """Start-up stays quick: SQLAlchemy, Alembic, pydantic and FastAPI load when a command needs them."""
    code = (
        "import sys; from indelible.cli.app import app\n"
        "heavy = {'sqlalchemy', 'alembic', 'pydantic', 'fastapi', 'psycopg', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_is_one_line_and_a_hint_never_a_traceback(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tree of errors raises ends as text for a person and exit code 1."""

    def away(*_: object) -> None:
        raise StoreUnavailable("the database is away", hint="start it")

    monkeypatch.setattr(query, "_summary", away)
    result = log.run("query")
    assert result.exit_code == 1
    assert result.stderr.endswith("error: the database is away\nhint: start it\n")
    assert "Traceback" not in result.output


def test_an_address_of_no_known_engine_names_the_ways_out() -> None:
    """The URL itself, which may hold a password, is not repeated."""
    for url in ("mysql://root:hunter2@db/x", "nonsense hunter2", "sqlite://"):
        result = CliRunner().invoke(app, ["--database-url", url, "query"])
        assert result.exit_code == 1
        assert "hint: " in result.stderr
        assert "hunter2" not in result.output


def test_a_server_that_does_not_answer_is_one_line() -> None:
    """A refused connection is an error with exit code 1, and the password is nowhere."""
    url = "postgresql://app:hunter2@127.0.0.1:9/log?connect_timeout=2"
    result = CliRunner().invoke(app, ["--database-url", url, "query"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: " in result.stderr
    assert "hunter2" not in result.output


def test_a_wrong_setting_is_named(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is checked as the service checks it."""
    monkeypatch.setenv("INDELIBLE_BATCH_SIZE", "many")
    result = log.run("query")
    assert result.exit_code == 1
    assert "batch_size" in result.stderr


@pytest.fixture
def sqlite_log(missing_log: CommandLine) -> CommandLine:
    """A SQLite log with a few thousand events: more than a pipe holds."""
    missing_log.make()
    missing_log.seed({"event_type": "data_access", "action": "x" * 80} for _ in range(3000))
    return missing_log


def test_a_reader_that_goes_away_ends_the_program_quietly(sqlite_log: CommandLine) -> None:
    """Like any other program in a pipeline: no traceback, the code a shell gives for SIGPIPE."""
    for arguments in (("export",), ("query", "--json", "--page-size", "1000")):
        with sqlite_log.popen(*arguments) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
            assert process.wait() == 141
        assert "Traceback" not in said
        assert "BrokenPipe" not in said


def test_ctrl_c_ends_the_program_with_one_line(sqlite_log: CommandLine, tmp_path: Path) -> None:
    """Exit code 130, no traceback, and the read was recorded; although nobody reads what it has still to write."""
    # A shell starts what it puts into the background with SIGINT ignored; so it would be here, and in what starts here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program = sqlite_log.popen("export")
    finally:
        signal.signal(signal.SIGINT, before)
    with program as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # It has begun to write and now waits for us to read.
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130
        process.stdout.close()
    assert said.endswith("error: interrupted\n")
    assert sqlite_log.stored()[-1].event_type == "audit.exported"


def test_an_interrupted_program_waits_for_no_reader() -> None:
    """What an interruption leaves unwritten does not hold the program: its pipe is full, and nobody reads it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = """
import sys
from indelible.cli import exits

def interrupted(self, ctx):
    sys.stdout.write("unwritten")
    raise KeyboardInterrupt

exits.TyperGroup.invoke = interrupted
from indelible.cli import main
main()
"""
    command = [sys.executable, "-c", program, "stats"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered, timeout=60)
    os.close(writing)
    os.close(reading)
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR wins over a terminal; without one there are none anyway."""
    from indelible.cli import output

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown() -> str:
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        output.print_table(("A",), [(output.cell("x", "green"),)])
        return terminal.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown()
