"""
An app for Django: ``INSTALLED_APPS = [..., "wippy_queue.contrib.django"]``.

Importing it starts nothing and reads no files; the runtime is made when it is first needed.
"""

from .process import embed, get_embedding, get_runtime, runtime
from .publishing import info, publish, publish_many

__all__ = [
    "embed",
    "get_embedding",
    "get_runtime",
    "info",
    "publish",
    "publish_many",
    "runtime",
]
