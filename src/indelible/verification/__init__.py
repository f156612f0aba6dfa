"""``indelible verify`` as a library: read a log range by range, in several processes, and judge it.

``integrity.ranges`` and ``integrity.verify`` decide; here are the database, the files and the witness they judge.
"""

from indelible.verification.apart import Outcome, Progress, verify_apart
from indelible.verification.evidence import Outside, from_files, from_witness
from indelible.verification.run import Request, verify

__all__ = ["Outcome", "Outside", "Progress", "Request", "from_files", "from_witness", "verify", "verify_apart"]
