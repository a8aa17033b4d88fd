"""Three RabbitMQ nodes on this machine that make one cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from .ground import Ground
from .node import Node


class Cluster:
    """
    Nodes that share an Erlang cookie and a port mapper, and join the first one at their start.

    Where all were stopped, the one that was stopped last must be started first.

    Args:
        size: How many nodes.
        management: Whether they have the management plugin.
        config: More lines of their ``rabbitmq.conf``.

    Attributes:
        nodes: In the order of their start.
        urls: Where they answer.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        management: bool = False,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self._ground = Ground()
        join = {"cluster_formation.classic_config.nodes.1": "rabbit1@localhost"}
        self.nodes = [
            Node(
                ground=self._ground,
                name=f"rabbit{number}",
                management=management,
                config={**(config or {}), **(join if number > 1 else {})},
            )
            for number in range(1, size + 1)
        ]
        self.urls = [node.url for node in self.nodes]

    def start(self) -> None:
        """Start the first node, then the others at once."""
        first, *others = self.nodes
        first.start()
        for node in others:
            node.launch()
        for node in others:
            node.wait_until_ready()

    def restore(self) -> None:
        """Make every node run that does not, or is paused; at least one must run."""
        down = [node for node in self.nodes if not node.running]
        for node in down:
            node.launch()
        for node in down:
            node.wait_until_ready()
        for node in self.nodes:
            node.restore()

    def remove(self) -> None:
        """Kill all nodes and delete what they wrote."""
        for node in self.nodes:
            node.remove()
        self._ground.remove()

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.remove()
