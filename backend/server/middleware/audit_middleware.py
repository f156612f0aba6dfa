"""The library's middleware, bound to this application's service, under the name the application adds it by."""

import functools

from indelible.capture import asgi

from ..services.audit_service import get_audit_service

# A function, not the service: it is configured when the first request comes, not when the module is imported.
AuditMiddleware = functools.partial(asgi.AuditMiddleware, service=get_audit_service)
