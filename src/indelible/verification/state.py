"""What a verification leaves for the next one (``--since-last``): a file in the data directory.

Whoever can write that directory can make it say that rows were verified; the rotating sweep reads them all the same.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from indelible.errors import ConfigurationError
from indelible.integrity.verify import Known


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the log, and the index of the range of 65,536 rows that the sweep reads next."""

    known: Known
    sweep: int = 0


def state_file(data_dir: Path, address: str) -> Path:
    """The file for the log at this address (without its password)."""
    return data_dir / "verify" / f"{sha256(address.encode()).hexdigest()[:16]}.json"


def load(path: Path) -> State | None:
    """The state, or None where there is none. Raises ConfigurationError for a file that cannot be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint="delete it and verify everything") from error


def save(path: Path, state: State) -> None:
    """Replace the state; readable by its owner only. Raises ConfigurationError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".verify.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(handle)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
