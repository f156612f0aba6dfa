"""``journal``: what was accepted and is not stored, and what the store refused. ``writer``: a drainer process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import typer

from indelible.cli import options as o
from indelible.cli.exits import FAILED, Commands
from indelible.cli.log import announce, settings_for
from indelible.cli.output import note, print_table, put_json

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Look into the journals and dead letters; retry a letter.")


def _since(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def list_(ctx: typer.Context, as_json: o.AsJson = False) -> None:
    """List the journals of the data directory and the dead letters, with what waits in each."""
    from indelible.directory import drainer_status
    from indelible.journal import JournalReader, writers

    settings = settings_for(ctx.obj)
    directory = Path(settings.data_dir)
    found: list[dict[str, Any]] = []
    for path in writers(directory / "journal"):
        with contextlib.suppress(OSError), contextlib.closing(JournalReader(path)) as reader:
            found.append(
                {
                    "writer_id": str(reader.writer_id),
                    "alive": reader.alive(),
                    "created": _since(reader.created),
                    "accepted": reader.appended,
                    "stored": reader.stored - reader.dead - reader.lost,
                    "waiting": reader.appended - reader.stored,
                    "dead_lettered": reader.dead,
                    "lost": reader.lost,
                }
            )
    letters = sorted(p.stem for p in (directory / "dead-letters").glob("*.msgpack"))
    if as_json:
        for journal in found:
            put_json(journal)
        for letter in letters:
            put_json({"dead_letter": letter})
    else:
        columns = ("writer_id", "alive", "created", "accepted", "stored", "waiting", "dead_lettered", "lost")
        print_table(
            [c.replace("_", " ").upper() for c in columns],
            ([journal[c] for c in columns] for journal in found),
            right=("ACCEPTED", "STORED", "WAITING", "DEAD LETTERED", "LOST"),
        )
        if letters:
            print_table(["DEAD LETTER"], ([letter] for letter in letters))
    status = drainer_status(directory)
    told = "nobody drains it" if status is None else f"drained by process {status.pid}"
    note(f"{directory}: {len(found)} journals, {len(letters)} dead letters, {told}")


def inspect(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="ID", help="A writer's id, or a dead letter's name.")],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many events.")] = 100,
) -> None:
    """Print events of one journal that wait to be stored, or of one dead letter, one JSON object a line.

    Looking changes nothing. What is shown may be stored a moment later.
    """
    shown = 0
    for number, payload in _payloads(Path(settings_for(ctx.obj).data_dir), which, limit):
        put_json({"writer_seq": number, **_decoded(payload)})
        shown += 1
    note(f"{shown} events")


def _payloads(directory: Path, which: str, limit: int) -> Iterator[tuple[int | None, bytes]]:
    from indelible.journal import Frame, JournalReader

    name = Path(which).name
    letter = directory / "dead-letters" / f"{name}.msgpack"
    if letter.is_file():
        yield int(name.rsplit("-", 1)[1]), letter.read_bytes()
        return
    if not (directory / "journal" / name / "header").is_file():
        raise typer.BadParameter(f"there is no journal or dead letter {which!r} in {directory}", param_hint="ID")
    with contextlib.closing(JournalReader(directory / "journal" / name)) as reader:
        for item in reader.read(limit, final=not reader.alive()):
            if isinstance(item, Frame):
                yield item.number, item.payload
            else:
                note(f"events {item.first} to {item.end - 1} cannot be read")


def _decoded(payload: bytes) -> dict[str, Any]:
    import msgspec

    from indelible.events import decode_event, rfc3339

    try:
        event = decode_event(payload)
    except msgspec.MsgspecError as error:
        return {"unreadable": str(error), "bytes": len(payload)}
    return {**msgspec.to_builtins(event), "timestamp": rfc3339(event.timestamp)}


def replay(
    ctx: typer.Context,
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[LETTER]...", help="Dead letters to retry; default: all of them.")
    ] = None,
) -> None:
    """Offer dead letters to the store again, as new events of this command with their own ids and times.

    A letter that is taken is removed; one that is refused again stays. Exits with 1 if any was refused.
    """
    import msgspec

    from indelible.errors import RowRefused
    from indelible.events import decode_event
    from indelible.runtime import open_store

    settings = settings_for(ctx.obj)
    announce(settings)
    folder = Path(settings.data_dir) / "dead-letters"
    letters = [folder / f"{Path(name).name}.msgpack" for name in which] if which else sorted(folder.glob("*.msgpack"))
    store = open_store(settings)
    refused = 0
    try:
        store.open()
        for letter in letters:
            try:
                event = decode_event(letter.read_bytes())
                # The id tells whether an interrupted replay has stored it already.
                if store.get(event.id) is None:
                    store.append(_letter_writer(letter), 0, [event])
            except FileNotFoundError:
                raise typer.BadParameter(f"there is no dead letter {letter.stem!r}", param_hint="LETTER") from None
            except (RowRefused, msgspec.MsgspecError) as error:
                refused += 1
                note(f"{letter.stem}: refused again: {error}")
            else:
                letter.unlink()
    finally:
        store.close()
    note(f"{len(letters) - refused} stored, {refused} refused")
    if refused:
        raise typer.Exit(FAILED)


def _letter_writer(letter: Path) -> Any:
    """A writer of its own for each letter, always the same: replaying it twice stores it once."""
    from uuid import NAMESPACE_URL, uuid5

    return uuid5(NAMESPACE_URL, f"indelible:dead-letter:{letter.stem}")


def writer(
    ctx: typer.Context,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics on 127.0.0.1 at this port.",
        ),
    ] = None,
    any_cpu: Annotated[
        bool,
        typer.Option("--any-cpu", help="Run on any CPU. Default: on one, so that requests find another free."),
    ] = False,
) -> None:
    """Drain the data directory into the store, until SIGTERM or Ctrl-C: the host's workers then need no thread for it.

    Set INDELIBLE_WRITER=process for the workers and give this command the same data directory. Should it die, the
    events wait in the journals; start it again, or start two: the second takes over.
    """
    from indelible.runtime import configure

    settings = settings_for(ctx.obj)
    if not any_cpu:
        _keep_to_one_cpu(Path(settings.data_dir))
    announce(settings)
    service = configure(**{**settings.model_dump(), "writer": "process"})
    if metrics_port is not None:
        from prometheus_client import CollectorRegistry, start_http_server

        from indelible.metrics import PrometheusCollector

        registry = CollectorRegistry()
        registry.register(PrometheusCollector(lambda: service))
        server, _ = start_http_server(metrics_port, addr="127.0.0.1", registry=registry)
        note(f"metrics at http://127.0.0.1:{server.server_port}/metrics")
    service.open()
    ready, stopping = threading.Event(), threading.Event()
    # Not the main thread, so that a signal is taken at once, whatever the store is doing.
    draining = threading.Thread(target=service.drain_here, args=(ready,), name="indelible-drainer", daemon=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    draining.start()
    ready.wait()
    note(f"draining {Path(settings.data_dir) / 'journal'}; stop with Ctrl-C")
    stopping.wait()
    note("stopping")
    service.close()
    draining.join(1.0)


def _keep_to_one_cpu(directory: Path) -> None:
    """However much there is to catch up on, requests find a CPU that is not ours. Before any thread: they inherit it.

    The directory chooses, so that the writers of a host's applications are not all on the same.
    """
    # Not on every system, and not in every sandbox.
    with contextlib.suppress(AttributeError, OSError):
        ours = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {ours[crc32(os.fsencode(directory.resolve())) % len(ours)]})


WRITER_EPILOG = o.examples("indelible writer", "indelible writer --metrics-port 9464")

for _name, _function, _epilog in (
    ("list", list_, o.examples("indelible journal list", "indelible journal list --json")),
    ("inspect", inspect, o.examples("indelible journal inspect 0b9c2f5e-1f5c-4c0e-9d7e-2f6a1f0e7c11 --limit 5")),
    ("replay", replay, o.examples("indelible journal replay")),
):
    app.command(_name, help=o.prose(_function), epilog=_epilog)(_function)
