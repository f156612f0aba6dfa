"""What the backend is told by its environment, or by ``backend/.env``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

#: ``backend/``: where the default database, the log's journal and ``.env`` are, whatever the working directory is.
HOME: Final = Path(__file__).resolve().parents[1]
#: RFC 7518 §3.2: a key for HS256 has at least the size of the hash output.
MIN_SECRET_BYTES: Final = 32


class SettingsError(RuntimeError):
    """The backend cannot start as configured; the message says what to set."""


class Settings(BaseSettings):
    """One field per environment variable of the same name in capitals.

    ``database_url`` is where users, nodes and jobs live, and the audit log too unless ``indelible_database_url`` names
    another place. ``jwt_secret`` signs the access tokens and has no default. ``indelible_data_dir`` holds the log's
    journal. Tokens live for ``access_token_minutes``.
    """

    model_config = SettingsConfigDict(env_file=HOME / ".env", extra="ignore", frozen=True)

    database_url: str = f"sqlite:///{HOME / 'fog_compute.db'}"
    jwt_secret: SecretStr = SecretStr("")
    access_token_minutes: Annotated[int, Field(ge=1, le=60 * 24 * 30)] = 60
    indelible_database_url: str | None = None
    indelible_data_dir: Path = HOME / ".indelible"

    def signing_key(self) -> str:
        """The JWT secret; raises SettingsError if there is none, or one too short to withstand guessing."""
        secret = self.jwt_secret.get_secret_value()
        if len(secret.encode()) < MIN_SECRET_BYTES:
            fault = "is not set" if not secret else f"is shorter than {MIN_SECRET_BYTES} bytes"
            raise SettingsError(
                f"JWT_SECRET {fault}. Make one and keep it: "
                "export JWT_SECRET=$(python -c 'import secrets; print(secrets.token_urlsafe(48))')"
            )
        return secret


@functools.cache
def get_settings() -> Settings:
    """The settings, read once. Raises SettingsError with the names of what is wrong, never their values."""
    try:
        return Settings()
    except ValidationError as exc:
        wrong = "; ".join(f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in exc.errors(include_input=False))
        raise SettingsError(wrong) from None
