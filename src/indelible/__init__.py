"""The audit log for Python web applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indelible.context import bound, enrich
    from indelible.events import AuditEvent, StoredEvent
    from indelible.runtime import configure, get_audit_service, log_audit_event
    from indelible.service import AuditService
    from indelible.taxonomy import register_event_type

__version__ = "0.1.0.dev0"

__all__ = [
    "AuditEvent",
    "AuditService",
    "StoredEvent",
    "bound",
    "configure",
    "enrich",
    "get_audit_service",
    "log_audit_event",
    "register_event_type",
]

_HOME = {
    "AuditEvent": "events",
    "AuditService": "service",
    "StoredEvent": "events",
    "bound": "context",
    "configure": "runtime",
    "enrich": "context",
    "get_audit_service": "runtime",
    "log_audit_event": "runtime",
    "register_event_type": "taxonomy",
}


def __getattr__(name: str) -> object:
    """Import a public name's module at its first use: ``import indelible`` costs next to nothing (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"indelible.{_HOME[name]}"), name)
