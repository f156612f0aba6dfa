"""Checkpoints from outside the database: files that were kept, a directory that an anchor fills, a witness's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from indelible.errors import ConfigurationError, StoreUnavailable
from indelible.integrity.note import MAX_NOTE

#: What a directory anchor calls the files that hold checkpoints: the newest, and one for each size in a folder.
_NEWEST: Final = "checkpoint"
_EACH: Final = "checkpoints"


@dataclass(frozen=True, slots=True)
class Outside:
    """A signed checkpoint that was not in the database, where it is from, and since when it is there (Unix seconds)."""

    name: str
    note: bytes
    time: float | None


def from_files(paths: Iterable[Path]) -> Iterator[Outside]:
    """The checkpoints in these files, and in these directories as a directory anchor or ``export-tiles`` leaves them.

    Raises ConfigurationError for a file that cannot be read and a directory without checkpoints.
    """
    for path in paths:
        files = [path]
        try:
            if path.is_dir():
                files = sorted(
                    file
                    for file in path.rglob("*")
                    if file.is_file() and (file.name == _NEWEST or (file.parent.name == _EACH and file.name.isdigit()))
                )
                if not files:
                    raise ConfigurationError(f"there is no checkpoint in {path}")
            for file in files:
                with file.open("rb") as opened:
                    yield Outside(str(file), opened.read(MAX_NOTE + 1), file.stat().st_mtime)
        except OSError as error:
            raise ConfigurationError(f"cannot read {error.filename or path}: {error.strerror}") from error


def from_witness(url: str, origins: Iterable[str], *, timeout: float = 10.0) -> Iterator[Outside]:
    """What a witness at ``url`` has last cosigned of these logs: ``GET <url>/checkpoint/<origin>``.

    ``timeout`` in seconds. Raises StoreUnavailable when it does not answer, ConfigurationError for another address.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigurationError(f"{url!r} is not the address of a witness", hint="it begins with https:// or http://")
    for origin in origins:
        address = f"{url.rstrip('/')}/checkpoint/{quote(origin, safe='/')}"
        request = Request(address, headers={"User-Agent": "indelible"})  # noqa: S310  # looked at above
        try:
            with urlopen(request, timeout=timeout) as response:  # noqa: S310
                yield Outside(f"witness {url}", response.read(MAX_NOTE + 1), None)
        except HTTPError as error:
            with error:
                if error.code != 404:
                    raise StoreUnavailable(f"the witness {url} answered with {error.code}") from error
        except (HTTPException, OSError, ValueError) as error:
            raise StoreUnavailable(f"the witness {url} does not answer: {getattr(error, 'reason', error)}") from error
