"""The benchmarks run. What they measure is not looked at: a loaded machine must not fail a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory and switches from Linux")
def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    """The command measures this library in all rows, prints them and writes them down."""
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--contestants", "wippy_queue"]
    done = subprocess.run(
        [*command, "--output", output], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in rows] == [
        "backlog",
        "stream",
        "latency",
        "io",
        "idle",
        "size",
        "import",
    ]
    for row in rows:
        assert row["title"] in done.stdout
        for metric in row["metrics"]:
            assert len(metric["contestants"]["wippy_queue"]["repeats"]) == 1
