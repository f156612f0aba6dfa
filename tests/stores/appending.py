"""A process of two writers, for test_concurrent: appends, is interrupted, goes on where the store says it was.

python appending.py URL SEED TARGET WRITER WRITER
"""

from __future__ import annotations

import random
import sys
import threading
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from indelible.errors import StoreError
from indelible.events import AuditEvent
from tests.reliability.faults import FaultyPostgres, FaultySqlite, Fuse, Step


def event(writer: uuid.UUID, number: int) -> AuditEvent:
    """The writer's event of this number: always the same one."""
    return AuditEvent(
        id=uuid.uuid5(writer, str(number)),
        timestamp=1_700_000_000_000_000 + number,
        event_type="login",
        action="login",
        status="success",
        user_id=str(number),
    )


def write(url: str, writer: uuid.UUID, target: int, seed: int) -> None:
    """Append until ``target`` events are stored, through failures of one transaction in six."""
    chance = random.Random(seed)
    store = (FaultySqlite if url.startswith("sqlite") else FaultyPostgres)(url, segment_rows=256)
    store.open()
    position = store.position(writer)
    while position < target:
        if chance.random() < 0.16:
            step: Step = chance.choice(["begin", "commit"])
            store.fuse = Fuse(step, persisted=chance.random() < 0.5)
        count = min(chance.randint(1, 12), target - position)
        try:
            store.append(writer, position, [event(writer, position + n) for n in range(count)])
        except StoreError:
            store.fuse = None
            position = store.position(writer)
            continue
        position += count
        # One line for each append that returned: what the test holds the store to.
        sys.stdout.write(f"{writer} {position}\n")
        sys.stdout.flush()
    store.close()


def main() -> None:
    """Run the two writers side by side."""
    url, seed, target, *writers = sys.argv[1:]
    threads = [
        threading.Thread(target=write, args=(url, uuid.UUID(writer), int(target), int(seed) + at))
        for at, writer in enumerate(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
