"""Where the two engines want different words, and the conditions of a filter in those words.

Statements over segments are written as text with named parameters: one arm per segment, up to 64 arms. Built from
expression objects, such a statement takes ten times as long to put together as SQLite takes to answer it. Names of
tables and columns come from ``schema``; whatever comes from outside is a parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from indelible.events import JSON_FIELDS, StoredEvent, micros, moment
from indelible.queries import EARLIEST, LATEST, REPEATABLE, Filter, storable
from indelible.queries.addresses import ADDRESS, Network, network, text_prefix
from indelible.stores.schema import COLUMNS

#: Where ``q`` is looked for.
SEARCHED: Final = ("request_path", "resource_id", "user_agent")


@dataclass(frozen=True, slots=True)
class Syntax:
    """One engine's words. ``arms`` is how many segments one statement may read."""

    arms: int
    find: str
    within: str
    among: str
    columns: str
    bucket: str
    time_type: str
    time: Callable[[int], Any]
    width: Callable[[int], Any]
    networks: Callable[[Sequence[str]], Any]
    seqs: Callable[[Sequence[int]], Any]
    id: Callable[[UUID], Any]


SQLITE: Final = Syntax(
    # A compound SELECT may have 500 arms, but a longer statement is no faster for it.
    arms=64,
    find="instr(lower({column}), :q) > 0",
    within="ip_within(ip_address, :networks)",
    among="seq IN (SELECT value FROM json_each({seqs}))",
    columns=", ".join(f'"{name}"' for name in COLUMNS),
    # Rounded down, before 1970 too, where % is negative.
    bucket="timestamp - (timestamp % :width + :width) % :width",
    time_type="INTEGER",
    time=int,
    width=int,
    networks=" ".join,
    seqs=lambda seqs: json.dumps(list(seqs)),
    id=str,
)

