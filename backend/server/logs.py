"""What the server itself writes down: its access log must not keep the secrets that the audit log leaves out."""

from __future__ import annotations

import logging
from typing import Final

from indelible.redaction import Redactor

_redactor: Final = Redactor()


class SecretsMasked(logging.Filter):
    """Masks secret values in the query strings of uvicorn's access log, by the same names as the audit log does."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's target; every record passes."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, target, version, status = record.args
            path, _, query = str(target).partition("?")
            record.args = (client, method, _redactor.target(path, query), version, status)
        return True


def mask_access_log() -> None:
    """Set the filter on uvicorn's access log. Doing it twice is harmless."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(each, SecretsMasked) for each in log.filters):
        log.addFilter(SecretsMasked())
