"""``indelible journal`` and ``indelible writer``: what waits, what was refused, and who drains it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from indelible import AuditService
from indelible.cli.journal import _keep_to_one_cpu
from indelible.directory import drainer_status
from indelible.events import AuditEvent, StoredEvent, encode_event
from indelible.journal import writers
from indelible.runtime import open_store
from indelible.settings import load
from tests.cli.conftest import CommandLine
from tests.reliability.invariants import assert_equations
from tests.reliability.serving import eventually

Worker = Callable[..., AuditService]


@pytest.fixture
def worker(empty_log: CommandLine) -> Iterator[Worker]:
    """A factory of services on the log; as they come, they leave draining to a process of its own."""
    made: list[AuditService] = []

    def factory(**settings: Any) -> AuditService:
        given = {"database_url": empty_log.url, "data_dir": empty_log.data_dir, "writer": "process", **settings}
        loaded = load(**given)
        service = AuditService(open_store(loaded), loaded, announce=False)
        service.open()
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=30.0 if service.settings.writer == "thread" else 0.1)


def log(service: AuditService, resource: object) -> uuid.UUID:
    return service.log(event_type="data_modify", action="update", user_id="anna", resource_id=resource)


def events(line: CommandLine) -> list[StoredEvent]:
    """What is stored, without what the log says about itself."""
    return [event for event in line.stored() if not event.event_type.startswith("audit.")]


# --- looking ------------------------------------------------------------------------------------------------------------


def test_list_tells_what_waits_and_who_drains(empty_log: CommandLine, worker: Worker) -> None:
    """One line for each journal, one for each dead letter, and whether anybody drains them."""
    service = worker()
    for n in range(3):
        log(service, n)
    journal = service._journal
    assert journal is not None
    letters(empty_log, made())
    shown = empty_log.run("journal", "list", "--json")
    told, letter = (json.loads(line) for line in shown.stdout.splitlines())
    assert told["writer_id"] == str(journal.writer_id)
    assert (told["alive"], told["accepted"], told["stored"], told["waiting"]) == (True, 3, 0, 3)
    assert letter["dead_letter"].endswith("-7")
    assert "1 journals, 1 dead letters, nobody drains it" in shown.stderr
    table = empty_log.run("journal", "list")
    assert table.exit_code == 0
    assert str(journal.writer_id) in table.stdout
    assert letter["dead_letter"] in table.stdout


def test_inspect_shows_what_waits_and_changes_nothing(empty_log: CommandLine, worker: Worker) -> None:
    """The events as they would be stored, in order, at most as many as asked for; they wait as before."""
    service = worker()
    ids = [log(service, n) for n in range(5)]
    journal = service._journal
    assert journal is not None
    shown = empty_log.run("journal", "inspect", str(journal.writer_id), "--limit", "3")
    told = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(each["id"], each["writer_seq"]) for each in told] == [(str(ids[n]), n) for n in range(3)]
    assert told[0]["user_id"] == "anna"
    assert told[0]["timestamp"].endswith("Z")
    assert (journal.appended, journal.stored) == (5, 0)
    missing = empty_log.run("journal", "inspect", str(uuid.uuid4()))
    assert missing.exit_code == 2
    assert "no journal or dead letter" in missing.stderr


# --- dead letters -------------------------------------------------------------------------------------------------------


def made(**fields: Any) -> AuditEvent:
    given = {"event_type": "login", "action": "login", "status": "success", **fields}
    return AuditEvent(id=uuid.uuid4(), timestamp=1_700_000_000_000_000, **given)


def letters(line: CommandLine, *kept: AuditEvent | bytes) -> list[Path]:
    """Dead letters as a drainer keeps them."""
    folder = line.data_dir / "dead-letters"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for event in kept:
        path = folder / f"{uuid.uuid4()}-7.msgpack"
        path.write_bytes(event if isinstance(event, bytes) else encode_event(event))
        paths.append(path)
    return paths


def test_replay_stores_a_letter_once_and_takes_it_away(empty_log: CommandLine) -> None:
    """Its id and time are kept; a letter that an interrupted replay left behind is not stored again."""
    first, second = made(user_id="anna"), made(user_id="bert")
    kept = letters(empty_log, first, second)
    told = empty_log.run("journal", "replay", kept[0].stem)
    assert told.exit_code == 0, told.output
    assert "1 stored, 0 refused" in told.stderr
    assert (kept[0].exists(), kept[1].exists()) == (False, True)
    kept[0].write_bytes(encode_event(first))
    assert empty_log.run("journal", "replay").exit_code == 0
    assert not any(path.exists() for path in kept)
    assert [(e.id, e.timestamp, e.user_id) for e in events(empty_log)] == [
        (e.id, e.timestamp, e.user_id) for e in (first, second)
    ]


def test_what_is_refused_again_stays(empty_log: CommandLine) -> None:
    """A row that the store still refuses, and bytes that are no event: both stay, the others go, and it exits with 1."""
    good, poison = made(user_id="anna"), made(user_agent="a\x00b", resource_id="\x00")
    kept = letters(empty_log, b"\x00garbage", good)
    if not empty_log.url.startswith("sqlite"):
        kept += letters(empty_log, poison)
    told = empty_log.run("journal", "replay")
    assert told.exit_code == 1
    assert told.stderr.count("refused again") == len(kept) - 1
    assert [path.exists() for path in kept] == [True, False, True][: len(kept)]
    assert [event.id for event in events(empty_log)] == [good.id]
    inspected = empty_log.run("journal", "inspect", kept[0].stem)
    assert "unreadable" in json.loads(inspected.stdout)
    unknown = empty_log.run("journal", "replay", "nothing")
    assert (unknown.exit_code, "no dead letter" in unknown.stderr) == (2, True)


# --- a process of its own -----------------------------------------------------------------------------------------------


@contextmanager
def writing(line: CommandLine, *more: str) -> Iterator[subprocess.Popen[str]]:
    """``indelible writer``, killed at the end if it is still there."""
    process = line.popen("writer", *more)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def drained_by(line: CommandLine, pid: int) -> None:
    """Wait until this process drains the data directory."""

    def it_is() -> bool:
        status = drainer_status(line.data_dir)
        return status is not None and status.pid == pid

    eventually(it_is, what=f"process {pid} drains")


def test_sigterm_ends_a_writer_that_has_drained(empty_log: CommandLine, worker: Worker) -> None:
    """What the workers accept is stored by the writer, which leaves nothing behind when it is told to end."""
    service = worker(batch_size=1000, flush_interval=3600.0)
    with writing(empty_log) as process:
        drained_by(empty_log, process.pid)
        ids = [log(service, n) for n in range(50)]
        service.flush_sync(30)
        assert service.metrics()["events_stored"] == 50
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert drainer_status(empty_log.data_dir) is None
    journal = service._journal
    assert journal is not None
    assert writers(empty_log.data_dir / "journal") == [journal.path]
    assert [event.id for event in events(empty_log)] == ids
    own = [event.event_type for event in empty_log.stored() if event.writer_id != journal.writer_id]
    assert own[0] == "audit.started"
    assert own[-1] == "audit.stopped"
    assert_equations(service.metrics())


@pytest.mark.parametrize("any_cpu", [False, True])
def test_a_writer_keeps_to_one_cpu(empty_log: CommandLine, any_cpu: bool) -> None:
    """With all its threads: what there is to catch up on leaves the other CPUs to the requests."""
    ours = frozenset(os.sched_getaffinity(0))
    with writing(empty_log, *(["--any-cpu"] if any_cpu else [])) as process:
        drained_by(empty_log, process.pid)
        found = []
        for path in Path(f"/proc/{process.pid}/task").iterdir():
            with suppress(ProcessLookupError):
                found.append(frozenset(os.sched_getaffinity(int(path.name))))
        assert len(found) > 1
        (theirs,) = {*found}
        assert theirs == ours if any_cpu else len(theirs) == 1 and theirs <= ours


def test_the_data_directory_chooses_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Always the same for one application; those of several on one host are spread."""
    chosen: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, cpus: chosen.extend(cpus))
    for name in [*map(str, range(40)), *map(str, range(40))]:
        _keep_to_one_cpu(tmp_path / name)
    assert {*chosen} == {0, 2, 5, 7}
    assert chosen[:40] == chosen[40:]


