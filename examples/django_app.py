"""An audited Django project in one file: uvicorn examples.django_app:app"""

import secrets

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from indelible import enrich
from indelible.capture.asgi import AuditMiddleware

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_urlsafe(), ALLOWED_HOSTS=["localhost"])


def pay(request: HttpRequest, invoice_id: int) -> JsonResponse:
    enrich(action="pay", old_value={"paid": False}, new_value={"paid": True})
    return JsonResponse({"id": invoice_id})


urlpatterns = [path("api/invoices/<int:invoice_id>", pay)]

# Django has no lifespan: the log opens at the first event. What a stopped process left waiting, the next one stores.
app = AuditMiddleware(get_asgi_application())
