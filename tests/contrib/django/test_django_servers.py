"""Consumers inside of runserver, as a process."""

import contextlib
import itertools
import re
import shutil
import signal
import threading

import pytest
from programs_of_shop import PROJECT, Server

STARTED = re.compile(r"process (\d+) runs shop:worker x 1, shop:mailer x 2")


@pytest.mark.parametrize("options", [[], ["--noreload"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_start_and_the_end(tmp_path, options, number):
    """The consumers run in the process that serves, once; a busy handler holds no exit up."""
    with Server(tmp_path, *options) as server:
        assert server.get("sign-up/ada/") == 201
        assert server.get("sign-up/bob/") == 201
        handled = {server.wait_for("welcome ").split()[-1] for _ in range(2)}
        assert server.get("busy/60/") == 201
        server.wait_for("sleeps in")
        server.process.send_signal(number)
        code = server.end()
    assert STARTED.findall(server.output) == list(handled)
    assert code in (0, -number)
    assert "Traceback" not in server.output


@contextlib.contextmanager
def changing(path):
    """Change a file, again and again: a reloader that has not looked at it yet sees nothing."""
    is_seen = threading.Event()

    def change():
        for number in itertools.count():
            path.write_text(f"{path.read_text()}\n# {number}\n")
            if is_seen.wait(5.0):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        is_seen.set()
        thread.join()


def test_a_reload(tmp_path):
    """The process that is left behind ends, and the new one starts at its first request."""
    shutil.copytree(PROJECT / "shop", tmp_path / "shop")
    shutil.copy(PROJECT / "manage.py", tmp_path)
    with Server(tmp_path, project=tmp_path) as server:
        assert server.get("sign-up/ada/") == 201
        first = server.wait_for("welcome ada").split()[-1]
        with changing(tmp_path / "shop" / "views.py"):
            server.wait_for("Quit the server")
        assert server.get("sign-up/bob/") == 201
        second = server.wait_for("welcome bob").split()[-1]
        server.process.send_signal(signal.SIGINT)
        server.end()
    assert STARTED.findall(server.output) == [first, second]
    assert first != second
