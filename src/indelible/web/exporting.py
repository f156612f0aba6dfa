"""A file of everything that matches: what the API and the dashboard send alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from fastapi import Response
from fastapi.responses import StreamingResponse

from indelible import exports
from indelible.errors import ConfigurationError, InvalidQuery, StoreError
from indelible.ports import Store
from indelible.queries import Filter, filter_as_params
from indelible.snapshot import Snapshot, snapshot
from indelible.web.reading import Reading

#: The parameters that say how the file is written.
WISHES: Final = ("format", "compress")
_MEDIA: Final[dict[exports.Format, str]] = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True, slots=True)
class Wish:
    """How a file is written: its format, and what packs it, if anything."""

    form: exports.Format
    compression: exports.Compression | None
    pack: exports.Pack | None

    @property
    def media(self) -> str:
        """The media type."""
        return _MEDIA[self.form] if self.compression is None else exports.MEDIA[self.compression]

    @property
    def suffix(self) -> str:
        """What the file's name ends with."""
        return f".{self.form}" + ("" if self.compression is None else exports.SUFFIXES[self.compression])


def parse_wish(params: Sequence[tuple[str, str]]) -> Wish:
    """``format`` (default: ``jsonl``) and ``compress`` (default: not at all). Raises InvalidQuery."""
    form = _one_of(params, "format", exports.FORMATS) or "jsonl"
    compression = _one_of(params, "compress", exports.COMPRESSIONS)
    try:
        return Wish(form, compression, None if compression is None else exports.compressor(compression))
    except ConfigurationError as error:
        raise InvalidQuery(f"{error.message} on this server", parameter="compress", hint=error.hint) from error


def _one_of(params: Sequence[tuple[str, str]], name: str, known: tuple[_Word, ...]) -> _Word | None:
    given = [value for key, value in params if key == name]
    word = next((word for word in known if given == [word]), None)
    if given and word is None:
        raise InvalidQuery(f"{name} is one of " + ", ".join(known), parameter=name)
    return word


async def exported(reading: Reading, wanted: Filter, wish: Wish) -> Response:
    """Every event that matches and is stored now, oldest first, recorded as ``audit.exported`` before it is sent."""
    taken = await reading.ask(snapshot, reading.store, wanted)
    asked = {**filter_as_params(wanted), "format": wish.form}
    if wish.compression is not None:
        asked["compress"] = wish.compression
    reading.record("audit.exported", "export", filters=asked, rows=taken.rows)
    name = f"audit-{datetime.now(UTC):%Y-%m-%d}{wish.suffix}"
    return StreamingResponse(
        _file(reading.store, wanted, taken, wish),
        media_type=wish.media,
        headers={"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'},
    )


def _file(store: Store, wanted: Filter, taken: Snapshot, wish: Wish) -> Iterator[bytes]:
    """The file, one slice of rows at a time. Raises, which breaks the connection off, rather than end short."""
    if opening := exports.opening(wish.form, wish.pack):
        yield opening
    sent = 0
    for rows, data in exports.written(wish.form, store.columns(wanted, end=taken.end), wish.pack):
        yield data
        sent += rows
    if sent != taken.rows:
        raise StoreError(f"the export ended after {sent} of {taken.rows} rows")
