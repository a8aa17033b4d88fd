"""What messages call a task, and whether its module was run again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Self

import attrs

from ..fields import FieldError
from ..function import synchronous
from ..functions.python import lasting_name


@attrs.frozen
class Origin:
    """
    Where a function comes from.

    Attributes:
        module: Its module's name as every process knows it; that of a program which was started
            by its path is ``__main__``.
        file: Its module's file, ``None`` at a prompt, in a notebook and in ``exec``.
        run: Stands for one run of the module; compared by identity.
    """

    module: str
    file: str | None
    run: object = attrs.field(repr=False)

    @classmethod
    def of(cls, func: Callable[..., object]) -> Self:
        """Return the origin of a function."""
        name = str(getattr(func, "__module__", None))
        module = sys.modules.get(name)
        # Each import and each reload makes a spec; a program that is started by its path has none.
        spec = getattr(module, "__spec__", None)
        if name == "__main__" and spec is not None:
            name = spec.name
        return cls(lasting_name(name), getattr(module, "__file__", None), spec or module)

    def replaces(self, other: Origin) -> bool:
        """Return whether ``other`` is the same module as it was before it was run again."""
        same = (self.module, self.file) == (other.module, other.file)
        return same and (self.file is None or self.run is not other.run)


def check_function(func: object) -> None:
    """Raise ``FieldError`` for what cannot be a task."""
    if isinstance(func, str):
        raise FieldError('a function; a name is given as @tasks.task(name="...")', func)
    written: Any = inspect.unwrap(synchronous(func))
    if not inspect.isfunction(written):  # such as a bound method, which has its self
        return
    place = written.__qualname__.rpartition(".")[0]
    first = written.__code__.co_varnames[: written.__code__.co_argcount][:1]
    if place and not place.endswith("<locals>") and first in (("self",), ("cls",)):
        raise FieldError(
            f"a function outside of a class, because no message can carry {first[0]}", func
        )


def default_name(func: Callable[..., object]) -> str:
    """Return ``module:qualname``. Raises ``FieldError`` for what has no name of its own."""
    place = [getattr(func, each, None) for each in ("__module__", "__qualname__")]
    if None in place:
        lacks = "module" if place[1] else "name of its own"
        raise FieldError(f'a name, as in @tasks.task(name="..."), because it has no {lacks}', func)
    return f"{Origin.of(func).module}:{place[1]}"