def test_each_takes_over_from_the_other(empty_log: CommandLine, worker: Worker) -> None:
    """Thread to process, process to process, process to thread, each time without a word to the workers."""
    service = worker()
    accepted: list[uuid.UUID] = []

    def stored_by(pid: int) -> None:
        drained_by(empty_log, pid)
        accepted.append(log(service, len(accepted)))
        service.flush_sync(30)

    thread = worker(writer="thread")
    eventually(lambda: thread.metrics()["writer_owned"], what="the thread drains")
    accepted.append(log(service, "by the thread"))
    service.flush_sync(30)
    with writing(empty_log) as first:
        assert first.stderr is not None
        while "stop with Ctrl-C" not in first.stderr.readline():
            pass
        assert thread.metrics()["writer_owned"] == 1
        thread.close()
        stored_by(first.pid)
        with writing(empty_log) as second:
            first.kill()
            stored_by(second.pid)
            third = worker(writer="thread")
            second.kill()
            eventually(lambda: third.metrics()["writer_owned"], what="a thread drains")
            accepted.append(log(service, "by another thread"))
            service.flush_sync(30)
    assert [event.id for event in events(empty_log)] == accepted
    for each in (service, thread, third):
        assert_equations(each.metrics())


def test_a_writer_serves_its_metrics(empty_log: CommandLine) -> None:
    """With ``--metrics-port``, on the loopback interface, at the port that it names."""
    with writing(empty_log, "--metrics-port", "0") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "metrics at " not in line:
            assert line, "it ended without a word"
            line = process.stderr.readline()
        drained_by(empty_log, process.pid)
        with urllib.request.urlopen(line.split("metrics at ")[1].strip(), timeout=30) as answer:
            text = answer.read().decode()
    assert "indelible_writer_owned 1.0" in text
