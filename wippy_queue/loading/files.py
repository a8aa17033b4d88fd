"""The YAML files that a path means, and their text."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import ConfigError, ConfigProblem
from ..fields import nearest

INDEX = "_index.yaml"
"""The name of the files that a folder means."""

LARGEST = 10_000_000
"""The most bytes of a file."""


def find_files(path: str | PathLike[str]) -> list[Path]:
    """
    Return the files that a path means: itself, or every ``_index.yaml`` below it, sorted.

    Raises:
        ConfigError: There is no such file or folder, or nothing in it.
    """
    found = Path(path)
    try:
        if not found.is_dir():
            return [found]
        files = sorted(found.rglob(INDEX))
    except (OSError, ValueError) as error:
        raise _error(found, f"cannot be read: {_reason(error)}") from None
    if not files:
        raise _error(found, f"there is no {INDEX} in this folder, nor below it")
    return files


def read_text(path: Path) -> str:
    """
    Return the text of a file.

    Raises:
        ConfigError: It cannot be read, is too large or not in UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        similar = similar_file(path)
        suggestion = str(similar) if similar else None
        raise _error(path, "there is no such file", suggestion) from None
    except (OSError, ValueError) as error:
        raise _error(path, f"cannot be read: {_reason(error)}") from None
    if len(data) > LARGEST:
        raise _error(path, f"larger than {LARGEST} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data, error) from None


def similar_file(path: Path) -> Path | None:
    """Return the file in the same folder whose name, but for its suffix, is nearest."""
    try:
        files = {file.stem: file for file in sorted(path.parent.iterdir()) if file.is_file()}
    except (OSError, ValueError):
        return None
    return files.get(nearest(path.stem, files) or "")


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> ConfigError:
    start = data.rfind(b"\n", 0, error.start) + 1
    problem = ConfigProblem(
        message=f"not UTF-8: the byte 0x{data[error.start]:02x}",
        file=str(path),
        line=data.count(b"\n", 0, error.start) + 1,
        column=len(data[start : error.start].decode("utf-8-sig")) + 1,
    )
    return ConfigError([problem])


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _error(path: Path, message: str, suggestion: str | None = None) -> ConfigError:
    return ConfigError([ConfigProblem(message=message, file=str(path), suggestion=suggestion)])
