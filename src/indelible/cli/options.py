"""The options that commands share, and what they mean to ``indelible.queries``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer

from indelible.queries import PARAMETERS

_FILTERS: Final = "Filters (all must hold; a repeated option matches any of its values)"
_PAGE: Final = "Page and order"
_OUTPUT: Final = "Output"


def _filter(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_FILTERS, show_default=False)


def _page(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PAGE, show_default=False)


def _output(flag: str, text: str) -> Any:
    # No metavar: older and newer releases of Typer differ in what they print for a switch.
    return typer.Option(flag, metavar="", help=text, rich_help_panel=_OUTPUT)


EventTypes = Annotated[list[str] | None, _filter("--event-type", "TYPE", "Event type, as login_failed. Repeatable.")]
UserIds = Annotated[list[str] | None, _filter("--user-id", "ID", "Who did it. Repeatable.")]
Statuses = Annotated[list[str] | None, _filter("--status", "STATUS", "success, failure or denied. Repeatable.")]
IpAddresses = Annotated[
    list[str] | None, _filter("--ip-address", "IP", "The client's address, or a network, as 10.0.0.0/8. Repeatable.")
]
ResourceType = Annotated[str | None, _filter("--resource-type", "TYPE", "Kind of the thing acted upon, as node.")]
ResourceId = Annotated[str | None, _filter("--resource-id", "ID", "Its identifier.")]
CorrelationId = Annotated[str | None, _filter("--correlation-id", "ID", "The request's correlation id.")]
StartDate = Annotated[
    str | None, _filter("--start-date", "WHEN", "At or after: an ISO 8601 date or time; without a zone UTC.")
]
EndDate = Annotated[str | None, _filter("--end-date", "WHEN", "At or before; a date alone means all of that day.")]
Actions = Annotated[list[str] | None, _filter("--action", "ACTION", "What was done, as update. Repeatable.")]
Search = Annotated[
    str | None, _filter("--q", "TEXT", "Text in path, resource id or user agent, without regard to ASCII case.")
]
PageNumber = Annotated[int | None, _page("--page", "N", "Page number, from 1.")]
PageSize = Annotated[int | None, _page("--page-size", "N", "Rows on a page, 1 to 1000. Default: 50.")]
CursorText = Annotated[
    str | None, _page("--cursor", "CURSOR", "Continue after the page that printed this cursor, instead of --page.")
]
SortBy = Annotated[
    str | None,
    _page("--sort-by", "FIELD", "timestamp, event_type, user_id, ip_address or status. Default: timestamp."),
]
SortOrder = Annotated[str | None, _page("--sort-order", "ORDER", "asc or desc. Default: desc.")]
AsJson = Annotated[bool, _output("--json", "JSON for programs, one object a line.")]
AsCsv = Annotated[bool, _output("--csv", "CSV; cells a spreadsheet would run are neutralised.")]


def asked(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options given on the command line as the query API's (name, value) pairs, repeated ones one by one."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        if name not in PARAMETERS or value is None:
            continue
        values = value if isinstance(value, list | tuple) else (value,)
        pairs.extend((name, str(one)) for one in values)
    return pairs


def flag(parameter: str) -> str:
    """The option that carries a parameter of the query API."""
    return "--" + parameter.replace("_", "-")


def prose(function: Callable[..., object]) -> str:
    """A docstring as help: its paragraphs fill the width of whoever reads them."""
    paragraphs = (function.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(*lines: str) -> str:
    """Example command lines as the last part of a command's help."""
    return "\n\n".join(("[bold]Examples[/bold]", *(line.replace("[", "\\[") for line in lines)))