POSTGRESQL: Final = Syntax(
    # Each arm locks a table and its indexes; the lock table is shared by all sessions and not large.
    arms=16,
    find="strpos(lower({column}), :q) > 0",
    # CASE, because only its order is kept: inet refuses a text that is no address.
    within=(
        f"CASE WHEN ip_address ~ '{ADDRESS}' THEN CAST(ip_address AS inet) <<= ANY(CAST(:networks AS inet[])) ELSE false END"
    ),
    among="seq = ANY({seqs})",
    # The JSON columns as the text that was stored, whatever loader the connection has for their type.
    columns=", ".join(f'CAST("{name}" AS text)' if name in JSON_FIELDS else f'"{name}"' for name in COLUMNS),
    bucket="date_bin(CAST(:width AS interval), timestamp, CAST('epoch' AS timestamptz))",
    time_type="timestamptz",
    time=lambda us: moment(us) if EARLIEST <= us <= LATEST else f"{'-' if us < 0 else ''}infinity",
    width=lambda us: f"{us} microseconds",
    networks=list,
    seqs=list,
    id=lambda uuid: uuid,
)


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions joined by AND, the same for every segment, and their parameters."""

    conditions: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    def __and__(self, other: Where) -> Where:
        return Where(self.conditions + other.conditions, {**self.params, **other.params})

    def sql(self, *more: str) -> str:
        """The WHERE clause, with ``more`` conditions, or nothing."""
        conditions = (*self.conditions, *more)
        return " WHERE " + " AND ".join(conditions) if conditions else ""


def where(filter: Filter, syntax: Syntax, *, search: bool = True) -> Where | None:
    """The conditions of ``filter``, those that ``searching`` gives only with ``search``; None when no row can match."""
    found = _range(filter, syntax)
    if found is None:
        return None
    for name in REPEATABLE:
        if values := getattr(filter, name):
            values = [value for value in values if storable(value)]
            if not values:
                return None
            if name != "ip_address" or not any(map(network, values)):
                found &= _any_of(name, values)
    for name in ("resource_type", "resource_id", "correlation_id"):
        if (value := getattr(filter, name)) is not None:
            if not storable(value):
                return None
            found &= Where((f"{name} = :{name}",), {name: value})
    if filter.q and not storable(filter.q):
        return None
    if not search:
        return found
    wanted = searching(filter, syntax)
    return found & wanted.matching & wanted.leading


@dataclass(frozen=True, slots=True)
class Search:
    """Conditions that no index answers, and others that one does and that every match fulfils, where there are any."""

    matching: Where
    leading: Where


def searching(filter: Filter, syntax: Syntax) -> Search:
    """What of a filter has to be looked for: ``q`` in one of the ``SEARCHED`` columns, and addresses in networks.

    ``q`` is found in any ASCII case; no character of it is a wildcard.
    """
    wanted = Where()
    if filter.q:
        found = " OR ".join(syntax.find.format(column=column) for column in SEARCHED)
        # bytes.lower() folds ASCII only, as lower() does on both engines.
        wanted &= Where((f"({found})",), {"q": filter.q.encode().lower().decode()})
    networks, others = _networks(filter)
    if networks:
        arms, params = [syntax.within], {"networks": syntax.networks([str(one) for one in networks])}
        if others:
            own = _any_of("ip_address", others)
            arms += own.conditions
            params |= own.params
        wanted &= Where((f"({' OR '.join(arms)})",), params)
    return Search(wanted, _leading(networks, others))


def _leading(networks: Sequence[Network], others: Sequence[str]) -> Where:
    """How the addresses of the networks begin, which the index on addresses finds; nothing where it cannot."""
    prefixes = {text_prefix(one) for one in networks}
    if not networks or None in prefixes:
        return Where()
    arms: list[str] = []
    params: dict[str, Any] = {}
    for i, prefix in enumerate(sorted(prefix for prefix in prefixes if prefix is not None)):
        arms.append(f"(ip_address >= :from_{i} AND ip_address < :below_{i})")
        # The character after the dot.
        params |= {f"from_{i}": prefix, f"below_{i}": prefix[:-1] + "/"}
    if others:
        own = _any_of("ip_address", others)
        arms += own.conditions
        params |= own.params
    return Where((f"({' OR '.join(arms)})",), params)


def _networks(filter: Filter) -> tuple[list[Network], list[str]]:
    """The networks among the addresses asked for, and the rest."""
    values = [(network(value), value) for value in filter.ip_address if storable(value)]
    return [one for one, _ in values if one is not None], [value for one, value in values if one is None]


def stored_event(row: Sequence[Any]) -> StoredEvent:
    """A row selected as ``Syntax.columns``, with times in microseconds and ids as UUIDs whatever the driver gave."""
    fields = dict(zip(COLUMNS, row, strict=True))
    fields["timestamp"], fields["recorded_at"] = as_micros(fields["timestamp"]), as_micros(fields["recorded_at"])
    fields["id"], fields["writer_id"] = _uuid(fields["id"]), _writer(fields["writer_id"])
    return StoredEvent(**fields)


def as_micros(value: Any) -> Any:
    """A time as the driver gave it, in Unix microseconds."""
    return micros(value) if isinstance(value, datetime) else value


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


#: Few writers, many rows.
_writer = lru_cache(maxsize=1024)(_uuid)


def _any_of(name: str, values: Sequence[str]) -> Where:
    params = {f"{name}_{i}": value for i, value in enumerate(values)}
    conditions = [f"{name} IN ({', '.join(':' + param for param in params)})"]
    if name == "status" and "success" not in values:
        # The index on status leaves success out; SQLite uses it only where its own condition is repeated.
        conditions.append("status <> 'success'")
    return Where(tuple(conditions), params)


def _range(filter: Filter, syntax: Syntax) -> Where | None:
    found = Where()
    if filter.start is not None and filter.start > EARLIEST:
        if filter.start > LATEST:
            return None
        found &= Where(("timestamp >= :start",), {"start": syntax.time(filter.start)})
    if filter.end is not None and filter.end < LATEST:
        if filter.end < EARLIEST:
            return None
        found &= Where(("timestamp <= :end",), {"end": syntax.time(filter.end)})
    return found
