"""What examples with a web page are run and visited by, without a browser."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from servers.server import SOON, Server

EXAMPLES = Path(__file__).parents[2] / "examples"

BOOKS = """\
isbn,title,price,stock
9780306406157,Letters of a River,12.50,3
9780306406158,The Wrong Digit,9.00,1
"978-1-86197-876-9","Bread, and Salt",7,0
9781861978769,,free,-1
"""
GOOD = {"isbn": "9780306406157", "title": "The Right Digit", "price": "9.00", "stock": "1"}
REASONS = {
    3: "isbn: the check digit is wrong",
    5: (
        "title: is missing; price: must be an amount such as 12.50; "
        "stock: must be a whole number, at least 0"
    ),
}


class Site:
    """
    A running example, and a visitor with cookies.

    Attributes:
        server: The server.
        upload_path: The page of the upload, once there is one.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.upload_path = ""
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._cookies)
        )

    def answers(self) -> bool:
        """Return whether the server is there."""
        try:
            self.get("/")
        except urllib.error.URLError:
            return False
        return True

    def get(self, path: str) -> str:
        """Return a page."""
        return self._open(path)[1]

    def upload(self, content: str) -> None:
        """Send a file by the form of the first page, and be led to its own."""
        body = (
            '--part\r\nContent-Disposition: form-data; name="file"; filename="books.csv"\r\n'
            f"Content-Type: text/csv\r\n\r\n{content}\r\n--part--\r\n"
        )
        url, _ = self._open("/", body.encode(), "multipart/form-data; boundary=part")
        self.upload_path = urllib.parse.urlsplit(url).path

    def post(self, action: str, **fields: str) -> None:
        """Send a form of the upload's page."""
        self._open(self.upload_path + action, urllib.parse.urlencode(fields).encode())

    def _open(self, path: str, data: bytes | None = None, kind: str | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}{path}", data)
        if kind is not None:
            request.add_header("Content-Type", kind)
        for cookie in self._cookies:
            if cookie.name == "csrftoken":
                request.add_header("X-CSRFToken", cookie.value or "")
        with self._opener.open(request, timeout=SOON) as answer:
            return answer.url, answer.read().decode()

    def progress(self) -> dict[str, Any]:
        """Return what the page asks for again and again."""
        answer: dict[str, Any] = json.loads(self.get(self.upload_path + "progress"))
        return answer

    def wait_until(self, stored: int, rejected: int) -> dict[str, Any]:
        """Wait until so many rows are stored and rejected, and return the progress."""
        deadline = time.monotonic() + SOON
        while True:
            progress = self.progress()
            if (progress["stored"], progress["rejected"]) == (stored, rejected):
                return progress
            assert time.monotonic() < deadline, (progress, self.server.output[-2000:])
            time.sleep(0.02)  # of the requests, which nothing tells of the end


@contextlib.contextmanager
def running(
    example: str, data: Path, port: int | None = None, **environment: str
) -> Iterator[Site]:
    """Run an example as its users run it, with its database in a folder."""
    server = Server(
        sys.executable,
        str(EXAMPLES / example / "run.py"),
        f"--port={port or '{port}'}",
        folder=data,
        ready="Open http",
        BOOKSHOP_DATA=str(data),
        **environment,
    )
    server.port = port or server.port
    try:
        site = Site(server)
        deadline = time.monotonic() + SOON
        while not site.answers():  # a moment after it has said so
            assert time.monotonic() < deadline, server.output
            time.sleep(0.02)
        yield site
    finally:
        server.close()


def check_import(site: Site) -> None:
    """Upload, look at the rejected rows, replay one, correct the other."""
    site.upload(BOOKS)
    progress = site.wait_until(stored=2, rejected=2)
    assert progress["total"] == 4
    letters = {each["line"]: each for each in progress["letters"]}
    assert {line: each["reason"] for line, each in letters.items()} == REASONS
    assert letters[3]["title"] == "The Wrong Digit"

    site.post(f"letters/{letters[5]['id']}/replay")
    progress = site.wait_until(stored=2, rejected=2)
    assert {each["line"]: each["reason"] for each in progress["letters"]} == REASONS

    site.post(f"letters/{letters[3]['id']}/correct", **GOOD)
    progress = site.wait_until(stored=3, rejected=1)
    assert [each["line"] for each in progress["letters"]] == [5]
    assert "3 of 4 stored" in site.get("/")
    assert not site.server.find("Traceback"), site.server.output
