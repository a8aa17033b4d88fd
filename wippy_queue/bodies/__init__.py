"""Typed bodies: plain values to the types that annotations name, and back."""

from .plain import unstructure
from .structuring import body_type, structurer

__all__ = ["body_type", "structurer", "unstructure"]
