"""Accept events and end without storing them: ``python -m bench.backlog COUNT``, settings from the environment.

Prints what memory the process has then, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys

import msgspec

from bench.machine import memory_mib
from indelible import configure, synthetic
from indelible.events import AuditEvent


def main() -> None:
    """Log as many events as the command line says, and leave as a killed process would."""
    service = configure(announce=False)
    service.open()
    skipped = ("id", "timestamp", "old_value", "new_value", "metadata")
    names = [name for name in AuditEvent.__struct_fields__ if name not in skipped]
    for event in itertools.islice(synthetic.events(os.getpid()), int(sys.argv[1])):
        fields = msgspec.structs.asdict(event)
        service.record(must=True, **{name: fields[name] for name in names if fields[name] is not None})
    print(json.dumps({"own_mib": memory_mib("RssAnon"), "resident_mib": memory_mib("VmRSS")}), flush=True)
    # No farewell: what was accepted stays in the journal.
    os._exit(0)


if __name__ == "__main__":
    main()
