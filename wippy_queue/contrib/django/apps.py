"""The app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.signals import request_started, setting_changed
from django.utils.autoreload import BaseReloader, autoreload_started

from ...errors import ConfigError
from ...loading.files import INDEX
from ...tasks import Tasks
from .checks import TAG, check_queues
from .conf import SETTING, read_settings
from .process import APP, get_embedding, reset, warn_where_not_embedded


class WippyQueueConfig(AppConfig):
    """The app; it reads no files and starts nothing."""

    name = APP
    label = "wippy_queue"
    verbose_name = "Queues"

    def ready(self) -> None:
        """Register the checks, and have tasks find the runtime."""
        checks.register(check_queues, TAG)
        Tasks.when_unbound = get_embedding
        setting_changed.connect(_setting_changed)
        autoreload_started.connect(_watch_files)
        given = getattr(settings, SETTING, None)
        if isinstance(given, Mapping) and given.get("EMBEDDED") is True:
            request_started.connect(warn_where_not_embedded)


def _setting_changed(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "BASE_DIR"):
        reset()


def _watch_files(*, sender: BaseReloader, **_: Any) -> None:
    """Have ``runserver`` begin anew where a file of the setting changes."""
    try:
        paths = read_settings().files
    except ConfigError:  # which the checks tell
        return
    for path in paths:
        if path.is_dir():
            sender.watch_dir(path, f"**/{INDEX}")
        else:
            sender.extra_files.add(path.absolute())
