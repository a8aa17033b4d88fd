"""Ports of this machine that two test runs at once never share."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below what systems give to sockets without a port of their own (32768 on Linux, 49152 elsewhere).
NUMBERS = range(20_000, 32_000)


class Port:
    """
    A TCP port that stays ours while a server stops and starts again.

    The claim is a UDP socket of the same number. Everybody who claims a port so sees it, and it
    ends with the process, however that ends.

    Attributes:
        number: The port.
    """

    def __init__(self) -> None:
        for number in random.SystemRandom().sample(NUMBERS, 1_000):
            self._claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self._claim.bind((HOST, number))
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, number))
            except OSError:
                self._claim.close()
                continue
            self.number = number
            return
        raise OSError(f"no free port of {NUMBERS}")

    def release(self) -> None:
        """Let others have it. May be called again."""
        self._claim.close()
