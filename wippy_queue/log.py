"""The one logger of the library; only the command line adds handlers to it."""

from __future__ import annotations

import logging

logger = logging.getLogger("wippy_queue")
