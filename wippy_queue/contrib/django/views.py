"""The readiness view."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ...errors import ConfigError
from ..embedding import readiness
from .process import get_embedding


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 where this process does its work, else 503, with what is wrong."""
    answer: dict[str, Any]
    try:
        answer, is_ready = readiness(get_embedding())
    except ConfigError as error:
        problems = [str(each) for each in error.problems]
        answer, is_ready = {"ok": False, "problems": problems}, False
    return JsonResponse(answer, status=200 if is_ready else 503)


# Django's LoginRequiredMiddleware lets it pass: probes do not log in.
ready.login_required = False  # type: ignore[attr-defined]
