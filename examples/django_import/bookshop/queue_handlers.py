"""What becomes of a message, which is one row of a file."""

from django.conf import settings

from wippy_queue import current_context

from .models import Book
from .rows import Row, check


def store(row: Row) -> None:
    """Store a row, unless it is; one that is wrong becomes a dead letter with the reason."""
    current_context().wait(settings.SECONDS_PER_ROW)
    Book.objects.get_or_create(upload_id=row["upload"], line=row["line"], defaults=check(row))
