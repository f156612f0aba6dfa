"""Writes the pages of ``docs/reference`` that are made from the code: ``make docs``."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from indelible import errors
from indelible.integrity.verify import KINDS, OPEN
from indelible.metrics import METRICS
from indelible.settings import Settings
from indelible.taxonomy import GUIDE_EVENT_TYPES, RESERVED_EVENT_TYPES, STATUSES
from scripts.cli_reference import cli_page

REFERENCE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
_NOTE: Final = "<!-- Made from the code by `make docs`. -->\n"


def settings_page() -> str:
    """Every setting: name, type, default, meaning."""
    lines = [
        _NOTE,
        "# Settings",
        "",
        "Give them to `indelible.configure(name=value)`, or set them in the environment in capitals with the prefix",
        "`INDELIBLE_`; what is passed wins. They are validated together when the service is made:",
        "a wrong one raises [`ConfigurationError`](errors.md). Lists are separated by commas in the environment.",
        "",
        "| Setting | Environment | Type | Default | Meaning |",
        "|---|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        cells = (
            f"`{name}`",
            f"`INDELIBLE_{name.upper()}`",
            _type_name(field.annotation) + _bounds(field.metadata),
            _default(field.default),
            (field.description or "").replace("|", "\\|"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def event_types_page() -> str:
    """Every event type, the outcomes, and how the middleware chooses."""
    lines = [
        _NOTE,
        "# Event types",
        "",
        "An event has one type, one action (a word of the host's choice) and one outcome: "
        + ", ".join(f"`{status}`" for status in STATUSES)
        + ".",
        "",
        "## For hosts and the middleware",
        "",
        *_table("Type", "Meaning", GUIDE_EVENT_TYPES),
        "",
        "A host adds its own once, at import time:",
        '`indelible.register_event_type("invoice.paid", "An invoice was paid")`.',
        "Names are lower-case words joined by `_` and `.`, 64 characters at most. Any other name makes `log()` raise",
        "[`InvalidEvent`](errors.md).",
        "",
        "## For the log itself",
        "",
        "Names under `audit.` are reserved: hosts can neither log nor register them.",
        "",
        *_table("Type", "Meaning", RESERVED_EVENT_TYPES),
        "",
        _CLASSIFICATION,
    ]
    return "\n".join(lines)


def errors_page() -> str:
    """The error tree with each error's first line."""
    lines = [
        _NOTE,
        "# Errors",
        "",
        "Everything Indelible raises is an `IndelibleError` from `indelible.errors`. Each has a `message` and a",
        "`hint`: what to do about it. Driver exceptions never leak.",
        "",
        *_tree(errors.IndelibleError, 0),
    ]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Every metric: name as Prometheus shows it, kind, meaning."""
    lines = [
        _NOTE,
        "# Metrics",
        "",
        "One set for each process: `indelible.metrics.PrometheusCollector(get_audit_service)` in a Prometheus registry,",
        "or `indelible writer --metrics-port`. What to watch: [operations](../operations/README.md).",
        "",
        "| Metric | Kind | Meaning |",
        "|---|---|---|",
        *(f"| `{m.name}{'_total' if m.kind == 'counter' else ''}` | {m.kind} | {m.help} |" for m in METRICS.values()),
        "",
        "For each process, always: offered = accepted + raised + shed, and",
        "accepted = stored + journaled + dead_lettered + lost.",
    ]
    return "\n".join(lines) + "\n"


def verify_page() -> str:
    """What `verify` checks, and every kind of finding."""
    opened = {kind: meaning for kind, meaning in KINDS.items() if kind in OPEN}
    wrong = {kind: meaning for kind, meaning in KINDS.items() if kind not in OPEN}
    return "\n".join((_NOTE, _VERIFY, *_kinds(wrong, opened))) + "\n"


def _kinds(wrong: dict[str, str], opened: dict[str, str]) -> Iterator[str]:
    yield "## Findings that mean tampering\n"
    yield from _table("Kind", "Meaning", wrong)
    yield "\n## Findings that leave a question\n"
    yield from _table("Kind", "Meaning", opened)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings_page,
    "event-types.md": event_types_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "cli.md": cli_page,
    "verify.md": verify_page,
}

_VERIFY: Final = """\
# `indelible verify`

