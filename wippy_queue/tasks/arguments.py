"""The arguments of a function's calls as bodies of messages, and back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from ..bodies.reading import annotation_problem
from ..bodies.structuring import resolved, structurer, unstructure
from ..errors import CodecError, ConfigError, ConfigProblem
from ..fields import FieldError
from ..function import function_name


@attrs.frozen
class CallBody:
    """
    How the arguments of a call travel.

    Attributes:
        args: Those that were given by position.
        kwargs: Those that were given by name.
    """

    args: list[Any]
    kwargs: dict[str, Any]


_read_body = structurer(CallBody)


class _Parameter(NamedTuple):
    """A parameter: its annotation, and what reads values by it or lets them pass."""

    annotation: Any
    read: Callable[[Any], Any]


class _Parameters(NamedTuple):
    """
    The parameters of a function by how a call may give them.

    Attributes:
        by_position: Those that can be given by position, in order.
        rest: The one of further positions, where there is one.
        by_name: Those that can be given by name.
        others: The one of further names, where there is one.
    """

    by_position: list[_Parameter]
    rest: _Parameter | None
    by_name: dict[str, _Parameter]
    others: _Parameter | None


class CallArguments:
    """
    Writes and reads the arguments of one function by its signature and its annotations.

    The annotations are resolved when they are first needed, because a decorator runs before
    the names that stand further down in its module exist. For any thread; never blocks.

    Args:
        func: The function.
        task: What errors about its annotations and arguments call it.
    """

    def __init__(self, func: Callable[..., object], task: str) -> None:
        self._func = func
        self._name = function_name(func)
        self._task = task

    def check(self) -> None:
        """Raise ``ConfigError`` with each parameter that no plain value can be read for."""
        _ = self._parameters

    def write(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the plain body of a call.

        Raises:
            TypeError: The function cannot be called like that.
            CodecError: An argument does not fit its annotation, or has no plain form.
            ConfigError: As ``check`` does.
        """
        self._bind(args, kwargs)
        try:
            body: dict[str, Any] = unstructure({"args": args, "kwargs": kwargs})
            self._typed(body["args"], body["kwargs"])
        except CodecError as error:
            raise CodecError(f"{self._task}: {error}") from None
        return body

    def read(self, body: Any) -> tuple[list[Any], dict[str, Any]]:
        """
        Return the typed arguments that a decoded body stands for.

        Raises:
            TypeError: The function cannot be called like that.
            CodecError: It is no such body, or an argument does not fit its annotation.
            ConfigError: As ``check`` does.
        """
        call: CallBody = _read_body(body)
        self._bind(call.args, call.kwargs)
        return self._typed(call.args, call.kwargs)

    def _bind(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None

    def _typed(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the typed values of plain arguments, which the signature can be bound to."""
        by_position, rest, by_name, others = self._parameters
        made_args = [
            _typed(by_position[index] if index < len(by_position) else rest, value, "args", index)
            for index, value in enumerate(args)
        ]
        made_kwargs = {
            name: _typed(by_name.get(name, others), value, "kwargs", name)
            for name, value in kwargs.items()
        }
        return made_args, made_kwargs

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        try:
            return inspect.signature(self._func)
        except Exception as error:  # noqa: BLE001 - annotations are code and may raise anything
            message = f"{self._task} has no signature to check arguments by: {error}"
            raise ConfigError([ConfigProblem(message=message)]) from None

    @functools.cached_property
    def _parameters(self) -> _Parameters:
        problems: list[ConfigProblem] = []
        found = _Parameters([], None, {}, None)
        for each in self._signature.parameters.values():
            try:
                annotation = resolved(each.annotation, self._func)
                parameter = _Parameter(annotation, structurer(annotation))
            except FieldError as error:
                problems.append(annotation_problem(f"{self._task}: {each.name}", error))
                continue
            if each.kind is each.VAR_POSITIONAL:
                found = found._replace(rest=parameter)
            elif each.kind is each.VAR_KEYWORD:
                found = found._replace(others=parameter)
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
                found.by_position.append(parameter)
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                found.by_name[each.name] = parameter
        if problems:
            raise ConfigError(problems)
        return found


def _typed(parameter: _Parameter | None, value: Any, *place: str | int) -> Any:
    """Return the typed value of an argument at its place in the body, or raise ``CodecError``."""
    assert parameter is not None, "else the signature could not have been bound"
    try:
        return parameter.read(value)
    except CodecError:
        # Once more, for the path: the one parameter of *args stands in many places.
        return structurer(parameter.annotation, path=("$", *place))(value)
