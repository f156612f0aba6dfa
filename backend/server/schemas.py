"""What the API takes and gives. Every text is bounded and free of control characters, every number fits its column."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

#: PostgreSQL's INTEGER; ids and amounts stay within it on every engine.
MAX_INT: Final = 2**31 - 1
# No control characters (NUL cannot be stored on PostgreSQL) and no lone surrogates (they cannot be sent anywhere).
_PLAIN: Final = r"^[^\x00-\x1f\x7f]*$"
_LINES: Final = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"


def _utc(at: datetime) -> datetime:
    # SQLite gives times back without their zone; all of them are UTC.
    return at if at.tzinfo else at.replace(tzinfo=UTC)


Time = Annotated[datetime, AfterValidator(_utc)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PLAIN)]
Label = Annotated[str, StringConstraints(max_length=64, pattern=_PLAIN)]
Username = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._@+-]+$")]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$")]
_Secret = Field(json_schema_extra={"format": "password"})
Password = Annotated[str, StringConstraints(min_length=8, max_length=256), _Secret]
Role = Literal["user", "admin"]
NodeStatus = Literal["online", "offline", "maintenance"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]

#: Read as text: what is no such number is nobody's id, so the answer is 404 and not a lecture (see ``number``).
Id = Annotated[
    str,
    Path(description="The number the thing was given when it was made."),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_INT}),
]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Offset = Annotated[int, Query(ge=0, le=MAX_INT, description="How many to skip.")]


class Problem(BaseModel):
    """Why a request was not done."""

    detail: str


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` entry for these status codes; 400 is a body that cannot be read at all."""
    return {code: {"model": Problem} for code in codes}


def number(text: str) -> int | None:
    """The number in an id, or None: what is no number is nobody's id, and nothing worse."""
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:11]) <= MAX_INT else None


class _In(BaseModel):
    # Strict: false is not the number 0, and "1" is not 1.
    model_config = ConfigDict(extra="forbid", strict=True)


class _Change(_In):
    """Some fields of a thing: those left out stay, and so do those given as null unless null is a value of theirs."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    def values(self) -> dict[str, Any]:
        """What to set."""
        given = self.model_dump(exclude_unset=True)
        return {name: value for name, value in given.items() if value is not None or name in self.nullable}


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Registration(_In):
    username: Username
    email: Email
    password: Password


class Credentials(_In):
    # Anything may be tried here: what no user can have is simply a wrong name or password.
    username: Annotated[str, StringConstraints(max_length=256)]
    password: Annotated[str, StringConstraints(max_length=256), _Secret]


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the scheme's name (RFC 6750)
    expires_in: Annotated[int, Field(description="Seconds until the token ends.")]


class SignedOut(BaseModel):
    detail: Literal["signed out"] = "signed out"


class UserChange(_In):
    email: Email | None = None
    password: Password | None = None


class RoleChange(_In):
    role: Role


class Profile(_Out):
    """What every signed-in user may know of another."""

    id: UUID
    username: str


class UserOut(Profile):
    email: str
    role: Role
    created_at: Time


class NodeIn(_In):
    name: Name
    region: Label = "local"
    cpu_cores: Annotated[int, Field(ge=1, le=4096)] = 1
    memory_mb: Annotated[int, Field(ge=1, le=MAX_INT)] = 1024
    status: NodeStatus = "offline"


class NodeChange(_Change):
    name: Name | None = None
    region: Label | None = None
    cpu_cores: Annotated[int | None, Field(ge=1, le=4096)] = None
    memory_mb: Annotated[int | None, Field(ge=1, le=MAX_INT)] = None
    status: NodeStatus | None = None


class NodeOut(_Out):
    id: int
    name: str
    region: str
    cpu_cores: int
    memory_mb: int
    status: NodeStatus
    owner_id: UUID | None
    created_at: Time


class JobIn(_In):
    name: Name
    image: Annotated[str, StringConstraints(max_length=256, pattern=_PLAIN)] = "python:3.13-slim"
    command: Annotated[str, StringConstraints(max_length=4096, pattern=_LINES)] = ""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    status: JobStatus = "queued"
    node_id: Annotated[int | None, Field(ge=1, le=MAX_INT)] = None


class JobChange(_Change):
    nullable = frozenset({"node_id"})

    name: Name | None = None
    image: Annotated[str | None, StringConstraints(max_length=256, pattern=_PLAIN)] = None
    command: Annotated[str | None, StringConstraints(max_length=4096, pattern=_LINES)] = None
    priority: Annotated[int | None, Field(ge=0, le=9)] = None
    status: JobStatus | None = None
    node_id: Annotated[int | None, Field(ge=1, le=MAX_INT)] = None


class JobOut(_Out):
    id: int
    name: str
    image: str
    command: str
    priority: int
    status: JobStatus
    node_id: int | None
    owner_id: UUID | None
    created_at: Time
