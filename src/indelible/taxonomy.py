"""The vocabulary: event types and outcomes."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from indelible.errors import InvalidEvent

Status = Literal["success", "failure", "denied"]
STATUSES: Final[tuple[str, ...]] = get_args(Status)

#: What a host's own code and the middleware record; name → meaning.
GUIDE_EVENT_TYPES: Final[dict[str, str]] = {
    "login": "Successful login",
    "login_failed": "Failed login attempt",
    "logout": "User logout",
    "user_created": "New user registration",
    "data_access": "GET requests",
    "data_create": "POST requests",
    "data_modify": "PUT/PATCH requests",
    "data_delete": "DELETE requests",
    "admin_action": "Admin panel actions",
    "permission_denied": "403 Forbidden",
    "api_request": "Generic API request",
    "api_request_error": "Request with exception",
}

#: What the log records about itself. Hosts can neither use nor register names under ``audit.``.
RESERVED_EVENT_TYPES: Final[dict[str, str]] = {
    "audit.started": "A writer opened its journal",
    "audit.stopped": "A writer closed its journal",
    "audit.gap": "Events that were shed, dead-lettered or lost, counted",
    "audit.read": "Somebody read the log",
    "audit.exported": "Somebody exported from the log",
    "audit.erased": "Personal data was erased from the log",
    "audit.archived": "A segment left the database",
    "audit.hold": "A legal hold was set or lifted",
    "audit.alert": "An alert rule fired",
    "audit.key": "A signing key was registered or rotated",
}

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
_MAX_NAME = 64
#: What a host may log, name → meaning: the guide's, and those that were registered.
LOGGABLE: Final[dict[str, str]] = dict(GUIDE_EVENT_TYPES)


def is_event_type_name(name: str) -> bool:
    """Whether a host could register this name: the right form, and not under ``audit.``."""
    return _NAME.match(name) is not None and len(name) <= _MAX_NAME and name.partition(".")[0] != "audit"


def register_event_type(name: str, description: str = "") -> str:
    """Add a host's own event type and return its name. Repeating a registration is harmless.

    Names are lower-case words joined by ``_`` and ``.``, 64 characters at most, for example ``invoice.paid``.
    Raises InvalidEvent for any other form and for names under ``audit.``.
    """
    if not _NAME.match(name) or len(name) > _MAX_NAME:
        raise InvalidEvent(f"not an event type name: {name[:80]!r}", hint="use lower-case words joined by _ and .")
    if name == "audit" or name.startswith("audit."):
        raise InvalidEvent(f"{name!r} is reserved", hint="names under audit. belong to the log itself")
    if name not in GUIDE_EVENT_TYPES:
        LOGGABLE[name] = description
    return name


def event_types() -> dict[str, str]:
    """Every event type that can stand in the log now, name → description."""
    return {**LOGGABLE, **RESERVED_EVENT_TYPES}


def check_event_type(name: str) -> str:
    """Return ``name`` if a host may log it; raise InvalidEvent otherwise."""
    if name in LOGGABLE:
        return name
    if isinstance(name, str) and name.startswith("audit."):
        raise InvalidEvent(f"{name!r} is reserved", hint="names under audit. belong to the log itself")
    raise InvalidEvent(
        f"unknown event type {str(name)[:80]!r}", hint="register it once with indelible.register_event_type(name)"
    )


def check_status(status: str) -> str:
    """Return ``status`` if it is one of STATUSES; raise InvalidEvent otherwise."""
    if status in STATUSES:
        return status
    raise InvalidEvent(f"unknown status {str(status)[:80]!r}", hint="use one of " + ", ".join(STATUSES))