Recomputes the log and compares it with what is known from outside the database. The options are those of
[the command line](cli.md#indelible-verify); what it can and cannot find is in [the threat table](../explanation/threats.md).

| Verdict | Exit code | Meaning |
|---|---|---|
| `verified` | 0 | nothing is wrong, and a checkpoint from outside that a known key signed agrees |
| `tampered` | 1 | at least one finding of the first table below, whatever else is open |
| `incomplete` | 2 | nothing is wrong, but a question of the second table is open; or the log or a file is out of reach |

`--json` prints one object: `verdict`, `size` (rows), `root` (base64), `findings` (each `kind`, `seq`, `detail`; `seq` is the
first row it is about, or null), `counts` (all findings by kind; of each kind the first 50 are in `findings`), `rows` (read),
`witnessed` (the size of the largest checkpoint from outside that agrees, or null).

## What it checks

- every row gives the leaf hash that stands beside it, and every value is one that can have been sealed;
- the leaf hashes make every stored tile, and the root of every head;
- positions are dense from 0; no row, table, head or tile is there that is not part of the log;
- each writer's numbers are dense from 0; what they skip is explained by a sealed `audit.gap` event with `writer_id`,
  `first` and `end` in its metadata;
- each head is that of its last row, and each writer's newest head reaches its last row;
- blank personal data is explained by a sealed, later `audit.erased` event, whose metadata is
  `{"groups": ["actor", "details"], "seqs": [[first, end], ...]}`: runs of rows, `end` not included;
- the recorded time spans of segments, which decide where questions by time look, are those of their rows;
- tables, guards, partitions and grants are what they must be;
- the checkpoints in the database are signed by a key of the log and agree with the tree;
- the checkpoints from outside agree with the tree, are signed by a known key, and are young enough for `--max-age`.

A checkpoint's age is that of its youngest cosignature by a known witness, else of its file.

## From outside

`--checkpoint` takes files that `indelible checkpoint --out` or an anchor wrote, and directories of them. `--witness` asks
`GET URL/checkpoint/ORIGIN`. Without either, it compares with `INDELIBLE_ANCHOR_DIRECTORY`, `INDELIBLE_ANCHOR_S3_BUCKET`
and the witnesses of `INDELIBLE_ANCHOR_WITNESSES`. In a bucket it looks at every version of an object, for Object Lock keeps
versions and lets others be put over them: at all objects with several versions, the last 250 of the others, and 250 spread
over the rest. To compare with each of very many, download them and name the directory. A checkpoint that disagrees is
tampering
whoever signed it; one that agrees counts only if a
known key signed it: those given with `--key`, else this host's, the settings' witnesses' and those that the log registers.

## Large logs

Ranges of 65,536 rows are read in parallel, by one process for each CPU; memory does not grow with the log. `--since-last`
reads what is new since the last run and a 24th of what is old, in turn, so that hourly runs read everything once a day.
What was verified is kept in `verify/` of the data directory; whoever can write there can forge it, which a run without
`--since-last` does not depend on.

"""
_CLASSIFICATION: Final = """\
## How the middleware classifies a request

The first match wins. *admin* means that the path has a segment `admin`; log-in, log-out and registration are the paths
that end in `/login`, `/logout` and `/register` unless the host's `classify` says otherwise.

| Request | Event type | Outcome |
|---|---|---|
| exception out of the application | `api_request_error` | `failure` |
| the audit log's own API, answered below 400 | `audit.read`, `audit.exported` | `success` |
| 403 anywhere but at log-in | `permission_denied` | `denied` |
| log-in, answered below 400 | `login` | `success` |
| log-in, answered otherwise | `login_failed` | `failure`; `denied` for 403 |
| log-out | `logout` | by response |
| registration, answered below 400 | `user_created` | by response |
| under *admin* | `admin_action` | by response |
| GET, HEAD | `data_access` | by response |
| POST | `data_create` | by response |
| PUT, PATCH | `data_modify` | by response |
| DELETE | `data_delete` | by response |
| anything else (OPTIONS, WebSocket) | `api_request` | by response |

By response: below 400 is `success`, 401 and 403 are `denied`, everything else is `failure`.
`log_successful_reads=False`, the default, drops successful `data_access` and successful OPTIONS and nothing else.
"""


def _table(first: str, second: str, entries: dict[str, str]) -> Iterator[str]:
    yield f"| {first} | {second} |"
    yield "|---|---|"
    for name, meaning in entries.items():
        yield f"| `{name}` | {meaning} |"


def _tree(error: type[Exception], depth: int) -> Iterator[str]:
    summary = (error.__doc__ or "").strip().splitlines()[0].replace("``", "`")
    yield f"{'  ' * depth}- `{error.__name__}`: {summary}"
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return _type_name(next(each for each in arguments if each is not type(None)))
    if origin is tuple:
        return "list"
    if origin is dict:
        return "JSON object"
    names = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path", SecretStr: "secret"}
    return names[annotation]


def _bounds(constraints: list[Any]) -> str:
    low = next((str(each.ge) for each in constraints if getattr(each, "ge", None) is not None), None)
    above = next((str(each.gt) for each in constraints if getattr(each, "gt", None) is not None), None)
    high = next((str(each.le) for each in constraints if getattr(each, "le", None) is not None), None)
    parts = [f"from {low}" if low else "", f"above {above}" if above else "", f"to {high}" if high else ""]
    text = " ".join(part for part in parts if part)
    return f", {text}" if text else ""


def _default(value: object) -> str:
    if value is None or value in ((), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
