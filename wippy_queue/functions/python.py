"""The kind ``function.python``: a handler in a file beside the YAML, or in an installed module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import attrs

from ..bodies.reading import reader_of
from ..errors import ConfigError, ConfigProblem
from ..fields import FieldError, FilledText, checked, nearest, optional, problem_of, shown
from ..function import Handler, handler_of
from ..loading.files import similar_file

DEFAULT_METHOD = "handler"
"""The name of the function in a source file where no other is given."""

_FILE = "file://"
_NAMES = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_MODULE = "wippy_queue_source_"
_MODULE_NUMBERS = itertools.count(1)


def _source(value: Any) -> str:
    if not isinstance(value, str) or len(value) <= len(_FILE) or not value.startswith(_FILE):
        is_path = isinstance(value, str) and re.fullmatch(r"[\w./\\-]+\.py", value)
        suggestion = _FILE + shown(value) if is_path else None
        raise FieldError("file:// and a path", value, suggestion=suggestion)
    return value


def _matching(pattern: str, expected: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise FieldError(expected, value)
        return value

    return check


@attrs.frozen(kw_only=True)
class PythonFunction:
    """
    Where a handler is found: by ``source`` and ``method``, or by ``callable``.

    Attributes:
        source: ``file://`` and the path of a Python file; a relative one starts at the folder
            of the YAML file.
        method: The name of the function in that file; by default ``handler``.
        callable: ``package.module:name`` of something that can be imported; the name may have
            dots.

    Raises:
        ConfigError: Neither or both are given, or ``method`` with ``callable``.
    """

    source: str | None = checked(optional(_source), default=None)
    method: str | None = checked(
        optional(_matching(_NAMES, "the name of a function")), default=None
    )
    callable: str | None = checked(
        optional(_matching(f"{_NAMES}:{_NAMES}", "package.module:name")), default=None
    )

    NOT_YET: ClassVar[tuple[str, ...]] = ("modules", "imports", "pool")

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if self.callable is None and self.source is None:
            raise _error("source", "missing; give source (file://...) or callable")
        if self.callable is not None:
            if self.source is not None:
                raise _error("callable", "source is given too; use one of them")
            if self.method is not None:
                raise _error("method", "belongs to source; with callable, the name follows the :")


def lasting_name(module: str) -> str:
    """Return a module's name as every process knows it: that of a source file is its stem."""
    return re.sub(rf"^{_MODULE}\d+_", "", module)


class PythonLoader:
    """
    Finds handlers; runs each source file once.

    One loader serves one load, whose files may share handler files.
    """

    def __init__(self) -> None:
        self._modules: dict[Path, ModuleType | ConfigError] = {}

    def load(self, function: PythonFunction, base_dir: Path) -> Handler:
        """
        Return the handler that ``function`` names, by importing it.

        Args:
            function: Where it is found.
            base_dir: The folder that a relative source starts at.

        Raises:
            ConfigError: There is no such file, module or function, its import fails, it is no
                handler, or no body can be read as it is annotated.
        """
        if function.callable is not None:
            module_name, _, names = function.callable.partition(":")
            module_text, names_text = module_name, names
            if isinstance(function.callable, FilledText):
                module_text = names_text = shown(function.callable)
            module = _import(module_name, module_text)
            return _handler(module, names, "callable", module_text, names_text)
        source = function.source or ""
        module = self._module(source, base_dir)
        names = function.method or DEFAULT_METHOD
        text = f"{names}; method can name another" if function.method is None else shown(names)
        return _handler(module, names, "method", _path_text(source), text)

    def _module(self, source: str, base_dir: Path) -> ModuleType:
        path = base_dir / source.removeprefix(_FILE)
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # then it is not found below
            path = path.resolve()
        if path not in self._modules:
            try:
                self._modules[path] = _run(path, source)
            except ConfigError as error:
                self._modules[path] = error
        module = self._modules[path]
        if isinstance(module, ConfigError):
            raise ConfigError(module.problems)
        return module


def _path_text(source: str) -> str:
    return shown(source).removeprefix(_FILE)


def _run(path: Path, source: str) -> ModuleType:
    """Run a file as a module of a name that nothing else has."""
    text = _path_text(source)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # ValueError: a NUL in the path, before Python 3.13
        found = False
    if not found:
        similar = None if _FILE + text != source else similar_file(path)
        suggestion = f"{source.removesuffix(path.name)}{similar.name}" if similar else None
        raise _error("source", f"no file {text}", suggestion)
    stem = re.sub(r"\W", "_", path.stem)
    name = f"{_MODULE}{next(_MODULE_NUMBERS)}_{stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "there is always a spec where a loader is given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A handler file may raise anything, SystemExit included.
        sys.modules.pop(name, None)
        raise _import_error("source", error, text, lambda file: file == str(path)) from error
    return module


def _import(name: str, text: str) -> ModuleType:
    try:
        return _main_module(name) or importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            missing = error.name if text == name else text
            hint = "is it installed, or its folder on PYTHONPATH?"
            raise _error("callable", f"no module {missing}; {hint}") from None
        raise _import_error("callable", error, text, _is_code) from error
    except BaseException as error:
        raise _import_error("callable", error, text, _is_code) from error


def _main_module(name: str) -> ModuleType | None:
    """Return the program's main module where it is that module: another copy has other objects."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or name in sys.modules:
        return None
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != Path(file).resolve():
        return None
    return main


def _is_code(file: str) -> bool:
    return not file.startswith("<frozen importlib") and file not in (__file__, importlib.__file__)


def _import_error(
    field: str, error: BaseException, text: str, of_handler: Callable[[str], bool]
) -> ConfigError:
    """Say what an import raised, and where."""
    file, line, said = import_failure(error, of_handler)
    at = f"{Path(file).name}:{line}" if file and line else text
    return _error(field, f"importing {text} failed at {at}: {said}")


def import_failure(
    error: BaseException, of_handler: Callable[[str], bool] = _is_code
) -> tuple[str | None, int | None, str]:
    """
    Return what there is to say of an exception that an import raised.

    Args:
        error: The exception.
        of_handler: Whether a file may be the one that is wrong; by default all may but Python's
            and this module.

    Returns:
        The file and line of the last such code that it came from, where there is any, and the
        type and text of the exception.
    """
    places = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if of_handler(frame.filename)
    ]
    if isinstance(error, SyntaxError) and error.filename and of_handler(error.filename):
        places.append((error.filename, error.lineno))
    file, line = places[-1] if places else (None, None)
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return file, line, " ".join(f"{type(error).__name__}: {reason}".split())


def _handler(module: ModuleType, names: str, field: str, where: str, text: str) -> Handler:
    value: Any = module
    for name in names.split("."):
        try:
            value = getattr(value, name)
        except Exception:  # noqa: BLE001 - a module's __getattr__ may raise anything
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                hint = "it is still being imported (a circular import)"
                raise _error(field, f"{where} has no {text} yet: {hint}") from None
            similar = nearest(names, _callables(module)) if value is module else None
            raise _error(field, f"{where} has no {text}", similar) from None
    try:
        handler = handler_of(value)
    except FieldError as error:
        raise ConfigError([problem_of(error, (field,))]) from None
    reader_of(handler, (field,))
    return handler


def _callables(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]


def _error(field: str, message: str, suggestion: str | None = None) -> ConfigError:
    problem = ConfigProblem(message=message, path=(field,), suggestion=suggestion)
    return ConfigError([problem])
