"""Every table of the backend, the audit log included."""

from .audit_log import AuditLog
from .base import Base
from .fog import Job, Node
from .user import RevokedToken, User

__all__ = ["AuditLog", "Base", "Job", "Node", "RevokedToken", "User"]
