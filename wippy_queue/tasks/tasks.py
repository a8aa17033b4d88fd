"""Tasks: many functions behind one consumer, routed by the header ``message_type``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar, overload

import attrs

from ..bodies.reading import ReadsBodies
from ..context import current_delivery, current_handling
from ..errors import CodecError, ConfigError, ConfigProblem, NotBoundError, Reject
from ..fields import FieldError, describe, entry_id, nearest, problem_of, text
from ..message import MESSAGE_TYPE, Headers, HeaderValue
from ..publishing import Publishes
from .names import check_function, default_name
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


class Call(dict[str, Any]):
    """The body of a task's message with typed ``args`` and ``kwargs``, and its task."""

    __slots__ = ("task",)

    def __init__(self, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(args=args, kwargs=kwargs)
        self.task = task


class Tasks(ReadsBodies):
    """
    Many functions behind one consumer: itself the handler that calls them.

    A task's calls are published with ``message_type`` as the task's name and a body of
    ``{"args": [...], "kwargs": {...}}``. A message of a type that is not known here, and one
    whose arguments do not fit the signature and its annotations, is dead-lettered at once.

    It publishes through the runtime that loaded it by ``callable`` or ``source``, got it in
    ``add_consumer``, or was given it by ``Runtime.bind``; the last one counts, and is kept
    alive. Inside a handler it publishes through that handler's own runtime.

    For any thread. Tasks may be registered at any time, and several consumers may share one.

    Args:
        queue: The ID of the queue that its tasks are published on.

    Attributes:
        queue: That ID.
        when_unbound: Called where tasks publish that nobody bound, to make the runtime that
            binds them; for integrations that make it when it is first needed. Where it returns
            a text, that is what else could be done about it.

    Raises:
        ConfigError: It is no ID.
    """

    when_unbound: ClassVar[Callable[[], object] | None] = None

    def __init__(self, queue: str) -> None:
        try:
            self.queue = entry_id(queue)
        except FieldError as error:
            raise ConfigError([problem_of(error, ("queue",))]) from None
        # Guards the registration of tasks; they are looked up without it.
        self._lock = threading.Lock()
        self._tasks: dict[str, Task[..., Any]] = {}
        # Strongly, because programs that only publish keep nothing else of their runtime.
        self._publisher: Publishes | None = None

    def __repr__(self) -> str:
        return f"Tasks({str(self.queue)!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tasks, in the order of the alphabet."""
        return tuple(sorted(self._tasks))

    # -- registering -------------------------------------------------------------------

    @overload
    def task(self, func: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, func: None = None, /, *, name: str | None = None
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, func: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
        """
        Make a task of a function; a decorator, with or without a name.

        Args:
            func: A function that is no coroutine, no generator and no method with ``self``.
            name: What messages call it, the same in every program that publishes or handles
                it. By default ``module:qualname``: for a function in a program that was started
                by ``python -m shop.mails`` its module is ``shop.mails``, and for one in a
                ``source`` file the file's name without ``.py``. In a script that was started by
                its path it is ``__main__``, which no other program knows: give a name there, or
                have the tasks in a module that is imported.

        Returns:
            The task, which is called like the function.

        Raises:
            ConfigError: Another task has the name, or the function cannot be one. A module that
                is imported again, as reloaders do, replaces its own tasks.
        """
        if func is None:
            return lambda func: self._register(func, name)
        return self._register(func, name)

    def _register(self, func: Callable[P, R], name: str | None) -> Task[P, R]:
        try:
            check_function(func)
            name = default_name(func) if name is None else text(name)
        except FieldError as error:
            message = f"{self!r}: {error}"
            raise ConfigError([attrs.evolve(problem_of(error, ()), message=message)]) from None
        task = Task(func, name, self.queue, self.publisher)
        with self._lock:
            other = self._tasks.get(name)
            if other is not None and not task.origin.replaces(other.origin):
                message = (
                    f"{self!r} has a task {name} already; give one of the two functions another "
                    'name: @tasks.task(name="...")'
                )
                raise ConfigError([ConfigProblem(message=message)])
            self._tasks[name] = task
        return task

    # -- handling ----------------------------------------------------------------------

    def __call__(self, body: Any) -> object:
        """
        Handle a message by the task that its ``message_type`` names.

        A consumer calls it; so may a handler of the program's own, with the body that it got,
        to have something around each task.

        Raises:
            Reject: No task can be called with this message.
            NoDeliveryError: It is called outside a handler.
        """
        if not isinstance(body, Call):  # from a handler whose consumer does not know of the tasks
            try:
                body = self.read(current_delivery().headers, body)
            except CodecError as error:
                raise Reject(f"CodecError: {error}") from error
        return body.task.func(*body["args"], **body["kwargs"])

    def read(self, headers: Headers, body: Any) -> Call:
        """Return the call that a message asks for, or raise ``CodecError``."""
        name = headers.get(MESSAGE_TYPE)
        task = self._tasks.get(name) if isinstance(name, str) else None
        if task is None:
            raise CodecError(self._unknown(name), queue=self.queue)
        try:
            return Call(task, *task.arguments.read(body))
        except (CodecError, TypeError) as error:
            raise CodecError(f"{name}: {error}", queue=self.queue) from None
        except ConfigError as error:
            raise CodecError(str(error), queue=self.queue) from None

    def _unknown(self, name: HeaderValue | None) -> str:
        known = f"known are {', '.join(self.names) or 'none'}"
        if name is None:
            return f"no header {MESSAGE_TYPE}, which names the task; {known}"
        near = nearest(str(name), self.names)
        hint = f" (did you mean {near}?)" if near else ""
        return f"no task {describe(name)}{hint}; {known}"

    # -- publishing --------------------------------------------------------------------

    def publish_through(self, publisher: Publishes) -> None:
        """
        Have the tasks published through this from now on; for programs without a runtime.

        Does not block. With a runtime, call ``Runtime.bind``, which checks the queue too.

        Args:
            publisher: A ``Publisher``, or what has its ``publish``; it is kept alive.

        Raises:
            ConfigError: As ``check`` does.
        """
        self.check()
        self._publisher = publisher

    def check(self) -> None:
        """
        Look at the annotations of all tasks that are registered by now.

        Those of later ones are looked at when they are first published or handled.

        Raises:
            ConfigError: A parameter is annotated with something that does not exist, or that no
                argument can be read as.
        """
        problems: list[ConfigProblem] = []
        for task in list(self._tasks.values()):
            try:
                task.arguments.check()
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)

    def publisher(self) -> Publishes:
        """Return what it publishes through here and now, or raise ``NotBoundError``."""
        handling = current_handling()
        if handling is not None:
            return handling.worker.publisher
        hint: object = None
        if self._publisher is None and Tasks.when_unbound is not None:
            hint = Tasks.when_unbound()
        if self._publisher is None:
            also = f"; {hint}" if isinstance(hint, str) else ""
            raise NotBoundError(
                f"{self!r} is bound to no runtime yet: call runtime.bind(tasks), load it by "
                "callable in YAML, or give it to runtime.add_consumer (a module that is loaded by "
                f"source and imported too has two of them){also}",
                queue=self.queue,
            )
        return self._publisher
