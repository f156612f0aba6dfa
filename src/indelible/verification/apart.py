"""A verification in a process of its own, for a host that goes on serving: its threads keep their processor."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from indelible.errors import IndelibleError
from indelible.integrity.verify import Report
from indelible.verification.run import Request, verify
from indelible.verification.state import State


@dataclass(frozen=True, slots=True)
class Progress:
    """So many rows of so many have been read."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report, and what the next run may build on."""

    report: Report
    state: State


def verify_apart(request: Request) -> Iterator[Progress | Outcome]:
    """``verify`` in one other process: how far it is, again and again, and in the end its outcome.

    Closing the iterator ends the process. Raises what ``verify`` raises, and IndelibleError when the process dies.
    """
    # Not forked: the threads and connections of a service that verifies itself would come along.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # A daemon has no processes of its own, and goes with this one.
    process = context.Process(target=_verify, args=(theirs, replace(request, workers=1)), daemon=True)
    process.start()
    theirs.close()
    try:
        with closing(ours):
            while True:
                told = ours.recv()
                if isinstance(told, Exception):
                    raise told
                yield told
                if isinstance(told, Outcome):
                    return
    except EOFError:
        raise IndelibleError(
            "the verifying process died: the log was not verified", hint="is there memory enough?"
        ) from None
    finally:
        process.terminate()
        process.join()


def _verify(told: Connection, request: Request) -> None:
    done = 0

    def progress(more: int, total: int | None) -> None:
        nonlocal done
        done += more
        told.send(Progress(done, total or done))

    with closing(told):
        try:
            told.send(Outcome(*verify(request, progress=progress)))
        except IndelibleError as error:
            told.send(error)
