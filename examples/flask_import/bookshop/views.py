"""The pages, and what the script of the second one asks for."""

import json

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for

from wippy_queue import PublishError
from wippy_queue.dead_letters import DeadLetters, DeadMessage

from . import queues
from .database import add_upload, get_upload, recent_uploads, stored_lines
from .rows import FIELDS, BadFileError, read_rows

QUEUE = "bookshop:rows"
MOST_LETTERS = 10_000  # of all uploads together
LETTERS_SHOWN = 50

pages = Blueprint("pages", __name__)


@pages.get("/")
def home(error: object = None):
    """Show the form, and the newest uploads."""
    status = 400 if error else 200
    return render_template("home.html", uploads=recent_uploads(), error=error), status


@pages.post("/")
def upload():
    """Keep the rows of a file, and have them imported in the background."""
    file = request.files.get("file")
    try:
        rows = read_rows(file.read() if file else b"")
    except BadFileError as error:
        return home(error)
    upload_id = add_upload(file.filename, rows)
    try:
        publish_missing(upload_id)
    except PublishError as error:  # the page offers to go on
        current_app.logger.warning("upload %d was not published: %s", upload_id, error)
    return redirect(url_for(".show", upload_id=upload_id), 303)


@pages.get("/uploads/<int:upload_id>/")
def show(upload_id: int):
    """Show an upload; a script fills the page."""
    return render_template("upload.html", upload=get_upload(upload_id), fields=FIELDS)


@pages.get("/uploads/<int:upload_id>/progress")
def progress(upload_id: int):
    """Tell how far an upload is, and which of its rows were rejected, and why."""
    waiting = queues.info(QUEUE)  # first, because what ends later is counted below
    letters = letters_of(upload_id)
    return {
        "total": get_upload(upload_id)["total"],
        "stored": len(stored_lines(upload_id)),
        "rejected": len(letters),
        "idle": not (waiting.ready or waiting.delayed or waiting.in_flight),
        "letters": [
            {"id": each.id, "reason": each.reason, **each.body} for each in letters[:LETTERS_SHOWN]
        ],
    }


@pages.post("/uploads/<int:upload_id>/continue")
def publish_missing(upload_id: int):
    """Publish the rows that are neither stored nor rejected, as after the end of a process."""
    done = stored_lines(upload_id) | {each.body["line"] for each in letters_of(upload_id)}
    rows = json.loads(get_upload(upload_id)["rows"])
    missing = [{"upload": upload_id, **row} for row in rows if row["line"] not in done]
    queues.publish_many(QUEUE, missing)
    return "", 204


@pages.post("/uploads/<int:upload_id>/replay")
def replay_all(upload_id: int):
    """Put all rejected rows of an upload back on the queue, as they are."""
    dead_letters().replay([each.id for each in letters_of(upload_id)])
    return "", 204


@pages.post("/uploads/<int:upload_id>/letters/<letter_id>/replay")
def replay(upload_id: int, letter_id: str):
    """Put a rejected row back on the queue, as it is."""
    if not dead_letters().replay([letter_id]).replayed:
        abort(409)
    return "", 204


@pages.post("/uploads/<int:upload_id>/letters/<letter_id>/correct")
def correct(upload_id: int, letter_id: str):
    """Publish a rejected row anew with other fields, and remove the dead letter."""
    letter = dead_letters().get(letter_id) or abort(409)
    # In this order, so that what interrupts it loses no row.
    queues.publish(QUEUE, {**letter.body, **{field: request.form[field] for field in FIELDS}})
    dead_letters().purge([letter_id])
    return "", 204


@pages.app_errorhandler(PublishError)
def unavailable(error: PublishError):
    """Say that the queue is full, or cannot be reached."""
    return str(error), 503


def dead_letters() -> DeadLetters:
    """Return the rejected rows of all uploads."""
    return queues.runtime.dead_letters(QUEUE)


def letters_of(upload_id: int) -> list[DeadMessage]:
    """Return the rejected rows of an upload."""
    letters = dead_letters().list(MOST_LETTERS)
    return [each for each in letters if each.body["upload"] == upload_id]
