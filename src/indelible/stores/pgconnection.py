"""A connection that does not wait for ever: for networks that swallow what is sent and never say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Final

import psycopg
from psycopg.waiting import Wait

#: Seconds without an answer after which the server counts as gone. Longer than any time-out that the server itself has for
#: a writer's statements; keep-alives do not find a proxy that answers them and forwards nothing.
WRITE_PATIENCE: Final = 20.0
#: The same for readers, whose statements have no time-out of their own.
READ_PATIENCE: Final = 120.0


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer a statement within ``patience`` seconds."""

    patience = READ_PATIENCE

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """As in psycopg. Raises OperationalError when the patience is at its end; the connection is closed then."""
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                if wanted == Wait.R:
                    self._awaits_answer()
                ready = yield wanted
                # Nothing is ready: psycopg looks at the clock, which it does every tenth of a second.
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

    def _awaits_answer(self) -> None:
        """All is sent, and there is no answer yet."""


class WritingConnection(PatientConnection):
    """The connection that appends. ``meanwhile`` is called once, when next the server has work and we wait for it."""

    patience = WRITE_PATIENCE
    meanwhile: Callable[[], object] | None = None

    def _awaits_answer(self) -> None:
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            work()
