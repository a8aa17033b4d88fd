"""The pages, and what the script of the second one asks for."""

from collections.abc import Callable
from functools import wraps

from django.db import transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from wippy_queue import PublishError
from wippy_queue.contrib.django import info, publish, publish_many, runtime
from wippy_queue.dead_letters import DeadLetters, DeadMessage

from .models import Book, Upload
from .rows import FIELDS, BadFileError, read_rows

QUEUE = "bookshop:rows"
MOST_LETTERS = 10_000  # of all uploads together
LETTERS_SHOWN = 50

View = Callable[..., HttpResponse]


def needs_queue(view: View) -> View:
    """Answer 503 where the queue is full, or cannot be reached."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except PublishError as error:
            return HttpResponse(str(error), status=503, content_type="text/plain")

    return wrapped


@needs_queue
def home(request: HttpRequest) -> HttpResponse:
    """Show the form and the newest uploads, or take an upload."""
    error = None
    if request.method == "POST":
        file = request.FILES.get("file")
        try:
            return upload(file.name if file else "", read_rows(file.read() if file else b""))
        except BadFileError as bad:
            error = bad
    uploads = Upload.objects.defer("rows").annotate(stored=Count("books")).order_by("-id")[:8]
    context = {"uploads": uploads, "error": error}
    return render(request, "home.html", context, status=400 if error else 200)


def upload(name: str, rows: list) -> HttpResponse:
    """Keep the rows of a file, and have them imported in the background."""
    with transaction.atomic():
        made = Upload.objects.create(name=name, total=len(rows), rows=rows)
        publish_many(QUEUE, ({"upload": made.id, **row} for row in rows))  # when it is committed
    return redirect("show", made.id)


@require_safe
def show(request: HttpRequest, upload_id: int) -> HttpResponse:
    """Show an upload; a script fills the page."""
    found = get_object_or_404(Upload.objects.defer("rows"), pk=upload_id)
    return render(request, "upload.html", {"upload": found, "fields": FIELDS})


@require_safe
@needs_queue
def progress(request: HttpRequest, upload_id: int) -> HttpResponse:
    """Tell how far an upload is, and which of its rows were rejected, and why."""
    waiting = info(QUEUE)  # first, because what ends later is counted below
    letters = letters_of(upload_id)
    found = get_object_or_404(Upload.objects.defer("rows"), pk=upload_id)
    answer = {
        "total": found.total,
        "stored": found.books.count(),
        "rejected": len(letters),
        "idle": not (waiting.ready or waiting.delayed or waiting.in_flight),
        "letters": [
            {"id": each.id, "reason": each.reason, **each.body} for each in letters[:LETTERS_SHOWN]
        ],
    }
    return JsonResponse(answer)


@require_POST
@needs_queue
def publish_missing(request: HttpRequest, upload_id: int) -> HttpResponse:
    """Publish the rows that are neither stored nor rejected, as after the end of a process."""
    found = get_object_or_404(Upload, pk=upload_id)
    done = {each.body["line"] for each in letters_of(upload_id)}
    done.update(Book.objects.filter(upload=found).values_list("line", flat=True))
    missing = [{"upload": upload_id, **row} for row in found.rows if row["line"] not in done]
    publish_many(QUEUE, missing)
    return HttpResponse(status=204)


@require_POST
@needs_queue
def replay_all(request: HttpRequest, upload_id: int) -> HttpResponse:
    """Put all rejected rows of an upload back on the queue, as they are."""
    dead_letters().replay([each.id for each in letters_of(upload_id)])
    return HttpResponse(status=204)


@require_POST
@needs_queue
def replay(request: HttpRequest, upload_id: int, letter_id: str) -> HttpResponse:
    """Put a rejected row back on the queue, as it is."""
    replayed = dead_letters().replay([letter_id]).replayed
    return HttpResponse(status=204 if replayed else 409)


@require_POST
@needs_queue
def correct(request: HttpRequest, upload_id: int, letter_id: str) -> HttpResponse:
    """Publish a rejected row anew with other fields, and remove the dead letter."""
    letter = dead_letters().get(letter_id)
    if letter is None:
        return HttpResponse(status=409)
    fields = {field: request.POST.get(field, "") for field in FIELDS}
    # Before the removal, in any case, so that what interrupts it loses no row.
    publish(QUEUE, {**letter.body, **fields}, on_commit=False)
    dead_letters().purge([letter_id])
    return HttpResponse(status=204)


def dead_letters() -> DeadLetters:
    """Return the rejected rows of all uploads."""
    return runtime.dead_letters(QUEUE)


def letters_of(upload_id: int) -> list[DeadMessage]:
    """Return the rejected rows of an upload."""
    letters = dead_letters().list(MOST_LETTERS)
    return [each for each in letters if each.body["upload"] == upload_id]
