"""The singleton: settings become a store and a service, once per process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack
from uuid import UUID

from indelible.errors import ConfigurationError
from indelible.service import AuditService, EventFields, Wait
from indelible.settings import Settings, load

if TYPE_CHECKING:
    from indelible.integrity.note import Signer
    from indelible.ports import Store

_lock = threading.Lock()
_first_use = threading.RLock()
_service: AuditService | None = None


def configure(*, announce: bool = True, signer: Signer | None = None, **settings: object) -> AuditService:
    """Set up the process's audit service and return it; what is not given comes from the environment.

    Takes every field of ``Settings``, for example ``database_url`` and ``data_dir``. Nothing is opened yet. ``signer``
    signs the log's checkpoints in place of a key of the settings: a KMS, an HSM.
    Raises ConfigurationError for a wrong setting, and when the present service is still running.
    """
    from indelible.followers.assembly import followers

    loaded = load(**settings)
    store = open_store(loaded)
    running = followers(loaded, store, signer=signer) if announce else ()
    service = AuditService(store, loaded, announce=announce, followers=running)
    install(service)
    return service


def install(service: AuditService | None) -> None:
    """Make ``service`` the singleton (None: forget it, the next use reads the environment again)."""
    global _service
    with _lock:
        if _service is not None and _service is not service and _service.running:
            raise ConfigurationError(
                "the audit service is already running", hint="stop it before you configure another"
            )
        _service = service


def swap(service: AuditService | None) -> AuditService | None:
    """Put another service in the singleton's place, whatever the present one does, and return that one: for tests."""
    global _service
    with _lock:
        before, _service = _service, service
    return before


def get_audit_service() -> AuditService:
    """The process's audit service, made from the environment at first use, by one of the threads that ask at once."""
    if (service := _service) is not None:
        return service
    with _first_use:
        return _service or configure()


async def log_audit_event(*, wait: Wait = "accepted", **fields: Unpack[EventFields]) -> UUID:
    """Record that somebody did something; return the event's id.

    With ``wait="accepted"`` (default) the event is in the journal when this returns, in microseconds and without
    waiting for anything; ``"durable"`` waits for fdatasync, ``"stored"`` for the database.
    Raises InvalidEvent for an unknown event type, status or ``wait``, WaitTimeout after 10 s of waiting.
    """
    return await get_audit_service().alog(wait=wait, **fields)


def getter(service: AuditService | Callable[[], AuditService] | None) -> Callable[[], AuditService]:
    """How to get at a service that is given, that a function gives when it is needed, or that is the singleton."""
    if service is None:
        return get_audit_service
    return (lambda: service) if isinstance(service, AuditService) else service


def open_store(settings: Settings) -> Store:
    """The store that ``settings.database_url`` names, not opened yet. Raises ConfigurationError for other engines."""
    url = settings.database_url
    scheme = url.split(":", 1)[0].split("+", 1)[0]
    more = {} if settings.segment_rows is None else {"segment_rows": settings.segment_rows}
    if scheme == "sqlite":
        from indelible.migrations import upgrade_engine
        from indelible.stores.sqlite import SqliteStore

        return SqliteStore(url, prepare=upgrade_engine, **more)
    if scheme in ("postgres", "postgresql"):
        from indelible.migrations import upgrade_engine
        from indelible.stores.postgres import PostgresStore

        return PostgresStore(url, prepare=upgrade_engine if settings.auto_migrate else None, **more)
    raise ConfigurationError(f"no store for {scheme!r} URLs", hint="use sqlite:///FILE or postgresql://...")
