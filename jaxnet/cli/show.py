"""Compare finished training runs: network, data, the options in which they differ, accuracies, seconds, parameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxnet.cli.common_options import OptionalPath, check_writable, computed_default
from jaxnet.common.progress_line import progress_line
from jaxnet.train import run_folder
from jaxnet.train.trained_run import read_summary

ACCURACIES = {"train": "train_accuracy", "valid.": "validation_accuracy", "test": "test_accuracy"}
COMPARED_ELSEWHERE = ("network", "dataset", "steps")  # options that have a column in any case


@dataclass(frozen=True)
class Options:
    """Compare training runs."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, computed_default("[FOLDER ...]")] = ()
    """Folders of finished runs of jaxnet train. Defaults to all in the folder runs."""
    plot: OptionalPath = None
    """PNG file in which the learning curves of all runs are drawn."""


def main(options: Options) -> None:
    """Prints a table with a row for each run, and draws their learning curves."""
    check_writable("plot", options.plot)
    folders = options.folders or tuple(sorted(path.parent for path in Path("runs").glob(f"*/{run_folder.SUMMARY}")))
    if not folders:
        raise ValueError("folders: none, and no finished run in runs; name the folders of runs")
    summaries = {str(folder): read_summary(folder) for folder in folders}
    print(table(summaries))
    if options.plot:
        with progress_line(f"drawing {options.plot}"):
            from jaxnet import plots  # imports matplotlib

            histories = {folder: run_folder.read_history(Path(folder, run_folder.HISTORY)) for folder in summaries}
            plots.save(plots.run_curves(histories), options.plot)


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Returns the rows of all runs below their header, with columns of equal width."""
    all_options = [summary.get("options", {}) for summary in summaries.values()]
    names = list(dict.fromkeys(name for options in all_options for name in options if name not in COMPARED_ELSEWHERE))
    differing = [name for name in names if len({str(options.get(name, "")) for options in all_options}) > 1]
    accuracies = [label for label, key in ACCURACIES.items() if any(key in summary for summary in summaries.values())]
    header = ["run", "network", "data", *differing, "steps", *accuracies, "seconds", "parameters", ""]
    rows = [header]
    for folder, summary in summaries.items():
        options = summary.get("options", {})
        fault = "diverged" if summary.get("diverged") else "learned nothing" if summary.get("learned_nothing") else ""
        rows.append(
            [
                folder, str(summary.get("network", "")), str(summary.get("dataset", "")),
                *(str(options.get(name, "")) for name in differing), number(summary.get("steps"), ","),
                *(number(summary.get(ACCURACIES[label]), ".2%") for label in accuracies),
                number(summary.get("seconds"), ".1f"), number(summary.get("parameters"), ","), fault,
            ]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def number(value: Any, form: str) -> str:
    """Returns a number of a summary as text, or nothing if an older version did not write it."""
    return format(value, form) if isinstance(value, int | float) else ""
