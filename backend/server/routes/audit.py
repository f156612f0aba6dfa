"""The audit log's API, and its pages, for admins."""

from indelible.web.api import audit_router
from indelible.web.dashboard import audit_dashboard

from ..security import require_admin, require_admin_at_a_page
from ..services.audit_service import get_audit_service

router = audit_router(require_admin=require_admin, service=get_audit_service)
pages = audit_dashboard(require_admin=require_admin_at_a_page, service=get_audit_service, sign_out="../logout")
