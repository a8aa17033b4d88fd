"""The extension for Flask: a runtime for each application, and the commands ``flask wippy``."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
import click
from flask import Flask, Response, current_app, has_app_context, jsonify
from flask.cli import AppGroup, ScriptInfo

from ..driver import QueueInfo
from ..errors import ConfigError, ConfigProblem
from ..fields import CHECK, Check, FieldError, checked, duration, nearest, problem_of
from ..message import HeaderValue
from ..publishing import QUEUE_TIMEOUT, Timeout
from ..runtime import Runtime
from ..tasks import Tasks
from .embedding import PUBLISH_TIMEOUT, STOP_TIMEOUT, Embedding, readiness

T = TypeVar("T")

EXTENSION: Final = "wippy_queue"
"""The key in ``app.extensions``."""
PREFIX: Final = "WIPPY_QUEUE_"
"""How the names of all settings begin."""


# -- settings --------------------------------------------------------------------------


def _paths(value: Any) -> tuple[str, ...]:
    """Check the setting CONFIG: a file or folder, or several."""
    expected = "a file or a folder, or a list of them"
    paths = value if isinstance(value, list | tuple) else [value]
    for path in paths:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise FieldError(expected, path)
    if not paths:
        raise FieldError(expected, value)
    return tuple(os.fspath(path) for path in paths)


def _flag(value: Any) -> bool:
    # From the environment: Flask reads JSON there, which spells it true.
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise FieldError("True or False", value)
    return value


@attrs.frozen(kw_only=True)
class Settings:
    """
    The settings of an application: in ``app.config`` in capitals, after ``WIPPY_QUEUE_``.

    Attributes:
        config: YAML files and folders; a folder means every ``_index.yaml`` below it. Relative
            ones start at the application's ``root_path``.
        embedded: Whether serving processes run the consumers with ``auto_start``, each from
            its first request on.
        publish_timeout: How long a publish waits for room or a connection, on a queue that
            sets no ``publish_timeout``.
        stop_timeout: How long the exit of a process waits for handlers.
    """

    config: tuple[str, ...] = checked(_paths)
    embedded: bool = checked(_flag, default=False)
    publish_timeout: float = checked(duration, default=PUBLISH_TIMEOUT)
    stop_timeout: float = checked(duration, default=STOP_TIMEOUT)

    @classmethod
    def of(cls, app: Flask) -> Settings:
        """
        Read the settings of an application.

        Raises:
            ConfigError: With everything that is wrong with them.
        """
        given = app.config.get_namespace(PREFIX, lowercase=False)
        problems = [_unknown(name) for name in given if name not in _CHECKS]
        values: dict[str, Any] = {}
        for name in given.keys() & _CHECKS.keys():
            try:
                values[name.lower()] = _CHECKS[name](given[name])
            except FieldError as error:
                problems.append(problem_of(error, (PREFIX + name,)))
        if "CONFIG" not in given:
            problems.append(_no_config(app))
        if problems:
            raise ConfigError(sorted(problems, key=str))
        values["config"] = [str(Path(app.root_path, path)) for path in values["config"]]
        return cls(**values)


_CHECKS: Final[Mapping[str, Check]] = {
    field.name.upper(): field.metadata[CHECK] for field in attrs.fields(Settings)
}


def _unknown(name: str) -> ConfigProblem:
    near = nearest(name, _CHECKS)
    return ConfigProblem(
        message="there is no such setting"
        if near
        else f"there is no such setting; there are {', '.join(PREFIX + each for each in _CHECKS)}",
        path=(PREFIX + name,),
        suggestion=PREFIX + near if near else None,
    )


def _no_config(app: Flask) -> ConfigProblem:
    return ConfigProblem(
        message="is not set. Name the YAML file of the queues, relative to the folder of the "
        f'application ({app.root_path}), such as app.config["{PREFIX}CONFIG"] = "queues.yaml", '
        "before WippyQueue(app) or init_app(app)",
        path=(PREFIX + "CONFIG",),
    )


# -- the application's part ------------------------------------------------------------


class _CurrentRuntime:
    """
    Publishes through the runtime of the current application, if it has one.

    Tasks belong to a module and know one publisher, but several applications of a factory can
    have loaded them.
    """

    def __init__(self, otherwise: AppQueues) -> None:
        self._otherwise = otherwise

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        **more: Any,
    ) -> str:
        """Publish, as ``Runtime.publish``."""
        queues = _current() or self._otherwise
        return queues.runtime.publish(queue_id, body, headers, **more)


class _Uses:
    """What the extension and an application's part have in common."""

    @property
    def runtime(self) -> Runtime:
        """The runtime."""
        raise NotImplementedError

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """Put a message on a queue and return its id, as ``Runtime.publish``."""
        return self.runtime.publish(
            queue_id,
            body,
            headers,
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
        )

    def publish_many(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> list[str]:
        """Put many messages on a queue and return their ids, as ``Runtime.publish_many``."""
        return self.runtime.publish_many(
            queue_id, bodies, headers, delay=delay, ttl=ttl, timeout=timeout
        )

    def info(self, queue_id: str) -> QueueInfo:
        """Return the counts of a queue, as ``Runtime.info``."""
        return self.runtime.info(queue_id)


class AppQueues(_Uses):
    """
    The queues of one application, which is what ``app.extensions["wippy_queue"]`` has.

    Methods may be called from any thread, with and without an application context, and in any
    process that was forked.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        # The runtime is loaded once. By process, so that a fork leaves no lock taken.
        self._locks: dict[int, threading.RLock] = {}
        self._loading: int | None = None  # the process that does; guarded by the lock
        self._embedding: Embedding | None = None  # written with the lock
        self._of_command: ContextVar[Runtime | None] = ContextVar("wippy_queue.flask.of_command")
        Settings.of(app)
        app.before_request(self._serve)

    @property
    def settings(self) -> Settings:
        """The settings as they are now. Raises ``ConfigError``."""
        return Settings.of(self._app)

    @property
    def embedding(self) -> Embedding:
        """
        The runtime inside this process; loaded when it is first needed.

        Raises:
            ConfigError: With everything that is wrong with the settings and files.
        """
        if self._embedding is not None:
            return self._embedding
        with self._locks.setdefault(os.getpid(), threading.RLock()):
            if self._embedding is None:
                self._embedding = self._load()
            return self._embedding

    def _load(self) -> Embedding:
        if self._loading == os.getpid():
            raise RuntimeError(
                "a module with handlers uses the queues while it is imported for them; do that "
                "inside of a function"
            )
        self._loading = os.getpid()
        try:
            settings = Settings.of(self._app)
            runtime = Runtime.from_file(*settings.config)
        finally:
            self._loading = None
        tasks = [each for each in runtime.functions.values() if isinstance(each, Tasks)]
        runtime.task_publisher = _CurrentRuntime(self)
        runtime.bind(*tasks)
        runtime.around_handlers = self._around_handler
        return Embedding(
            runtime,
            consumes=settings.embedded,
            publish_timeout=settings.publish_timeout,
            stop_timeout=settings.stop_timeout,
        )

    def _around_handler(self, in_pool: bool) -> AbstractContextManager[object]:
        """Return the context of a handler, in a thread of a pool and in that of a test alike."""
        return self._app.app_context()

    def _serve(self) -> None:
        """Load the runtime, so that errors show at once, and begin to consume."""
        embedding = self.embedding
        if not self._app.testing:
            embedding.serve()

    @property
    def runtime(self) -> Runtime:
        """
        The runtime; loaded when it is first needed. Raises ``ConfigError``.

        In a handler that runs for a command with a runtime of its own it is that.
        """
        return self._of_command.get(None) or self.embedding.runtime

    def runtime_of_command(self) -> Runtime:
        """
        Return the runtime of a command, which stops it at its end.

        It is another one than ``runtime`` where that is at work, as in a process that calls the
        command by Flask's test runner.
        """
        if not any(driver.running for driver in self.runtime.drivers.values()):
            return self.runtime
        with self._locks.setdefault(os.getpid(), threading.RLock()):
            runtime = self._load().runtime

        @contextmanager
        def around(_: bool) -> Iterator[None]:
            # In the handler's own context, which ends with it.
            self._of_command.set(runtime)
            with self._app.app_context():
                yield

        runtime.around_handlers = around
        return runtime

    def start(self) -> None:
        """
        Start the consumers in this process without waiting for its first request.

        Where ``WIPPY_QUEUE_EMBEDDED`` is false only drivers are started. Blocks until
        everything runs; brokers that are away are tried again in the background. Not to be
        called while the application is imported, which a master or reloader does too.

        Raises:
            ConfigError: The configuration is wrong.
            ThreadsDisabledError: The server is uWSGI without ``enable-threads``.
        """
        self.embedding.start()

    def readiness_view(self) -> tuple[Response, int]:
        """Answer whether the process does its work: 200 or 503, with the health in JSON."""
        answer, ok = readiness(self.embedding)
        return jsonify(answer), 200 if ok else 503


def _current() -> AppQueues | None:
    """Return the queues of the current application, if there is one and it has any."""
    return current_app.extensions.get(EXTENSION) if has_app_context() else None


def _load_current() -> str | None:
    """
    Load the runtime of the current application, which binds the tasks of its handlers.

    Returns:
        What tasks of an application need, where there is no current one.
    """
    queues = _current()
    if queues is not None:
        _ = queues.runtime
    if has_app_context():
        return None
    return (
        "those of an application are bound by the current one, and there is none here: publish in "
        "a request, a handler or a block `with app.app_context():`"
    )


# -- the extension ---------------------------------------------------------------------


class WippyQueue(_Uses):
    """
    The extension: queues for each application that it is given to.

    It keeps nothing of an application. What it has is that of the current application; for
    another one, and where there is no application context, ``of(app)`` has the same.

    Args:
        app: An application to begin with; see ``init_app``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """
        Give queues to an application.

        Checks the settings, and reads no file: that, and the import of the handlers, comes with
        the first request or use, so handlers may live in the module that makes the application.
        Starts nothing.

        Raises:
            ConfigError: With everything that is wrong with the settings.
            RuntimeError: The application was given to this or another ``WippyQueue`` before.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(
                f"the application {app.name!r} has a WippyQueue already; make one, and call "
                "WippyQueue(app) or init_app(app) once for each application"
            )
        app.extensions[EXTENSION] = AppQueues(app)
        Tasks.when_unbound = _load_current

    def of(self, app: Flask | None = None) -> AppQueues:
        """
        Return the queues of an application, by default the current one.

        Raises:
            RuntimeError: There is no current application, or it was not given to ``init_app``.
        """
        if app is None:
            if not has_app_context():
                raise RuntimeError(
                    "there is no current application here: call this in a request, a handler or "
                    "a block `with app.app_context():`, or use .of(app)"
                )
            app = current_app
        queues = app.extensions.get(EXTENSION)
        if queues is None:
            raise RuntimeError(
                f"the application {app.name!r} has no queues: call init_app(app) where it is made"
            )
        return cast("AppQueues", queues)

    @property
    def runtime(self) -> Runtime:
        """The runtime of the current application; loaded when it is first needed."""
        return self.of().runtime

    def start(self, app: Flask | None = None) -> None:
        """Start the consumers in this process, as ``AppQueues.start``."""
        self.of(app).start()

    def readiness_view(self) -> tuple[Response, int]:
        """
        Answer whether the process does its work: 200 or 503, with the health in JSON.

        To be mounted: ``app.add_url_rule("/ready", view_func=queues.readiness_view)``.
        """
        return self.of().readiness_view()


# -- commands --------------------------------------------------------------------------


class _Commands(AppGroup):
    """The commands, which need more packages than the extension, and are imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return self._made().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        return self._made().get_command(ctx, cmd_name)

    @functools.cached_property
    def _group(self) -> click.Group:
        from .command_line import group

        return group(
            lambda: _queues_of_command().runtime_of_command(),
            files=lambda: _queues_of_command().settings.config,
            around=_with_app,
        )

    def _made(self) -> click.Group:
        try:
            return self._group
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
            raise click.ClickException(
                "flask wippy needs rich, which is not installed; run: pip install "
                "'wippy-queue[flask]'"
            ) from None


def _queues_of_command() -> AppQueues:
    queues = _current()
    if queues is None:
        message = (
            f"the application {current_app.name!r} has no queues: call WippyQueue(app), or "
            "init_app(app), where it is made"
        )
        raise ConfigError([ConfigProblem(message=message)])
    return queues


def _with_app(callback: Callable[..., T]) -> Callable[..., T]:
    """Have a command run in the context of the application, whose settings may be wrong."""
    from ..arguments import refused

    def within(*args: Any, **kwargs: Any) -> T:
        with refused():
            app = click.get_current_context().ensure_object(ScriptInfo).load_app()
        if has_app_context():
            return callback(*args, **kwargs)
        with app.app_context():
            return callback(*args, **kwargs)

    return within


cli = _Commands("wippy", help="Run the consumers of the application, look after its queues.")
"""The group ``flask wippy``."""
