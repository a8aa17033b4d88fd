"""Tasks: many functions behind one consumer, routed by the type of the message."""

from .task import Task
from .tasks import Tasks

__all__ = ["Task", "Tasks"]
