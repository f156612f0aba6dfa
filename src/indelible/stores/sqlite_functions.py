"""What SQLite has to be taught before it answers: functions that ``syntax.SQLITE`` names."""

from __future__ import annotations

import sqlite3
from functools import lru_cache

from indelible.queries.addresses import Network, network, within


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that conditions may call."""
    connection.create_function("ip_within", 2, _ip_within, deterministic=True)


def _ip_within(text: str | None, networks: str) -> bool:
    return within(text, _networks(networks))


@lru_cache(maxsize=64)
def _networks(texts: str) -> tuple[Network, ...]:
    return tuple(found for text in texts.split() if (found := network(text)) is not None)
