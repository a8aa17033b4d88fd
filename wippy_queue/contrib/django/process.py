"""The one runtime of a process, made when it is first needed, and its start in a server."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.utils.functional import LazyObject, empty
from django.utils.module_loading import autodiscover_modules

from ...errors import ConfigError, ConfigProblem, QueueNotFoundError, StopTimeoutError
from ...fields import nearest
from ...functions.python import import_failure
from ...log import logger
from ...runtime import Runtime
from ...tasks import Tasks
from ..embedding import Embedding, check_threads
from .conf import read_settings
from .handling import around_handler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

APP = "wippy_queue.contrib.django"
HANDLERS = "queue_handlers"
"""The module of an app in which its handlers are looked for."""

# Guards the making of the runtime; what was made is read without it. Re-entrant, so that a
# handler module that needs the runtime while it is imported gets an error and no deadlock.
_locks: dict[int, threading.RLock] = {}
_making: int | None = None  # the process that does
_embedding: Embedding | None = None
_is_embedded = False


def get_embedding() -> Embedding:
    """
    Return what starts the runtime in this process; reads and checks all at the first call.

    Starts nothing. For any thread; a forked process has its parent's.

    Raises:
        ConfigError: The setting, a file or a handler is wrong; the next call tries again.
    """
    global _making, _embedding  # noqa: PLW0603 - one in a process, as for settings
    if (of_command := _OF_COMMAND.get(None)) is not None:
        return of_command
    if _embedding is not None:
        return _embedding
    apps.check_models_ready()  # handlers import models
    # By process, so that a fork leaves no lock taken.
    with _locks.setdefault(os.getpid(), threading.RLock()):
        if _embedding is not None:  # by another thread
            return _embedding  # type: ignore[unreachable]
        if _making == os.getpid():
            message = (
                "the runtime was asked for while it is made, by a module that it imports; use "
                "it inside functions only"
            )
            raise ConfigError([ConfigProblem(message=message)])
        _making = os.getpid()
        try:
            _embedding = _make()
        finally:
            _making = None
        return _embedding


def get_runtime() -> Runtime:
    """Return the runtime of this process, as ``get_embedding`` makes it."""
    return get_embedding().runtime


@contextmanager
def runtime_of_command() -> Iterator[Callable[[], Runtime]]:
    """
    Give what makes the runtime of a command that is called inside this process.

    Where the process has no runtime, the command's is that of the process, so that handlers
    publish by it; it is forgotten at the end. Else it is another one, which nothing but the
    command uses.
    """
    if _embedding is not None:
        yield _make_for_command
        return
    try:
        yield get_runtime
    finally:
        reset()


_OF_COMMAND: ContextVar[Embedding] = ContextVar("wippy_queue.django.of_command")
"""What a handler publishes by that runs for a command in a process with a runtime of its own."""


def _make_for_command() -> Runtime:
    made = _make()

    @contextmanager
    def around(in_pool: bool) -> Iterator[None]:
        # In the handler's own context, which ends with it.
        _OF_COMMAND.set(made)
        with around_handler(in_pool):
            yield

    made.runtime.around_handlers = around
    return made.runtime


class _LazyRuntime(LazyObject):  # type: ignore[type-arg] # only the stubs' is generic
    """Stands for the runtime, and makes it when something of it is asked for."""

    def _setup(self) -> None:
        self._wrapped: object = get_runtime()

    # Which a with block looks for in the class.

    def __enter__(self) -> Runtime:
        return get_runtime().__enter__()

    def __exit__(self, *raised: Any) -> None:
        get_runtime().__exit__(*raised)

    def __repr__(self) -> str:
        return "<the runtime of WIPPY_QUEUE>" if self._wrapped is empty else repr(self._wrapped)


runtime = cast(Runtime, _LazyRuntime())


def reset() -> None:
    """Stop and forget the runtime, because a test has other settings."""
    global _embedding, _is_embedded
    forgotten, _embedding, _is_embedded = _embedding, None, False
    cast(Any, runtime)._wrapped = empty
    if forgotten is not None:
        try:
            forgotten.runtime.stop()
        except StopTimeoutError as error:
            logger.error("%s", error)


def _make() -> Embedding:
    # Here, because it needs the runtime to publish.
    from .publishing import AFTER_COMMIT, publish_waiting

    if not apps.is_installed(APP):
        raise ConfigError([ConfigProblem(message=f"add {APP} to INSTALLED_APPS")])
    given = read_settings()
    made = Runtime.from_file(*given.files)
    made.around_handlers = cast("Callable[[bool], AbstractContextManager[object]]", around_handler)
    made.before_drain = publish_waiting
    made.task_publisher = AFTER_COMMIT
    _discover()
    declared = [each for each in made.functions.values() if isinstance(each, Tasks)]
    _bind(made, [*declared, *_discovered()])
    return Embedding(
        made,
        consumes=given.embedded,
        publish_timeout=given.publish_timeout,
        stop_timeout=given.stop_timeout,
    )


def _discover() -> None:
    """Import the handler modules of all apps. Raises ``ConfigError`` with the place."""
    try:
        autodiscover_modules(HANDLERS)
    except ConfigError:
        raise
    except Exception as error:
        file, line, said = import_failure(error)
        message = f"importing {HANDLERS} failed: {said}"
        raise ConfigError([ConfigProblem(message=message, file=file, line=line)]) from error


def _discovered() -> Iterable[Tasks]:
    """Return the ``Tasks`` in the handler modules of all apps."""
    for app in apps.get_app_configs():
        module = sys.modules.get(f"{app.name}.{HANDLERS}")
        for value in list(vars(module).values()) if module is not None else ():
            if isinstance(value, Tasks):
                yield value


def _bind(made: Runtime, found: Iterable[Tasks]) -> None:
    problems: list[ConfigProblem] = []
    for tasks in dict.fromkeys(found):
        try:
            made.bind(tasks)
        except QueueNotFoundError:
            message = f"{tasks!r} publishes on {tasks.queue}, and there is no such queue"
            near = nearest(tasks.queue, made.queues)
            problems.append(ConfigProblem(message=message, suggestion=near))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def embed(application: WSGIApplication) -> WSGIApplication:
    """
    Have the consumers run beside a WSGI application, from its first request on; in ``wsgi.py``.

    Checks the configuration at once, because servers do not run system checks, and starts
    nothing: each process that serves a request begins to consume then, once. The request does
    not wait for it. Where ``EMBEDDED`` is false nothing is ever started.

    Args:
        application: What ``get_wsgi_application()`` returns.

    Raises:
        ConfigError: The configuration is wrong.
        ThreadsDisabledError: The server is uWSGI without ``enable-threads``.
    """
    if isinstance(application, ASGIHandler):
        raise TypeError(
            "embed takes a WSGI application; beside an ASGI one run the consumers with "
            "manage.py wippy_queue run"
        )
    global _is_embedded  # noqa: PLW0603 - see get_embedding
    _is_embedded = True
    if get_embedding().consumes:
        check_threads()

    def serving(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        get_embedding().serve()
        return application(environ, start_response)

    return serving


def warn_where_not_embedded(sender: object, **_: object) -> None:
    """
    Say that nothing consumes although the setting says so; a receiver of ``request_started``.

    Test clients send that signal too, with themselves as the sender.
    """
    if not isinstance(sender, type) or not issubclass(sender, WSGIHandler | ASGIHandler):
        return
    request_started.disconnect(warn_where_not_embedded)
    if not _is_embedded:
        logger.error(
            "WIPPY_QUEUE has EMBEDDED: True, and this process runs no consumers, because its "
            "wsgi.py does not say: application = embed(get_wsgi_application())"
        )
