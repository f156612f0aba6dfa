"""Database URLs: whichever driver the host uses, the log takes its own synchronous driver of the same engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from indelible.errors import ConfigurationError

_POSTGRES: Final = frozenset({"postgres", "postgresql"})
_SQLITE_DRIVERS: Final = frozenset({"", "pysqlite", "aiosqlite"})
#: What other drivers' URLs may carry and libpq would refuse.
_NOT_LIBPQ: Final = frozenset(
    {
        "async_fallback",
        "command_timeout",
        "max_cached_statement_lifetime",
        "max_cacheable_statement_size",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "statement_cache_size",
    }
)
_HINT: Final = "use sqlite:///path/to/file.db or postgresql://user:password@host/database"


def parse(url: str) -> URL:
    """The URL with the log's own driver: ``sqlite`` with an absolute path, or ``postgresql+psycopg``.

    Takes ``postgres://``, ``postgresql://`` and ``sqlite://``, with any driver behind a ``+``. Raises
    ConfigurationError for everything else, and for SQLite databases that are not a file.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The cause would carry the URL, and with it the password, into a traceback.
        raise ConfigurationError("the database URL cannot be read", hint=_HINT) from None
    name, _, driver = parsed.drivername.partition("+")
    if name in _POSTGRES:
        return _postgres(parsed)
    if name == "sqlite" and driver in _SQLITE_DRIVERS:
        return _sqlite(parsed)
    raise ConfigurationError(f"no store for {parsed.drivername!r}", hint=_HINT)


def _sqlite(url: URL) -> URL:
    path = url.database or ""
    if path in {"", ":memory:"} or path.startswith("file:"):
        raise ConfigurationError(
            "the log cannot live in an SQLite database in memory: it opens connections of its own, in several processes",
            hint="name a file: sqlite:///path/to/file.db",
        )
    return URL.create("sqlite", database=str(Path(path).absolute()))


def _postgres(url: URL) -> URL:
    query = {key: value for key, value in url.query.items() if key not in _NOT_LIBPQ}
    if "ssl" in query:
        # asyncpg's name; it also knows true and false.
        given = str(query.pop("ssl")).lower()
        query.setdefault(
            "sslmode", {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(given, given)
        )
    return url.set(drivername="postgresql+psycopg", query=query)


def shown(url: URL) -> str:
    """The address without its password, without the driver's name."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
