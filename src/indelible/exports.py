"""Many events at once as JSON lines or CSV, column by column: the same bytes as ``rendering`` gives for each of them.

A row of an export costs about 2 µs as JSON and 3 as CSV, for the loops run in C. What is out of the ordinary (a forged
row, a control character, something a spreadsheet might run) is rendered by ``rendering`` itself.
"""

from __future__ import annotations

import gzip
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
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
_TIMES: Final = (_AT["timestamp"], _AT["recorded_at"])
_JSON: Final = tuple(_AT[name] for name in JSON_FIELDS)
_HASH: Final = _AT["leaf_hash"]
_DIGESTS: Final = (_AT["actor_digest"], _AT["details_digest"])
_NUMBERS: Final = tuple(_AT[name] for name in ("seq", "response_status", "duration_us", "writer_seq"))
_TEXTS: Final = tuple(sorted({*range(len(FIELDS))} - {*_TIMES, _HASH, *_DIGESTS, *_NUMBERS}))
_OTHER_TEXTS: Final = tuple(at for at in _TEXTS if at not in _JSON)
_Line: Final = msgspec.defstruct("_Line", [(name, Any) for name in FIELDS], gc=False)
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_first: Final = itemgetter(slice(0, 1))


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
        value = self[text] = None if text is None else msgspec.Raw(msgspec.json.encode(rendering.parsed(text)))
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
        if not {*map(type, shown[at])} <= {int, NoneType}:
            raise TypeError("a number is something else")
        shown[at] = ["" if value is None else str(value) for value in shown[at]]
    for at in _TEXTS:
        shown[at] = _cells(shown[at])
    if None in shown[_HASH]:
        raise TypeError("a row has no leaf hash")
    shown[_HASH] = b"".join(map(b2a_base64, shown[_HASH])).decode().split("\n")[:-1]
    for at in _DIGESTS:
        shown[at] = ["" if text is None else text for text in shown[at]]
    quotes = 0
    for at in _JSON:
        shown[at], found = _doubled(shown[at])
        quotes += found
    text = _joined(shown)
    if text.count('"') != quotes + len(shown[0]) * 2 * len(FIELDS):
        # Seldom: a quote in something else than JSON.
        for at in _OTHER_TEXTS:
            shown[at], _ = _doubled(shown[at])
        text = _joined(shown)
    return text.encode()


def _joined(cells: Sequence[Sequence[str]]) -> str:
    lines = '"\r\n"'.join(map('","'.join, zip(*cells, strict=True)))
    return f'"{lines}"\r\n'


def _doubled(cells: Sequence[str]) -> tuple[Sequence[str], int]:
    """The cells with their quotes doubled, and how many quotes those are then."""
    quotes = "".join(cells).count('"')
    return ([cell.replace('"', '""') for cell in cells] if quotes else cells), 2 * quotes


def _cells(texts: Sequence[Any]) -> Sequence[str]:
    nothing = texts.count(None)
    if nothing == len(texts):
        return list(repeat("", nothing))
    cells = ["" if text is None else text for text in texts] if nothing else texts
    # A cell begins with something risky, or it is none: few characters come first, and many cells have them in common.
    if any(rendering.neutral(f"{first}=") != f"{first}=" for first in {*map(_first, cells)} - {""}):
        return list(map(rendering.neutral, cells))
    return cells


def _shown(columns: Columns) -> list[Sequence[Any]]:
    """The columns with their times and digests as text."""
    shown = list(columns)
    for at in _TIMES:
        shown[at] = times(shown[at])
    for at in _DIGESTS:
        if shown[at].count(None) != len(shown[at]):
            shown[at] = [None if digest is None else rendering.base64url(digest) for digest in shown[at]]
    return shown
