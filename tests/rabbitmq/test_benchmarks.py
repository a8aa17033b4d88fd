"""The benchmarks with RabbitMQ run. What they measure is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Broker

ROOT = Path(__file__).parents[2]
OURS = "wippy_queue-amqp"


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory and switches from Linux")
def test_a_quick_run_measures_every_row(broker: Broker, tmp_path: Path) -> None:
    """The command measures this library in all rows of the broker that it is told of."""
    output = tmp_path / "results.json"
    rows = [
        *(f"amqp-backlog-{kind}-{size}" for kind in ("quorum", "classic") for size in (100, 10)),
        "amqp-publish-quorum",
        "amqp-latency-classic",
        "amqp-idle",
    ]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--contestants", OURS]
    done = subprocess.run(
        [*command, "--output", output, "--rows", *rows],
        cwd=ROOT,
        env={**os.environ, "AMQP_URL": broker.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in measured] == rows
    for row in measured:
        for metric in row["metrics"]:
            assert len(metric["contestants"][OURS]["repeats"]) == 1
