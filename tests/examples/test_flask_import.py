"""The example examples/flask_import, with Flask's test client and as its users run it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wippy_queue import Tasks
from wippy_queue.testing import drain

from .web import BOOKS, EXAMPLES, GOOD, REASONS, check_import, running

pytest.importorskip("flask")

QUEUE = "bookshop:rows"


@pytest.fixture
def bookshop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the package of the example, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "flask_import"))
    monkeypatch.setattr(Tasks, "when_unbound", Tasks.when_unbound)  # which the extension sets
    import bookshop

    yield bookshop
    for name in [each for each in sys.modules if each.partition(".")[0] == "bookshop"]:
        del sys.modules[name]


@pytest.fixture
def app(bookshop: Any, tmp_path: Path) -> Iterator[Any]:
    """Give an application with a database of its own, whose requests start no consumer."""
    app = bookshop.create_app(TESTING=True, DATA=tmp_path, SECONDS_PER_ROW=0)
    yield app
    bookshop.queues.of(app).runtime.stop()


def upload(app: Any, content: str) -> Any:
    """Send a file, and return the answer."""
    file = (io.BytesIO(content.encode()), "books.csv")
    return app.test_client().post("/", data={"file": file})


def progress(app: Any) -> dict[str, Any]:
    """Return the progress of the first upload."""
    answer: dict[str, Any] = app.test_client().get("/uploads/1/progress").json
    return answer


def post(app: Any, action: str, **fields: str) -> int:
    """Send a form of the first upload, and return the status."""
    status: int = app.test_client().post(f"/uploads/1/{action}", data=fields).status_code
    return status


def test_it_runs(tmp_path: Path) -> None:
    """One command serves it, and imports in the same process."""
    with running("flask_import", tmp_path) as site:
        check_import(site)


def test_rows_are_imported_in_the_background(app: Any, bookshop: Any) -> None:
    """The upload publishes a message for each row, and their handler stores or rejects them."""
    answer = upload(app, BOOKS)
    assert (answer.status_code, answer.location) == (303, "/uploads/1/")
    assert app.test_client().get("/uploads/1/").status_code == 200
    waiting = progress(app)
    assert (waiting["total"], waiting["stored"], waiting["rejected"]) == (4, 0, 0)
    assert waiting["idle"] is False
    report = drain(bookshop.queues.of(app).runtime)
    assert (report.acked, report.dead_lettered) == (2, 2)
    done = progress(app)
    assert (done["stored"], done["rejected"]) == (2, 2)
    assert {each["line"]: each["reason"] for each in done["letters"]} == REASONS


def test_a_correction_takes_the_place_of_the_dead_letter(app: Any, bookshop: Any) -> None:
    """It is published with the new fields; what is gone by then is said to be."""
    upload(app, BOOKS)
    runtime = bookshop.queues.of(app).runtime
    drain(runtime)
    letter = progress(app)["letters"][0]
    assert post(app, f"letters/{letter['id']}/correct", **GOOD) == 204
    assert drain(runtime).acked == 1
    assert (progress(app)["stored"], progress(app)["rejected"]) == (3, 1)
    assert post(app, f"letters/{letter['id']}/correct", **GOOD) == 409
    assert post(app, f"letters/{letter['id']}/replay") == 409


def test_a_row_that_comes_again_is_stored_once(app: Any, bookshop: Any) -> None:
    """A message that is handled twice adds nothing, and replays are rejected again."""
    upload(app, BOOKS)
    assert post(app, "continue") == 204  # nothing was stored yet, so all of it waits twice
    runtime = bookshop.queues.of(app).runtime
    assert drain(runtime).acked == 4
    assert progress(app)["stored"] == 2
    assert post(app, "replay") == 204
    assert drain(runtime).dead_lettered == 4


def test_what_was_lost_is_published_again(app: Any, bookshop: Any) -> None:
    """Rows that neither are stored nor rejected nor wait are offered, and published."""
    upload(app, BOOKS)
    runtime = bookshop.queues.of(app).runtime
    drain(runtime)
    letter = progress(app)["letters"][0]
    runtime.dead_letters(QUEUE).purge([letter["id"]])
    assert progress(app)["idle"] is True
    assert post(app, "continue") == 204
    assert drain(runtime).dead_lettered == 1
    assert progress(app)["rejected"] == 2


def test_an_upload_waits_where_the_queue_is_full(app: Any, bookshop: Any) -> None:
    """It is kept, and published when somebody asks for it and there is room."""
    app.config["WIPPY_QUEUE_PUBLISH_TIMEOUT"] = 0
    header, row = BOOKS.splitlines()[:2]
    upload(app, "\n".join([header, *[row] * 10_000]))
    assert upload(app, BOOKS).location == "/uploads/2/"
    client = app.test_client()
    assert client.post("/uploads/2/continue").status_code == 503
    runtime = bookshop.queues.of(app).runtime
    assert runtime.purge(QUEUE) == 10_000
    assert client.post("/uploads/2/continue").status_code == 204
    assert drain(runtime).acked == 2


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "names no column isbn, title, price, stock"),
        (b"isbn,title,price\n", "names no column stock"),
        (b"isbn,title,price,stock\n", "has 0 rows"),
        (b"isbn,title,price,stock\n\xff,,,\n", "not text in UTF-8"),
    ],
)
def test_what_is_no_list_of_books_is_refused(app: Any, content: bytes, error: str) -> None:
    """The form says why."""
    answer = app.test_client().post("/", data={"file": (io.BytesIO(content), "books.csv")})
    assert answer.status_code == 400
    assert error in answer.text


def test_forms_of_other_sites_are_refused(app: Any) -> None:
    """A browser tells where a form comes from."""
    answer = app.test_client().post("/", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_there_are_other_uploads(app: Any) -> None:
    """What does not exist is not found."""
    assert app.test_client().get("/uploads/1/").status_code == 404
    assert app.test_client().get("/uploads/1/progress").status_code == 404
    assert post(app, "continue") == 404


def test_both_examples_share_their_looks_and_rules() -> None:
    """The files that both have are the same."""
    flask, django = (EXAMPLES / each / "bookshop" for each in ("flask_import", "django_import"))
    names = ["rows.py", *(f"static/{each.name}" for each in (flask / "static").iterdir())]
    assert len(names) == 5
    for name in names:
        assert (flask / name).read_bytes() == (django / name).read_bytes(), name
