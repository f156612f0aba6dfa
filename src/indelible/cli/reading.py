"""Reading the log, and the record of having read it. No command reads events but through here."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from indelible.cli.log import announce, engine_of, require_log, settings_for
from indelible.cli.output import note
from indelible.queries import Filter, filter_as_params

if TYPE_CHECKING:
    from indelible.ports import Store
    from indelible.service import AuditService


def operator() -> str:
    """The name of the user this process runs as, by the system's own account, not by its environment."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


class Reading:
    """An open log. ``record`` MUST be called, and have returned, before anything read from ``store`` is shown."""

    def __init__(self, service: AuditService, command: str) -> None:
        self._service = service
        self._command = command

    @property
    def store(self) -> Store:
        """The log being read."""
        return self._service.store

    def record(self, event_type: str, wanted: Filter, rows: int, **details: object) -> UUID:
        """Log that the operator read ``rows`` events of ``wanted``. Raises NotAccepted: then nothing may be shown."""
        behind = {"sudo_user": os.environ["SUDO_USER"]} if "SUDO_USER" in os.environ else {}
        return self._service.record(
            must=True,
            event_type=event_type,
            action=self._command,
            status="success",
            user_id=operator(),
            resource_type="audit_log",
            metadata={
                "filters": filter_as_params(wanted),
                "rows": rows,
                **details,
                "host": socket.gethostname(),
                **behind,
            },
            source="cli",
        )


@contextmanager
def opened(database_url: str | None) -> Iterator[AuditService]:
    """A service on the log at ``database_url`` (None: the settings'); on leaving, the records of what was read are stored.

    What the store does not take within 10 s stays in the journal, with a warning. Raises StoreError when the log cannot be
    read or is not there (no log is made by reading), NotAccepted when no journal can be opened.
    """
    from indelible.directory import oldest_waiting
    from indelible.runtime import open_store
    from indelible.service import AuditService

    settings = settings_for(database_url)
    announce(settings)
    with engine_of(settings) as engine:
        require_log(engine)
    if waiting := oldest_waiting(settings.data_dir).events:
        note(f"{waiting:,} accepted events are not in it yet: they come with the next flush")
    service = AuditService(open_store(settings), settings, announce=False)
    try:
        service.store.open()
        service.open()
        yield service
    finally:
        service.close()
        # A service that could not open its journal has nothing to close, but its store is open.
        service.store.close()


@contextmanager
def reading(database_url: str | None, command: str) -> Iterator[Reading]:
    """The same for a command that shows what it reads at once. Raises as ``opened``."""
    with opened(database_url) as service:
        yield Reading(service, command)
