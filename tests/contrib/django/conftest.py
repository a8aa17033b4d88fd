"""A Django project, its test databases, and a new runtime for each test."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator

import pytest

FOLDER = tempfile.TemporaryDirectory(prefix="shop-")
os.environ.update(SHOP_FOLDER=FOLDER.name, DJANGO_SETTINGS_MODULE="shop.settings")

if importlib.util.find_spec("django.conf") is None:
    collect_ignore_glob = ["*"]
else:
    import django

    # Before the modules with tests are imported, which import models.
    django.setup()


@pytest.fixture(scope="session", autouse=True)
def databases() -> Iterator[None]:
    """Set the databases up as Django's own test runner does."""
    from django.test import utils

    utils.setup_test_environment()
    made = utils.setup_databases(verbosity=0, interactive=False)
    yield
    utils.teardown_databases(made, verbosity=0)
    utils.teardown_test_environment()
    FOLDER.cleanup()


@pytest.fixture(autouse=True)
def forgotten(request: pytest.FixtureRequest, databases: None) -> Iterator[None]:
    """Forget the runtime of a test, and the rows and connections, which TestCase does itself."""
    from django.db import connections
    from shop import queue_handlers
    from shop.models import Person

    from wippy_queue.contrib.django.process import reset

    on_mail = queue_handlers.on_mail
    yield
    reset()
    queue_handlers.on_mail = on_mail
    if request.cls is not None:
        return
    for alias in ("default", "other"):
        Person.objects.using(alias).all().delete()
    connections.close_all()
