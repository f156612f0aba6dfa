"""Which log a command works on: its settings, its address on standard error, a connection for the schema's sake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from indelible.cli.output import note
from indelible.errors import ConfigurationError, SchemaOutOfDate

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from indelible.settings import Settings


def settings_for(database_url: str | None) -> Settings:
    """The settings of the environment, with the log of ``--database-url`` if it is given. Raises ConfigurationError."""
    from indelible.settings import load

    return load() if database_url is None else load(database_url=database_url)


def announce(settings: Settings) -> None:
    """Say which log is meant, without its password."""
    from indelible.stores import urls

    note(f"log: {urls.shown(urls.parse(settings.database_url))}")


def sqlite_file(settings: Settings) -> Path | None:
    """The file of a SQLite log, absolute; None for another engine."""
    from indelible.stores import urls

    url = urls.parse(settings.database_url)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


@contextmanager
def engine_of(settings: Settings, *, may_create: bool = False) -> Iterator[Engine]:
    """A SQLAlchemy engine that keeps no connections. Errors of the driver become StoreErrors.

    Without ``may_create`` a SQLite file that is not there is SchemaOutOfDate: looking must not make an empty log.
    """
    from sqlalchemy import NullPool, create_engine

    from indelible.stores import urls
    from indelible.stores.faults import translated

    file = sqlite_file(settings)
    if file is not None and not may_create and not file.exists():
        raise SchemaOutOfDate(f"there is no log at {file}", hint="check --database-url, or run: indelible db upgrade")
    if file is not None and not file.parent.is_dir():
        raise ConfigurationError(f"there is no directory {file.parent}", hint="make it, or check --database-url")
    try:
        engine = create_engine(urls.parse(settings.database_url), poolclass=NullPool)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed", hint="pip install 'indelible[postgres]'") from None
    try:
        with translated():
            yield engine
    finally:
        engine.dispose()


def require_log(engine: Engine) -> None:
    """Raise SchemaOutOfDate unless there is a log of this version: a store would make a missing one on SQLite."""
    from indelible.stores.versions import check_version

    with engine.connect() as connection:
        check_version(connection)
