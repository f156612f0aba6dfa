"""The pages for people: ``app.include_router(audit_dashboard(require_admin=...))``. Needs the extra ``dashboard``."""

from indelible.errors import ConfigurationError

try:
    import jinja2 as jinja2
except ImportError as error:
    raise ConfigurationError("the dashboard needs Jinja2", hint="pip install 'indelible[dashboard]'") from error

from indelible.web.dashboard.router import audit_dashboard
from indelible.web.dashboard.site import check_same_origin

__all__ = ["audit_dashboard", "check_same_origin"]
