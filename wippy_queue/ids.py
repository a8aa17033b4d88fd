"""Entry IDs: ``namespace:name``."""

from __future__ import annotations

import re

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]*\Z")


class EntryId(str):
    """
    The ID of an entry, ``namespace:name``, as text.

    It is a ``str`` and compares, hashes and prints like one, so wherever an ID
    is expected plain text such as ``"app.queue:tasks"`` will do.

    Args:
        text: The whole ID. Namespace and name are letters, digits, ``_``, ``.``,
            ``-`` and ``/``; the first ``:`` separates them.

    Raises:
        ValueError: The text is no ID.

    Source:
        Wippy runtime, ``api/registry/id.go``: the first ``:`` separates.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> EntryId:
        """Check the text."""
        if isinstance(text, EntryId):
            return text
        namespace, separator, name = text.partition(":")
        if not separator:
            raise ValueError(f"expected namespace:name, got {text!r}, which has no namespace")
        if not _PART.match(namespace) or not _PART.match(name):
            raise ValueError(f"expected namespace:name, got {text!r}")
        return super().__new__(cls, text)

    @classmethod
    def within(cls, text: str, namespace: str) -> EntryId:
        """Return the ID that ``text`` means in a file of ``namespace``, which a bare name gets."""
        return cls(text if ":" in text else f"{namespace}:{text}")

    @property
    def namespace(self) -> str:
        """The part before the first ``:``."""
        return self.partition(":")[0]

    @property
    def name(self) -> str:
        """The part after the first ``:``."""
        return self.partition(":")[2]
