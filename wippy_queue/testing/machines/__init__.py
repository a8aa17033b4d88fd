"""
Hypothesis machines for any driver: what a consumer may hold, and that nothing is lost.

Importing this package imports Hypothesis.
"""

from .backpressure import BackpressureMachine
from .no_loss import NoLossMachine

__all__ = ["BackpressureMachine", "NoLossMachine"]
