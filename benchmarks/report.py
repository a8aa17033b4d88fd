"""The results as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(results: dict[str, Any]) -> None:
    """Print a table for each row, and one of the budgets."""
    console = Console()
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    console.print(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")
    console.print(f"{versions}; medians of {results['repeats']}")
    if results["quick"]:
        console.print("A quick run: its figures mean nothing.", style="bold", soft_wrap=True)
    for row in results["rows"]:
        console.print(f"\n{row['key']}: {row['title']}", style="bold", soft_wrap=True)
        console.print(row_table(row))
    console.print("\nbudgets", style="bold", soft_wrap=True)
    console.print(budget_table(results["rows"]))


def row_table(row: dict[str, Any]) -> Table:
    """Return a row: contestants down, figures across, each with its range over the repeats."""
    table = Table()
    table.add_column("", no_wrap=True)
    metrics = row["metrics"]
    for metric in metrics:
        table.add_column(metric["title"], justify="right")
    for name in metrics[0]["contestants"]:
        table.add_row(name, *(cell(metric["contestants"][name]) for metric in metrics))
    return table


def cell(figure: dict[str, Any]) -> str:
    """Return a median and, where there are several repeats, the range."""
    repeats = figure["repeats"]
    median = number(figure["median"])
    if len(repeats) == 1:
        return median
    return f"{median} ({number(min(repeats))} to {number(max(repeats))})"


def budget_table(rows: list[dict[str, Any]]) -> Table:
    """Return the budgets of all rows, those that were measured."""
    table = Table()
    for title in ("what", "is", "budget", "met"):
        table.add_column(title)
    for row in rows:
        for metric in row["metrics"]:
            budget = metric["budget"]
            if budget is not None:
                table.add_row(f"{row['key']}: {metric['title']}", *budget_cells(metric, budget))
    return table


def budget_cells(metric: dict[str, Any], budget: dict[str, Any]) -> tuple[str, str, str]:
    """Return what a figure is, what it has to be and whether it is."""
    bound = "at least" if metric["more_is_better"] else "at most"
    of = f" times {budget['times']}" if budget["times"] else ""
    met = "yes" if budget["met"] else "[bold red]no[/]"
    return number(budget["is"]), f"{bound} {number(budget['limit'])}{of}", met


def number(value: float) -> str:
    """Return a figure with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
