"""Nodes that compute, and jobs that run on them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, Integer, String, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class _Owned:
    """What nodes and jobs share. Who owned a thing is forgotten with the user; the audit log remembers."""

    # An id is never given twice: the audit log would speak of two things by one name.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(128))
    owner_id: Mapped[uuid.UUID | None] = mapped_column(Uuid, ForeignKey("users.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))


class Node(_Owned, Base):
    __tablename__ = "nodes"

    region: Mapped[str] = mapped_column(String(64))
    cpu_cores: Mapped[int] = mapped_column(Integer)
    memory_mb: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))

    def audited(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "region": self.region,
            "cpu_cores": self.cpu_cores,
            "memory_mb": self.memory_mb,
            "status": self.status,
        }


class Job(_Owned, Base):
    __tablename__ = "jobs"

    image: Mapped[str] = mapped_column(String(256))
    command: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))
    node_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("nodes.id", ondelete="SET NULL"), index=True)

    def audited(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "image": self.image,
            "command": self.command,
            "priority": self.priority,
            "status": self.status,
            "node_id": self.node_id,
        }
