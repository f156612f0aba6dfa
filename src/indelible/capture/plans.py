"""Plans: what the rules have made of one request, kept for all like it, so that these need not go through Python.

Like it are those by the same route, with the same method and status, whose paths differ from its own in nothing but
parameters of hexadecimal digits and dashes: numbers, UUIDs, digests. No rule knows such a value as a word, no redaction
takes it for a secret. Whatever else could make another event of a request (what its handler adds, a query, a principal of
the host's, an exception) is looked at when it ends, each time: see ``indelible._native``. Where nothing is compiled there
are no plans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from indelible.capture.resources import parse_template
from indelible.events import AuditEvent, encode_fields
from indelible.native import native
from indelible.redaction.text import suspicious

if TYPE_CHECKING:
    from indelible.capture.watch import Seen
    from indelible.redaction import Redactor
    from indelible.service import EventFields

#: By route template, method and status, for each place where the route's router is included: the template from the root on,
#: how many fields all such events have in common, their encoding without the head of the map, and which parameter of the
#: path is the resource's id. No fields: such a request is not recorded.
Plans = dict[tuple[str, str, int], tuple[tuple[str, int, bytes, str | None], ...]]

#: The fields that all events of a plan have in common, and the service's name.
_COMMON: Final = ("event_type", "action", "status", "resource_type", "request_method", "response_status")
#: So many plans at the most: an application has a few for each of its routes. And for so many places of one route.
_MOST: Final = 4096
_PLACES: Final = 8
#: What the compiled part lets pass as a parameter.
_HEX: Final = re.compile(r"[0-9a-fA-F-]+")
#: Short enough for a length of one byte at the head of their map.
_HEAD: Final = 1


def learn(plans: Plans, seen: Seen, redactor: Redactor, source: str | None, fields: EventFields | None) -> None:
    """Make a plan of what the rules made of a request, if there can be one; ``fields`` are None for what is not recorded.

    To be called only for a request that had nothing of its own: no exception, no field from its handler, no hook's verdict.
    """
    scope, status = seen.scope, seen.status
    template = getattr(scope.get("route"), "path_format", None)
    if native is None or not seen.is_http or type(status) is not int or type(template) is not str:
        return
    key, whole = (template, scope["method"], status), whole_template(template, seen.shown)
    known = plans.get(key, ())
    if (
        len(plans) >= _MOST
        or len(known) >= _PLACES
        or seen.path != seen.shown
        or any(whole == there for there, *_ in known)
        or not native.fits(seen.shown, whole)
    ):
        return
    if fields is None:
        plans[key] = (*known, (whole, 0, b"", None))
        return
    kind, parameter = parse_template(template)
    parameters = scope.get("path_params") or {}
    if (
        # Whom it is about is told by the handler.
        fields["event_type"] == "user_created"
        # It takes more than the template to say what it is about.
        or kind is None
        or (parameter is None and parameters)
        or fields["resource_type"] != kind
        or fields["resource_id"] != (None if parameter is None else parameters.get(parameter))
        # Something in the path was masked, or would be of another value.
        or fields["request_path"] != seen.shown
        or suspicious(seen.shown)
        or redactor.path_secrets(dict.fromkeys(parameters, "value"))
    ):
        return
    common: dict[str, object] = {name: value for name, value in fields.items() if name in _COMMON}
    if source is not None:
        common["source"] = source
    if _holds(common):
        plans[key] = (*known, (whole, len(common), encode_fields(common)[_HEAD:], parameter))


def whole_template(template: str, path: str) -> str:
    """The template behind what the path has before it: mounts, and the prefixes of included routers.

    Of these only the segments that no rule could know, numbers and the like, may be others in another request.
    """
    segments, own = path.split("/"), template.count("/")
    before = segments[: len(segments) - own] if own else segments
    return "/".join("{}" if _HEX.fullmatch(segment) else segment for segment in before) + template


def _holds(common: Mapping[str, object]) -> bool:
    """Whether an event can hold these values as they are: within their bounds, plain text and without NUL."""
    try:
        msgspec.convert({**common, "id": bytes(16), "timestamp": 0}, AuditEvent)
    except msgspec.ValidationError:
        return False
    return not any("\0" in value or not value.isascii() for value in common.values() if isinstance(value, str))
