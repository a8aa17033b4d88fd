"""The settings of the project that the tests are about."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
# The databases are files, because threads have connections of their own.
FOLDER = Path(os.environ["SHOP_FOLDER"])
DATABASES = {
    name: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / f"{name}.sqlite3",
        "TEST": {"NAME": FOLDER / f"test_{name}.sqlite3"},
    }
    for name in ("default", "other")
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["shop", "wippy_queue.contrib.django"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
WSGI_APPLICATION = "shop.wsgi.application"
EMBEDDED = bool(os.environ.get("SHOP_EMBEDDED"))
WIPPY_QUEUE = {"CONFIG": "queues.yaml", "EMBEDDED": EMBEDDED}
if EMBEDDED:  # in a server, whose log tells what has started
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"wippy_queue": {"handlers": ["console"], "level": "INFO"}},
    }
