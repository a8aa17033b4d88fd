"""Running the rows: each repeat of each contestant in a process of its own, interleaved."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .everybody import CONTESTANTS
from .measurements import Figures
from .row import Metric, Row

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300.0
"""Seconds for one measurement."""


def run(rows: Iterable[Row], chosen: list[str], repeats: int, quick: bool) -> dict[str, Any]:
    """Measure, and return everything as JSON can carry it."""
    return {
        "begun": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(chosen),
        "repeats": repeats,
        "quick": quick,
        "rows": [run_row(row, chosen, repeats, quick) for row in rows],
    }


def run_row(row: Row, chosen: list[str], repeats: int, quick: bool) -> dict[str, Any]:
    """Measure one row; every repeat takes all contestants in turn."""
    names = [name for name in row.contestants if name in chosen]
    measured: dict[str, list[Figures]] = {name: [] for name in names}
    for repeat in range(1, repeats + 1):
        for name in names:
            print(f"{row.key} {repeat}/{repeats}: {name}", file=sys.stderr)
            measured[name].append(measure(row.key, name, quick))
    return {
        "key": row.key,
        "title": row.title,
        "settings": {**row.settings, **(row.quick if quick else {})},
        "metrics": [summarize(metric, measured, row.ours) for metric in row.metrics],
    }


def measure(key: str, name: str, quick: bool) -> Figures:
    """Measure one contestant once, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.measure", key, name, *(["quick"] if quick else [])]
    done = subprocess.run(
        command, cwd=ROOT, timeout=TIMEOUT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    figures: Figures = json.loads(done.stdout)
    return figures


def summarize(metric: Metric, measured: dict[str, list[Figures]], our_name: str) -> dict[str, Any]:
    """Return all repeats, medians and ratios of one figure, and what became of its budget."""
    repeats = {name: [figures[metric.key] for figures in each] for name, each in measured.items()}
    medians = {name: statistics.median(each) for name, each in repeats.items()}
    ours = medians.get(our_name)
    return {
        "key": metric.key,
        "title": metric.title,
        "more_is_better": metric.more_is_better,
        "contestants": {
            name: {
                "median": median,
                "repeats": repeats[name],
                "ours_is_times": ours / median if ours is not None and median else None,
            }
            for name, median in medians.items()
        },
        "budget": judge(metric, medians, our_name),
    }


def judge(metric: Metric, medians: dict[str, float], our_name: str) -> dict[str, Any] | None:
    """Return whether the budget is met; ``None`` where there is none or it was not measured."""
    budget = metric.budget
    if budget is None or our_name not in medians:
        return None
    unit, best_of = 1.0, None
    if budget.against:
        others = [name for name in budget.against if name in medians]
        if not others:
            return None
        choose = max if metric.more_is_better else min
        best_of = choose(others, key=medians.__getitem__)
        unit = medians[best_of]
    limit = budget.limit * unit
    ours = medians[our_name]
    return {
        "limit": budget.limit,
        "times": best_of,
        "is": ours / unit,
        "met": ours >= limit if metric.more_is_better else ours <= limit,
    }


def machine() -> dict[str, Any]:
    """Return where it ran, and how busy it was at the start."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions(chosen: list[str]) -> dict[str, str]:
    """Return the versions of Python and of the contestants."""
    packages = sorted({package for name in chosen if (package := CONTESTANTS[name].package)})
    return {
        platform.python_implementation(): platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }
