"""What was uploaded, and what was stored of it."""

from django.db import models


class Upload(models.Model):
    """A file, and its rows, to publish again what is missing."""

    name = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)
    total = models.PositiveIntegerField()
    rows = models.JSONField()


class Book(models.Model):
    """A row that is stored."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="books")
    line = models.PositiveIntegerField()
    isbn = models.CharField(max_length=13)
    title = models.TextField()
    cents = models.PositiveIntegerField()
    stock = models.PositiveIntegerField()

    class Meta:
        """A row that comes again is stored once."""

        constraints = [models.UniqueConstraint(fields=["upload", "line"], name="one_per_line")]
