"""Many events at once as JSON lines or CSV, column by column: the same bytes as ``rendering`` gives for each of them.

A row of an export costs about 2 µs as JSON and 3 as CSV, for the loops run in C. What is out of the ordinary (a forged
row, a control character, something a spreadsheet might run) is rendered by ``rendering`` itself.
"""

from __future__ import annotations

import gzip
import re
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from types import NoneType, SimpleNamespace
from typing import Any, Final, Literal, get_args

import msgspec

from indelible import rendering
from indelible.errors import ConfigurationError
from indelible.events import JSON_FIELDS, times
from indelible.rendering import FIELDS

Format = Literal["jsonl", "csv"]
Compression = Literal["gzip", "zstd"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
#: Some events, column by column in the order of FIELDS: times in Unix µs, ids as text, JSON as its text.
Columns = Sequence[Sequence[Any]]

#: Makes a whole gzip member or zstd frame of some bytes. A file is a row of them, which every reader joins.
Pack = Callable[[bytes], bytes]
#: Bytes that go into one of them, at the least.
PACK: Final = 1 << 20
#: What the name of a compressed file ends with, and its media type.
SUFFIXES: Final[dict[Compression, str]] = {"gzip": ".gz", "zstd": ".zst"}
MEDIA: Final[dict[Compression, str]] = {"gzip": "application/gzip", "zstd": "application/zstd"}

_LEVEL: Final = 3
_AT: Final = {name: at for at, name in enumerate(FIELDS)}
_TIMESTAMP: Final = _AT["timestamp"]
_RECORDED: Final = _AT["recorded_at"]
_JSON: Final = tuple(_AT[name] for name in JSON_FIELDS)
_HASH: Final = _AT["leaf_hash"]
_DIGESTS: Final = (_AT["actor_digest"], _AT["details_digest"])
_NUMBERS: Final = tuple(_AT[name] for name in ("seq", "response_status", "duration_us", "writer_seq"))
_TEXTS: Final = tuple(sorted({*range(len(FIELDS))} - {_TIMESTAMP, _RECORDED, _HASH, *_DIGESTS, *_NUMBERS}))
_Line: Final = msgspec.defstruct("_Line", [(name, Any) for name in FIELDS], gc=False)
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_RISKY: Final = re.compile(rf"\0{rendering.RISKY_FIRST}")


def opening(form: Format, pack: Pack | None = None) -> bytes:
    """What an export begins with: the header of a CSV; compressed, a member even where it is empty."""
    head = rendering.csv_line(rendering.csv_header()).encode() if form == "csv" else b""
    return head if pack is None else pack(head)


def written(form: Format, slices: Iterable[Columns], pack: Pack | None = None) -> Iterator[tuple[int, bytes]]:
    """The records behind the opening, piece by piece: (events in it, bytes). ``pack`` gets ``PACK`` bytes or more."""
    waiting: list[bytes] = []
    events = size = 0
    for columns in slices:
        data = rendered(form, columns)
        if pack is None:
            yield len(columns[0]), data
            continue
        waiting.append(data)
        events, size = events + len(columns[0]), size + len(data)
        if size >= PACK:
            yield events, pack(b"".join(waiting))
            waiting, events, size = [], 0, 0
    if waiting and pack is not None:
        yield events, pack(b"".join(waiting))


def rendered(form: Format, columns: Columns) -> bytes:
    """The records of these events, one behind the other."""
    try:
        return _csv(columns) if form == "csv" else _jsonl(columns)
    except (OverflowError, TypeError, ValueError):
        events: Iterator[Any] = (
            SimpleNamespace(**dict(zip(FIELDS, map(_legible, row), strict=True))) for row in zip(*columns, strict=True)
        )
        if form == "csv":
            return "".join(rendering.csv_line(rendering.csv_row(event)) for event in events).encode()
        return "".join(map(rendering.json_line, events)).encode()


def _legible(value: Any) -> Any:
    """A text without the bytes that are none, which only a forged row has and the reader passed on as they were."""
    return value.encode(errors="surrogateescape").decode(errors="replace") if isinstance(value, str) else value


def compressor(kind: Compression) -> Pack:
    """What compresses so. Raises ConfigurationError for zstd without its extra."""
    if kind == "gzip":
        return lambda data: gzip.compress(data, compresslevel=_LEVEL, mtime=0)
    try:
        from backports import zstd
    except ImportError as error:
        raise ConfigurationError("zstd needs backports.zstd", hint="pip install 'indelible[zstd]'") from error
    return lambda data: zstd.compress(data, level=_LEVEL)


class _Parsed(dict[str | None, msgspec.Raw | None]):
    """The texts of JSON columns as ``rendering`` shows them; the same few come again and again."""

    def __missing__(self, text: str | None) -> msgspec.Raw | None:
        if len(self) >= _KEPT:
            self.clear()
        if not isinstance(text, (str, NoneType)):
            raise TypeError("a JSON text is something else")
        value = self[text] = None if text is None else msgspec.Raw(msgspec.json.encode(rendering.parsed(text)))
        return value


class _Doubled(dict[str, str]):
    """Texts with their quotes doubled, for one column of some events: the same few come again and again."""

    def __missing__(self, text: str) -> str:
        value = self[text] = text.replace('"', '""')
        return value


_KEPT: Final = 1_000


def _jsonl(columns: Columns) -> bytes:
    shown, parsed = _shown(columns), _Parsed()
    for at in _JSON:
        shown[at] = list(map(parsed.__getitem__, shown[at]))
    # Bytes are written as base64: leaf hashes need nothing done.
    return _encode_lines(list(map(_Line, *shown)))


def _csv(columns: Columns) -> bytes:
    shown = _shown(columns)
    for at in _NUMBERS:
        kinds = {*map(type, shown[at])}
        if not kinds <= {int, NoneType}:
            raise TypeError("a number is something else")
        shown[at] = list(map(str, shown[at])) if kinds == {int} else ["" if n is None else str(n) for n in shown[at]]
    for at in _TEXTS:
        shown[at] = _cells(shown[at])
    if None in shown[_HASH]:
        raise TypeError("a row has no leaf hash")
    shown[_HASH] = b"".join(map(b2a_base64, shown[_HASH])).decode().split("\n")[:-1]
    for at in _DIGESTS:
        shown[at] = ["" if text is None else text for text in shown[at]]
    lines = '"\r\n"'.join(map('","'.join, zip(*shown, strict=True)))
    return f'"{lines}"\r\n'.encode()


def _cells(texts: Sequence[Any]) -> Sequence[str]:
    if not any(texts) and {*texts} <= {None, ""}:
        return list(repeat("", len(texts)))
    cells = ["" if text is None else text for text in texts]
    # Looked through all at once. A NUL in a cell looks like the beginning of one: that costs time and changes nothing.
    together = "\0" + "\0".join(cells)
    if _RISKY.search(together):
        cells = list(map(rendering.neutral, cells))
    if '"' in together:
        cells = list(map(_Doubled().__getitem__, cells))
    return cells


def _shown(columns: Columns) -> list[Sequence[Any]]:
    """The columns with their times and digests as text."""
    shown = list(columns)
    if not {*map(type, shown[_TIMESTAMP]), *map(type, shown[_RECORDED])} <= {int}:
        raise TypeError("a time is something else")
    shown[_TIMESTAMP] = times(shown[_TIMESTAMP])
    # Taken once for each batch.
    recorded = list(dict.fromkeys(shown[_RECORDED]))
    shown[_RECORDED] = list(map(dict(zip(recorded, times(recorded), strict=True)).__getitem__, shown[_RECORDED]))
    for at in _DIGESTS:
        if shown[at].count(None) != len(shown[at]):
            shown[at] = [None if digest is None else rendering.base64url(digest) for digest in shown[at]]
    return shown
