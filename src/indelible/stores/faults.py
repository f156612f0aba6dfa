"""Driver errors in the words of Indelible: every store and reader runs its statements inside ``translated()``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from indelible.errors import Protected, RowRefused, SchemaOutOfDate, StoreError, StoreUnavailable

#: How our guards' messages begin, on both engines.
GUARD_MESSAGE: Final = "indelible: "
UPGRADE_HINT: Final = "run: indelible db upgrade"
_ORPHAN_HINT: Final = "a row was written beside the service; run: indelible verify"


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreError's children for what SQLAlchemy, sqlite3 and psycopg raise; driver exceptions never leak."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise translate(error) from error
    except (OverflowError, UnicodeError) as error:
        # Integers beyond 64 bits and lone surrogates fail in the driver, before the database sees them.
        raise RowRefused(f"a value cannot be stored: {_short(error)}") from error
    except Exception as error:
        # psycopg is optional and so cannot be named here; its errors carry ``sqlstate``.
        if hasattr(error, "sqlstate"):
            raise translate(error) from error
        raise


def translate(error: Exception) -> StoreError:
    """The StoreError that says what a driver's exception says."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause)
    if isinstance(cause, (OverflowError, UnicodeError)):
        return RowRefused(f"a value cannot be stored: {_short(cause)}")
    if hasattr(cause, "sqlstate"):
        return _postgres(cause)
    return StoreUnavailable(f"the database did not answer: {_short(cause)}")


def _sqlite(error: sqlite3.Error) -> StoreError:
    text = str(error)
    if isinstance(error, sqlite3.IntegrityError):
        return _refusal(text, orphan="is taken" in text or text.endswith((".seq", ".size")))
    if isinstance(error, (sqlite3.DataError, sqlite3.InterfaceError)) or "binding parameter" in text:
        return RowRefused(f"a value cannot be stored: {text}")
    if "too big" in text:
        return RowRefused("a row is larger than SQLite stores")
    if text.startswith("no such "):
        return SchemaOutOfDate(f"the log's tables are missing or damaged: {text}", hint=UPGRADE_HINT)
    return StoreUnavailable(f"the database file cannot be used now: {text}")


def _postgres(error: BaseException) -> StoreError:
    state: str = getattr(error, "sqlstate", None) or ""
    text = _short(error)
    if state == "42501":
        if text.startswith(GUARD_MESSAGE):
            return Protected(text)
        return StoreUnavailable(f"the database role lacks a right: {text}", hint="run: indelible db roles")
    if state in {"42P01", "42703", "42883"}:
        return SchemaOutOfDate(f"the log's tables are missing or damaged: {text}", hint=UPGRADE_HINT)
    if state[:2] == "22" or type(error).__name__ == "DataError":
        return RowRefused(f"a value cannot be stored: {text}")
    if state[:2] == "23":
        constraint = getattr(getattr(error, "diag", None), "constraint_name", None) or ""
        # 23514: a row that belongs to no partition; the numbering has run past the segments.
        return _refusal(text, orphan=constraint.endswith("_pkey") or state == "23514")
    return StoreUnavailable(f"the database did not take the statement: {text}")


def _refusal(text: str, *, orphan: bool) -> StoreError:
    if orphan:
        # Not the event's fault: every event would fail. It stays in the journal until somebody has looked.
        return StoreUnavailable(f"the next place in the log is taken: {text}", hint=_ORPHAN_HINT)
    if text.startswith(GUARD_MESSAGE) and "twice" not in text:
        return Protected(text)
    return RowRefused(f"the database refuses this row: {text}")


def _short(error: BaseException) -> str:
    """The first line, without the statement and its values that SQLAlchemy and PostgreSQL append."""
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
