"""The audit log's model. Its table is the library's; this is where the backend's code finds it."""

from indelible.stores.schema import AuditLog

__all__ = ["AuditLog"]
