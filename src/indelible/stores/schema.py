"""The tables, as SQLAlchemy sees them: ``AuditLog`` for people and the ORM, ``segment_table(n)`` for the engines."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from indelible.events import micros, moment

#: Bumped with every migration; the store refuses to open another version's tables.
SCHEMA_VERSION: Final = "0001"
#: Segments hold a multiple of this many rows, so that each is a whole number of Merkle subtrees.
SEGMENT_UNIT: Final = 65_536


class Micros(TypeDecorator[int]):
    """Unix time in µs: INTEGER on SQLite, TIMESTAMPTZ on PostgreSQL (whose own epoch resolution is the same)."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Integer())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return None
        us = micros(value) if isinstance(value, dt.datetime) else int(value)
        return moment(us) if dialect.name == "postgresql" else us

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return micros(value) if isinstance(value, dt.datetime) else value


class Moment(TypeDecorator[dt.datetime]):
    """The same column for the ORM: an aware UTC datetime."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Micros().load_dialect_impl(dialect)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return Micros().process_bind_param(value, dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        if value is None or isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC) if value is not None else None
        return moment(value)


class Id(TypeDecorator[UUID]):
    """UUID on PostgreSQL, its 36-character lower-case text on SQLite, readable in the ``sqlite3`` shell."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return None
        uuid = value if isinstance(value, UUID) else UUID(str(value))
        return uuid if dialect.name == "postgresql" else str(uuid)

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        return UUID(value) if isinstance(value, str) else value


#: JSON kept as its exact text: ``JSON`` (never ``JSONB``) on PostgreSQL, TEXT on SQLite. Values are ``str``.
JSONText: Final = Text().with_variant(postgresql.JSON(), "postgresql")

#: Text filtered, sorted and folded alike on both engines: by code point, ASCII case only. SQLite does so by itself (BINARY);
#: on PostgreSQL the collation must stand in the column, or the indexes would be in the cluster's locale, useless for it.
Words: Final = Text().with_variant(Text(collation="C"), "postgresql")

metadata: Final = MetaData()


class Base(DeclarativeBase):
    """The declarative base of the log's own models."""

    metadata = metadata


class AuditLog(Base):
    """One row of the append-only log. On SQLite this is a view over the newest segments, on PostgreSQL the parent table."""

    __tablename__ = "audit_logs"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    recorded_at: Mapped[dt.datetime] = mapped_column(Moment)
    id: Mapped[UUID] = mapped_column(Id)
    timestamp: Mapped[dt.datetime] = mapped_column(Moment)
    tenant_id: Mapped[str | None] = mapped_column(Words)
    writer_id: Mapped[UUID] = mapped_column(Id)
    writer_seq: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str] = mapped_column(Words)
    action: Mapped[str] = mapped_column(Words)
    status: Mapped[str] = mapped_column(Words)
    resource_type: Mapped[str | None] = mapped_column(Words)
    request_method: Mapped[str | None] = mapped_column(Words)
    response_status: Mapped[int | None] = mapped_column(BigInteger)
    duration_us: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str | None] = mapped_column(Words)
    user_id: Mapped[str | None] = mapped_column(Words)
    on_behalf_of: Mapped[str | None] = mapped_column(Words)
    ip_address: Mapped[str | None] = mapped_column(Words)
    user_agent: Mapped[str | None] = mapped_column(Words)
    session_id: Mapped[str | None] = mapped_column(Words)
    correlation_id: Mapped[str | None] = mapped_column(Words)
    resource_id: Mapped[str | None] = mapped_column(Words)
    request_path: Mapped[str | None] = mapped_column(Words)
    old_value: Mapped[str | None] = mapped_column(JSONText)
    new_value: Mapped[str | None] = mapped_column(JSONText)
    event_metadata: Mapped[str | None] = mapped_column("metadata", JSONText)
    error: Mapped[str | None] = mapped_column(Words)
    leaf_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    actor_salt: Mapped[bytes | None] = mapped_column(LargeBinary)
    details_salt: Mapped[bytes | None] = mapped_column(LargeBinary)
    actor_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    details_digest: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (
        Index("idx_audit_timestamp", "timestamp", "seq"),
        Index("idx_audit_user_id", "user_id", "timestamp"),
        Index("idx_audit_event_type", "event_type", "timestamp"),
        # Two, not one over (type, id, time): that one answers neither "all of a type" in order of time nor an id alone.
        Index("idx_audit_resource", "resource_type", "timestamp"),
        Index("idx_audit_resource_id", "resource_id", "timestamp"),
        Index("idx_audit_correlation", "correlation_id"),
        Index("idx_audit_ip", "ip_address", "timestamp"),
        Index(
            "idx_audit_status",
            "status",
            "timestamp",
            postgresql_where=text("status <> 'success'"),
            sqlite_where=text("status <> 'success'"),
        ),
        Index("idx_audit_action", "action", "timestamp"),
        Index("idx_audit_id", "id", unique=True),
    )


heads: Final = Table(
    "audit_heads",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary),
    Column("writer_id", Id, nullable=False),
    Column("writer_seq", BigInteger, nullable=False),
    Index("idx_audit_heads_writer", "writer_id", "size"),
)

#: Full tiles of level 1 and above; ``hashes`` is 256 × 32 bytes. Those of level 0 are the rows' ``leaf_hash``.
tiles: Final = Table(
    "audit_tiles",
    metadata,
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

#: Every checkpoint that was published, as the signed note that it is: text, for people and for ``psql``.
checkpoints: Final = Table(
    "audit_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("published_at", Micros, nullable=False),
    Column("note", Text, nullable=False),
)

#: One row when a segment is made, one more (``closed``) when it is full: nothing here is ever updated either.
segments: Final = Table(
    "audit_segments",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("end_seq", BigInteger, nullable=False),
)
segment_spans: Final = Table(
    "audit_segment_spans",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("min_timestamp", Micros, nullable=False),
    Column("max_timestamp", Micros, nullable=False),
)


#: What each block of rows comes to, see ``indelible.rollups``: derived, and never needed to be right.
rollups: Final = Table(
    "audit_rollups",
    metadata,
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("min_timestamp", Micros, nullable=False),
    Column("max_timestamp", Micros, nullable=False),
    Column("body", LargeBinary, nullable=False),
)


@functools.cache
def segment_table(number: int) -> Table:
    """Table ``audit_logs_<n>``: the columns of AuditLog, raw (times as µs), in a MetaData of its own.

    Index ``idx_audit_x`` of the model is ``idx_audit_x_<n>`` there: index names are unique per SQLite file.
    """
    table = Table(f"audit_logs_{number}", MetaData())
    for column in AuditLog.__table__.columns:
        kind = Micros() if isinstance(column.type, Moment) else column.type
        table.append_column(
            Column(column.name, kind, primary_key=column.primary_key, nullable=column.nullable, autoincrement=False)
        )
    for index in AuditLog.__table__.indexes:  # type: ignore[attr-defined]
        where = {f"{d}_where": index.dialect_options[d]["where"] for d in ("postgresql", "sqlite")}
        Index(
            f"{index.name}_{number}",
            *(table.c[c.name] for c in index.columns),
            unique=index.unique,
            **{k: v for k, v in where.items() if v is not None},
        )
    return table


#: Column names in table order; the order of COPY, executemany and of every full-row SELECT.
COLUMNS: Final[tuple[str, ...]] = tuple(c.name for c in AuditLog.__table__.columns)
