"""Run a command and say how long it took and what its largest process held: ``python -m bench.peak COMMAND...``.

A process of its own, and a small one, because the kernel counts what the parent held into what a child has held.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time


def main() -> None:
    """Print JSON and end as the command did."""
    began = time.perf_counter()
    done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
