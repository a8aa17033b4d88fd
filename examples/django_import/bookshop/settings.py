"""Settings of the example; a site of yours needs a secret key of its own, and no DEBUG."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BOOKSHOP_DATA", BASE_DIR / "data"))
DATA.mkdir(parents=True, exist_ok=True)

DEBUG = True
SECRET_KEY = "an example needs no secret"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "bookshop.urls"
WSGI_APPLICATION = "bookshop.wsgi.application"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = ["django.contrib.staticfiles", "bookshop", "wippy_queue.contrib.django"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "bookshop.sqlite3",
        # For many threads that write: they wait for each other, and commits are quick.
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        },
    }
}

WIPPY_QUEUE = {
    "CONFIG": "queues.yaml",
    # Serving processes import too, unless workers do.
    "EMBEDDED": os.environ.get("BOOKSHOP_EMBEDDED", "true") == "true",
}
SECONDS_PER_ROW = 0.02  # what a row takes, so that there is progress to watch
