"""
A thread-based, synchronous queue library that embeds in Flask and Django programs.

A driver holds queues; a publisher puts messages on them; a consumer takes them off into a
bounded buffer and runs a function on a worker pool.
"""

from .consumer import Consumer
from .context import current_context, current_delivery
from .driver import Attachment, Driver, Features, QueueInfo
from .drivers.memory import MemoryDriver
from .errors import (
    AlreadySettledError,
    Cancelled,
    CodecError,
    ConfigError,
    ConfigProblem,
    ConsumerNotFoundError,
    DriverNotFoundError,
    ForkedError,
    FunctionNotFoundError,
    MessageTooLargeError,
    NoDeliveryError,
    NotBoundError,
    PermissionDeniedError,
    PublishError,
    QueueError,
    QueueFullError,
    QueueNotFoundError,
    Reject,
    ReleasedError,
    RetryAfter,
    StartTimeoutError,
    StopFromHandlerError,
    StopTimeoutError,
    UnavailableError,
)
from .health import Health
from .ids import EntryId
from .message import Delivery, Message
from .publisher import Publisher
from .queues import QueueConfig
from .report import ConsumerInfo, RunningMessage, StopReport
from .retry import Backoff, RetryPolicy
from .runtime import Runtime
from .tasks import Task, Tasks
from .typed_queue import TypedQueue

__all__ = [
    "AlreadySettledError",
    "Attachment",
    "Backoff",
    "Cancelled",
    "CodecError",
    "ConfigError",
    "ConfigProblem",
    "Consumer",
    "ConsumerInfo",
    "ConsumerNotFoundError",
    "Delivery",
    "Driver",
    "DriverNotFoundError",
    "EntryId",
    "Features",
    "ForkedError",
    "FunctionNotFoundError",
    "Health",
    "MemoryDriver",
    "Message",
    "MessageTooLargeError",
    "NoDeliveryError",
    "NotBoundError",
    "PermissionDeniedError",
    "PublishError",
    "Publisher",
    "QueueConfig",
    "QueueError",
    "QueueFullError",
    "QueueInfo",
    "QueueNotFoundError",
    "Reject",
    "ReleasedError",
    "RetryAfter",
    "RetryPolicy",
    "RunningMessage",
    "Runtime",
    "StartTimeoutError",
    "StopFromHandlerError",
    "StopReport",
    "StopTimeoutError",
    "Task",
    "Tasks",
    "TypedQueue",
    "UnavailableError",
    "current_context",
    "current_delivery",
]
