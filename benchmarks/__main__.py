"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

from .everybody import CONTESTANTS
from .report import print_results
from .rows import BY_DEFAULT, ROWS
from .run import run


def main() -> int:
    """Run what the arguments ask for, show it and write it down."""
    options = parse_arguments()
    rows = [row for row in ROWS if row.key in options.rows]
    needed = {name for row in rows for name in row.contestants}
    missing = missing_packages([name for name in options.contestants if name in needed])
    if missing:
        print(f"not installed: {', '.join(missing)}; see benchmarks/README.md", file=sys.stderr)
        return 2
    results = run(rows, options.contestants, options.repeats, options.quick)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_results(results)
    print(f"all repeats are in {options.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    keys = [row.key for row in ROWS]
    default = [row.key for row in BY_DEFAULT]
    parser.add_argument("--rows", nargs="+", choices=keys, default=default, metavar="ROW")
    names = list(CONTESTANTS)
    parser.add_argument(
        "--contestants", nargs="+", choices=names, default=names, metavar="CONTESTANT"
    )
    parser.add_argument("--repeats", type=int, default=None, help="5, or 1 with --quick")
    parser.add_argument(
        "--quick", action="store_true", help="see that all works; figures mean nothing"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks.json"))
    options = parser.parse_args()
    if options.repeats is None:
        options.repeats = 1 if options.quick else 5
    return options


def missing_packages(names: list[str]) -> list[str]:
    """Return the packages that contestants need and that are not there."""
    packages = sorted({package for name in names if (package := CONTESTANTS[name].package)})
    return [package for package in packages if importlib.util.find_spec(package) is None]


if __name__ == "__main__":
    sys.exit(main())
