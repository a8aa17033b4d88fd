"""A task: a function that can be called here, or published to be called by a consumer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

import attrs

from ..function import NoHandler
from ..ids import EntryId
from ..message import MESSAGE_TYPE, HeaderValue
from ..publishing import QUEUE_TIMEOUT, Publishes, Timeout
from .arguments import CallArguments
from .names import Origin

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Task(NoHandler, Generic[P, R_co]):
    """
    A function that can be called, and published to be called by a consumer.

    Made by ``Tasks.task``. For any thread.

    Attributes:
        func: The function.
        name: What messages call it.
        queue: The ID of the queue that it is published on.
        publisher: Returns what it is published through, here and now.
        arguments: Reads and writes its arguments.
        origin: Where the function comes from.
    """

    instead = "the Tasks that it is a task of, as in func=tasks or callable: shop.tasks:tasks"

    def __init__(
        self,
        func: Callable[P, R_co],
        name: str,
        queue: EntryId,
        publisher: Callable[[], Publishes],
    ) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.name = name
        self.queue = queue
        self.publisher = publisher
        self.arguments = CallArguments(func, name)
        self.origin = Origin.of(func)

    def __repr__(self) -> str:
        return f"<task {self.name} of {self.queue}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function, here and now."""
        return self.func(*args, **kwargs)

    def publish(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """
        Have a consumer call the function with these arguments.

        Blocks like ``Publisher.publish``.

        Args:
            args: What the function takes by position. Each argument fits its annotation, or,
                where it has none, is a value that the queue's codec can carry.
            kwargs: What it takes by name.

        Returns:
            The message's id.

        Raises:
            TypeError: The function cannot be called like that.
            CodecError: An argument does not fit its annotation, or cannot be carried; the text
                names it, as ``$.args[0]`` or ``$.kwargs.lang``.
            ConfigError: A parameter is annotated with something that no argument can be read as.
            NotBoundError: No runtime was given the tasks.
            PublishError: Or one of its kinds, as ``Publisher.publish`` raises them.
        """
        return TaskWithOptions(task=self).publish(*args, **kwargs)

    def with_options(
        self,
        *,
        queue: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> TaskWithOptions[P]:
        """
        Return the task with options of its publishing.

        Args:
            queue: The ID of another queue, which must have a consumer with these tasks.
            headers: As ``Publisher.publish`` takes them, without ``message_type``.
            message_id: As there; and so the other three.
            delay: Seconds.
            ttl: Seconds.
            timeout: Seconds.

        Raises:
            ValueError: The headers have a ``message_type``, which is the task's name.
        """
        if headers and MESSAGE_TYPE in headers:
            raise ValueError(f"the header {MESSAGE_TYPE} is the task's name and cannot be given")
        return TaskWithOptions(
            task=self,
            queue=queue,
            headers=dict(headers or {}),
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
        )


@attrs.frozen(kw_only=True)
class TaskWithOptions(Generic[P]):
    """
    A task and how it is to be published; made by ``Task.with_options``, for any thread.

    Attributes:
        task: The task.
        queue: The ID of another queue than the task's.
        headers: The headers, beside ``message_type``.
        message_id: The message's id, ``None`` for a new one.
        delay: Seconds until it may be handed over.
        ttl: Seconds after which it expires.
        timeout: Seconds to wait for room or a connection.
    """

    task: Task[P, Any]
    queue: str | None = None
    headers: Mapping[str, HeaderValue] = attrs.field(factory=dict)
    message_id: str | None = None
    delay: float = 0.0
    ttl: float | None = None
    timeout: Timeout = QUEUE_TIMEOUT

    def publish(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Have a consumer call the function with these arguments, as ``Task.publish`` does."""
        task = self.task
        return task.publisher().publish(
            task.queue if self.queue is None else self.queue,
            task.arguments.write(args, kwargs),
            {**self.headers, MESSAGE_TYPE: task.name},
            message_id=self.message_id,
            delay=self.delay,
            ttl=self.ttl,
            timeout=self.timeout,
        )
