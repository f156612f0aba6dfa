"""The answers to requests that are wrong, and to those that went wrong."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


async def unprocessable(_request: Request, exc: Exception) -> Response:
    """422 with what is wrong and where, but not with what was sent: that may be a password."""
    assert isinstance(exc, RequestValidationError)
    detail = [{name: _plain(error[name]) for name in ("type", "loc", "msg")} for error in exc.errors()]
    # ASCII alone: a field's name may hold half a surrogate pair, which UTF-8 cannot say.
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


async def unhandled(request: Request, _exc: Exception) -> Response:
    """500 that names the correlation id, which is all a caller needs to report it."""
    correlation_id = getattr(request.state, "correlation_id", None)
    headers = {"X-Correlation-ID": correlation_id} if correlation_id else None
    return JSONResponse({"detail": "Internal Server Error"}, 500, headers=headers)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
