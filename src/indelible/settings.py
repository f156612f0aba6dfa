"""The settings: documented values with units, read from the environment here and nowhere else."""

from __future__ import annotations

import difflib
import ipaddress
import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from indelible.errors import ConfigurationError

Words = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Every setting, validated together at start-up.

    Each has the same name in the environment with the prefix ``INDELIBLE_``. Lists are separated by commas there.
    """

    model_config = SettingsConfigDict(env_prefix="INDELIBLE_", frozen=True, extra="forbid")

    database_url: str = Field(
        "sqlite:///indelible.db",
        description="Where the log is stored: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`."
        " URLs of asynchronous drivers mean the same database.",
    )
    data_dir: Path = Field(
        Path(".indelible"),
        description="Directory of the journal and the keys, on a local disk. One per installation;"
        " the workers of one host share it.",
    )
    batch_size: int = Field(
        10,
        ge=1,
        le=100_000,
        description="A journal is flushed to the store when so many of its events wait, 0.2 s after the first at the"
        " earliest.",
    )
    flush_interval: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="A journal is flushed after so many seconds even if fewer events wait."
        " What waits is in the journal, so the interval costs no safety.",
    )
    fsync_interval: float = Field(
        0.005,
        gt=0,
        le=60,
        description="Seconds between two fdatasync calls on the journal: what a power cut may cost."
        " A killed process loses nothing either way.",
    )
    journal_file_bytes: int = Field(
        8 << 20, ge=1 << 16, le=1 << 30, multiple_of=4096, description="Size of each journal file, in bytes."
    )
    journal_quota: int = Field(
        1 << 30, ge=1 << 17, description="The most bytes that the journal of one process may take on disk."
    )
    writer: Literal["thread", "process"] = Field(
        "thread",
        description="Who drains the journals: a thread of one of the workers, or a process of its own,"
        " started with `indelible writer`.",
    )
    max_batch: int = Field(
        1000,
        ge=1,
        le=65_536,
        description="The most events in one append, which is one transaction.",
    )
    on_full: Literal["shed", "block", "raise"] = Field(
        "shed",
        description="What `log()` does with an event that the journal cannot take: `shed` counts it and records the"
        " count as an `audit.gap` event, `raise` raises `NotAccepted`. `block` waits for room when the quota is used up,"
        " and then raises: for scripts and threads, never for code on an event loop.",
    )
    block_timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds that `on_full=block` waits for room in the journal."
    )
    segment_rows: int | None = Field(
        None,
        ge=65_536,
        multiple_of=65_536,
        description="Rows per segment, a multiple of 65,536, fixed when the log is made."
        " Default: 65,536 on SQLite, 262,144 on PostgreSQL.",
    )
    auto_migrate: bool = Field(
        False, description="Make or upgrade a PostgreSQL schema at start. SQLite's is always made when it is missing."
    )
    service_name: str | None = Field(None, max_length=128, description="Stored with each event as its `source`.")
    jwt_secret: SecretStr | None = Field(None, description="Shared secret that verifies HS256/384/512 tokens.")
    jwt_public_key: str | None = Field(
        None, description="PEM public key that verifies RS256, ES256 and their kin. Without a key no token is believed."
    )
    jwt_algorithms: Words = Field(
        (), description="Accepted algorithms. Default: `HS256` with a secret, `RS256,ES256` with a public key."
    )
    jwt_audience: Words = Field((), description="Accepted `aud` values; empty: the claim must be absent.")
    jwt_issuer: str | None = Field(None, description="Required `iss` value.")
    jwt_user_claim: str = Field("sub", description="The claim that names the user.")
    trusted_proxies: Words = Field(
        (), description="Addresses or networks (CIDR) whose `X-Forwarded-For` is believed. Default: none."
    )
    redact_paths: dict[str, tuple[str, ...]] = Field(
        {},
        description="Further key names that are never stored for requests to a path and what lies below it:"
        ' in the environment as JSON, `{"/api/patients": ["diagnosis"]}`.',
    )
    redact_keys: Words = Field((), description="Further key names whose values are never stored.")

    origin: str | None = Field(
        None,
        min_length=1,
        max_length=180,
        pattern=r"^[^\s+]+$",
        description="The log's name in checkpoints, a URL without scheme as `audit.example.com/prod`. Fixed when the"
        " signing key is made. Default: `indelible.local/` and a random id.",
    )
    signing_key: SecretStr | None = Field(
        None,
        description="The private key that signs checkpoints, as `indelible key new --print` prints it; during a rotation"
        " the new one and the old one, separated by a space. Default: the file in `keys/` of the data directory.",
    )
    checkpoint_interval: float = Field(
        5.0,
        gt=0,
        le=86_400,
        description="A signed checkpoint is published at most every so many seconds, and at shutdown.",
    )
    anchor_directory: Path | None = Field(
        None, description="A directory outside the database that gets every checkpoint, for example another machine's."
    )
    anchor_s3_bucket: str | None = Field(
        None, description="A bucket that gets every checkpoint, with Object Lock. Needs the extra `s3`."
    )
    anchor_s3_prefix: str = Field("", description="What the names of the bucket's objects begin with, as `audit/`.")
    anchor_s3_endpoint: str | None = Field(
        None, pattern=r"^https?://", description="Address of an S3-compatible service. Default: Amazon's."
    )
    anchor_s3_retention_days: int = Field(
        3650, ge=0, le=36_500, description="How many days Object Lock keeps each checkpoint; 0: as the bucket has it."
    )
    anchor_s3_lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] = Field(
        "COMPLIANCE", description="Whether nobody, or only who has a special right, can shorten the retention."
    )
    anchor_webhook_url: SecretStr | None = Field(
        None, description="An address to which every checkpoint is sent by POST; it may carry a token."
    )
    anchor_witnesses: Words = Field(
        (),
        description="C2SP witnesses, each as its vkey, a space, and its address: `VKEY https://witness.example.com`.",
    )
    anchor_tsa_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="An RFC 3161 time-stamping authority; its tokens are kept beside the checkpoints."
        " Needs a directory or a bucket, and the extra `tsa`.",
    )
    anchor_tsa_interval: float = Field(3600.0, ge=1, description="Seconds between two time stamps, at the least.")
    anchor_timeout: float = Field(10.0, gt=0, le=300, description="Seconds that a place outside is given to answer.")

    @field_validator(
        "jwt_algorithms", "jwt_audience", "trusted_proxies", "redact_keys", "anchor_witnesses", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.journal_quota < 2 * self.journal_file_bytes:
            raise ValueError("journal_quota must hold at least two files of journal_file_bytes")
        if self.jwt_algorithms and self.jwt_secret is None and self.jwt_public_key is None:
            raise ValueError("jwt_algorithms without jwt_secret or jwt_public_key verifies nothing")
        if self.anchor_tsa_url is not None and self.anchor_directory is None and self.anchor_s3_bucket is None:
            raise ValueError("anchor_tsa_url needs anchor_directory or anchor_s3_bucket to keep the tokens")
        return self


def load(**values: object) -> Settings:
    """Settings from ``values``, the rest from the environment. Raises ConfigurationError naming each wrong one."""
    try:
        return Settings(**values)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"wrong settings: {wrong}", hint="docs/reference/settings.md lists them") from None


#: Variables that are read before there are settings: indelible.native.
_ELSEWHERE: Final = frozenset(("pure",))


def unknown_variables() -> dict[str, str]:
    """Variables of the environment that look like settings and are none, each with the one that is meant, or ``""``."""
    prefix = "INDELIBLE_"
    found: dict[str, str] = {}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(prefix).lower()
        if variable.upper().startswith(prefix) and name not in Settings.model_fields and name not in _ELSEWHERE:
            close = difflib.get_close_matches(name, Settings.model_fields, 1)
            found[variable] = prefix + close[0].upper() if close else ""
    return found
