"""Prints the results of a benchmark: a table with the fastest first, and why others are not in it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def make_table(
    title: str, rows: Mapping[str, Mapping[str, Any]], *, digits: int = 0, reference: str = "bound"
) -> Table:
    """Returns a table of results of `summarize` by name, with this number of decimals and ratios to the reference.

    The title has the unit.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("min", "median", f"min /\n{reference}", f"median /\n{reference}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        times, ratios = (row["min"], row["median"]), (row["min_ratio"], row["median_ratio"])
        table.add_row(name, *(f"{time:,.{digits}f}" for time in times), *(f"{ratio:.2f}" for ratio in ratios))
    return table


def show(title: str, differs: str, results: dict[str, Any], console: Console) -> None:
    """Prints a table with the fastest contender first, and a line for each one that differs or was skipped.

    Args:
        title: The title of the table, with the unit.
        differs: What is said of a contender that computes something else, with its difference as {difference}.
        results: Those of `jaxnet.cli.bench.measure`.
        console: Where to print.
    """
    bound = results["bound"]
    rows = {f"bound: {bound['by']}": bound} | results["contenders"]
    console.print(make_table(title, dict(sorted(rows.items(), key=lambda row: row[1]["median"]))))
    rate = bound["gigaflops"] / (1e-6 * bound["min"])
    console.print(f"products: {bound['gigaflops']:.3g} GFLOP; the bound computes {rate:,.1f} GFLOP/s")
    for name, row in results["contenders"].items():
        if row["min_ratio"] < 1:
            console.print(f"unsteady: {name} took less than the bound: the machine is busy; measure again")
    for name, difference in results["difference"].items():
        if difference >= results["tolerance"]:
            console.print(f"differs: {name} {differs.format(difference=difference)}; not timed")
    for name, reason in results["skipped"].items():
        console.print(f"skipped: {name}: {reason}")
