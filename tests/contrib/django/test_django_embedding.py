"""Consumers inside serving processes, and the readiness view."""

import sys
import threading
from types import SimpleNamespace

import pytest
from django.core.asgi import get_asgi_application
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.core.wsgi import get_wsgi_application
from django.test import Client, RequestFactory, override_settings
from django.test.client import ClientHandler
from harness import SOON

from wippy_queue import UnavailableError
from wippy_queue.contrib.django import embed, get_runtime, publish, runtime
from wippy_queue.contrib.django.process import warn_where_not_embedded
from wippy_queue.contrib.embedding import ThreadsDisabledError

EMBEDDED = {"CONFIG": "queues.yaml", "EMBEDDED": True}
WARNING = "this process runs no consumers"


@pytest.fixture
def embedded():
    """Have the setting EMBEDDED."""
    with override_settings(WIPPY_QUEUE=EMBEDDED):
        yield


def serve(application):
    """Serve a request as a WSGI server does, and wait for what it has started."""
    environ = RequestFactory().get("/ready/").environ
    answers = []
    response = application(environ, lambda status, headers: answers.append(status))
    response.close()
    for thread in threading.enumerate():
        if thread.name == "wippy_queue_start":
            thread.join(SOON)
    return answers[0]


def running():
    """Return the IDs of the consumers that run."""
    return {each.id for each in runtime.consumers.values() if each.running}


def test_nothing_starts_before_the_first_request(embedded):
    """Making the application is done by reloaders and preloading masters, too."""
    embed(get_wsgi_application())
    assert running() == set()


def test_the_first_request_starts_the_consumers(embedded):
    """And the next one nothing."""
    application = embed(get_wsgi_application())
    serve(application)
    assert running() == {"shop:worker", "shop:mailer"}
    pools = set(threading.enumerate())
    assert serve(application) == "200 OK"
    assert set(threading.enumerate()) == pools


def test_without_the_setting_nothing_starts():
    """The same wsgi.py serves processes that only publish."""
    assert serve(embed(get_wsgi_application())) == "200 OK"
    assert running() == set()


def test_a_broker_that_is_away_breaks_no_request(embedded, monkeypatch):
    """The consumers are started later, in the background."""

    def away(timeout):
        raise UnavailableError("no broker")

    application = embed(get_wsgi_application())
    [driver] = get_runtime().drivers.values()
    with monkeypatch.context() as patched:
        patched.setattr(driver, "start", away)
        assert serve(application) == "503 Service Unavailable"
    assert running() == set()
    assert "no broker" in str(runtime.health().problems)


def test_asgi_is_refused():
    """With what to do instead."""
    with pytest.raises(TypeError, match=r"embed takes a WSGI.*manage.py wippy_queue run"):
        embed(get_asgi_application())


def test_a_server_without_threads_is_refused(embedded, monkeypatch):
    """Its consumers would never run."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt={}))
    with pytest.raises(ThreadsDisabledError, match="--enable-threads"):
        embed(get_wsgi_application())


def test_a_forgotten_embed_is_logged(embedded, caplog):
    """Else nothing would be handled, and nobody be told."""
    request_started.connect(warn_where_not_embedded)
    request_started.send(sender=ClientHandler)
    assert WARNING not in caplog.text
    request_started.send(sender=WSGIHandler)
    request_started.send(sender=WSGIHandler)
    assert caplog.text.count(WARNING) == 1


def test_an_embed_that_was_not_forgotten(embedded, caplog):
    """Nothing is logged."""
    embed(get_wsgi_application())
    request_started.connect(warn_where_not_embedded)
    request_started.send(sender=WSGIHandler)
    assert WARNING not in caplog.text


# -- readiness ---------------------------------------------------------------------------


def test_a_process_that_only_publishes_is_ready():
    """Before and after its first publish."""
    assert Client().get("/ready/").status_code == 200
    publish("shop:mails", {})
    answer = Client().get("/ready/")
    assert (answer.status_code, answer.json()["ok"]) == (200, True)
    assert answer["Cache-Control"].startswith("max-age=0")


def test_a_process_whose_consumers_do_not_run_is_not_ready(embedded):
    """It says why."""
    answer = Client().get("/ready/")
    assert answer.status_code == 503
    assert answer.json()["problems"]


def test_a_process_whose_configuration_is_wrong_is_not_ready():
    """The problems are those of the check."""
    with override_settings(WIPPY_QUEUE={}):
        answer = Client().get("/ready/")
    assert answer.status_code == 503
    assert answer.json()["problems"] == [
        "settings.WIPPY_QUEUE: CONFIG: missing; it names the YAML files"
    ]


def test_only_looking_is_allowed():
    """A probe does not POST."""
    assert Client().post("/ready/").status_code == 405
