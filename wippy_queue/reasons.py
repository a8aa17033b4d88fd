"""Why a message was given up, in words that fit into a header of any broker."""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from types import TracebackType
from typing import Final

from .function import run

LONGEST_REASON: Final = 1000
"""Characters of a reason that are kept."""
LONGEST_ERROR: Final = 600
"""Characters of an exception's own text that are kept where its frames follow."""
FRAMES: Final = 4
"""How many frames of an exception are named, the innermost first."""

_OUR_FOLDER: Final = run.__code__.co_filename.removesuffix("function.py")
# Exceptions may hold half surrogates, such as of file names, and control characters; not every
# broker carries those.
_UNCARRIED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def reason_of(error: BaseException | None) -> str:
    """
    Return what a dead letter says of an error: its type and text, and its last frames.

    Such as ``ValueError: no such mail [store at shop/db.py:7, send at shop/mails.py:12]``.
    """
    if error is None:
        return "nacked by its handler"
    try:
        text = "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # noqa: BLE001 - odd fields of a SyntaxError, to name one, make it raise
        text = type(error).__qualname__
    frames = _frames_of(error.__traceback__)
    if not frames:
        return bounded(text)
    return bounded(f"{_cut(text, LONGEST_ERROR)} [{', '.join(frames)}]")


def _frames_of(trace: TracebackType | None) -> list[str]:
    """Name the last frames, the innermost first, without those of this library."""
    # Not by extract_tb, which reads the sources and may fail in that.
    stack = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)]
    frames = [each for each in stack if not each[0].co_filename.startswith(_OUR_FOLDER)]
    return [
        f"{code.co_name} at {_short(code.co_filename)}:{line}"
        for code, line in frames[: -FRAMES - 1 : -1]
    ]


def _short(file: str) -> str:
    return str(PurePath(*PurePath(file).parts[-2:]))


def bounded(reason: str) -> str:
    """Return a reason that any broker's headers can carry."""
    return _UNCARRIED.sub("?", _cut(reason, LONGEST_REASON))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
