"""The audit service of this application: where its log is kept, and whose tokens it believes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec
from uuid import UUID

from indelible import AuditService, configure
from indelible import log_audit_event as _log_audit_event

from ..settings import get_settings

_P = ParamSpec("_P")


@functools.cache
def get_audit_service() -> AuditService:
    """The process's one service, configured at the first call."""
    settings = get_settings()
    return configure(
        database_url=settings.indelible_database_url or settings.database_url,
        data_dir=settings.indelible_data_dir,
        jwt_secret=settings.signing_key(),
        service_name="fog-compute",
    )


def _configured(log: Callable[_P, Coroutine[Any, Any, UUID]]) -> Callable[_P, Coroutine[Any, Any, UUID]]:
    @functools.wraps(log)
    async def logged(*args: _P.args, **kwargs: _P.kwargs) -> UUID:
        get_audit_service()
        return await log(*args, **kwargs)

    return logged


log_audit_event = _configured(_log_audit_event)
