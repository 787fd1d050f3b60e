"""Compare training runs: network, data, the options in which they differ, accuracies, seconds, parameters.

A run that is not finished has a row with the steps that are saved, and the command that continues it.
"""

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
    """Folders of runs of jaxnet train. Defaults to all in the folder runs."""
    plot: OptionalPath = None
    """PNG file in which the learning curves of all finished runs are drawn."""


def main(options: Options) -> None:
    """Prints a table with a row for each run, and draws their learning curves."""
    check_writable("plot", options.plot, ".png")
    folders = options.folders or tuple(sorted(filter(is_run, Path("runs").glob("*"))))
    if not folders:
        raise ValueError("folders: none, and no run in runs; name the folders of runs, or train one with jaxnet train")
    finished = [folder for folder in folders if not run_folder.is_unfinished(folder)]
    if options.plot and not finished:
        raise ValueError(f"plot: {options.plot}, but no run is finished; leave it out")
    summaries = {str(folder): read_run(folder) for folder in folders}
    print(table(summaries))
    if options.plot:
        with progress_line(f"drawing {options.plot}"):
            from jaxnet import plots  # imports matplotlib

            histories = {
                folder: run_folder.read_history(Path(folder, run_folder.HISTORY)) for folder in map(str, finished)
            }
            plots.save(plots.run_curves(histories), options.plot)


def is_run(folder: Path) -> bool:
    """Returns whether `jaxnet train` made this folder."""
    return (folder / run_folder.SUMMARY).exists() or run_folder.is_unfinished(folder)


def read_run(folder: Path) -> dict[str, Any]:
    """Reads the summary of a run; of an unfinished run, what is known: its options and the steps that are saved.

    Raises:
        ValueError: If the folder is not one of a run.
    """
    if not run_folder.is_unfinished(folder):
        return read_summary(folder)
    options = run_folder.read_object(folder / run_folder.OPTIONS)
    options.pop(run_folder.DIGEST, None)
    network = options.get("network")
    return {
        "network": network,
        "dataset": options.get("dataset", network),
        "steps": run_folder.last_checkpoint(folder) or 0,
        "options": options,
        "unfinished": f"unfinished; continue with jaxnet train --resume {folder}",
    }


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Returns the rows of all runs below their header, with columns of equal width."""
    all_options = [(summary.get("options") or {}) for summary in summaries.values()]
    names = list(dict.fromkeys(name for options in all_options for name in options if name not in COMPARED_ELSEWHERE))
    differing = [name for name in names if len({option(options, name) for options in all_options}) > 1]
    accuracies = [label for label, key in ACCURACIES.items() if any(key in summary for summary in summaries.values())]
    header = ["run", "network", "data", *differing, "steps", *accuracies, "seconds", "parameters", ""]
    rows = [header]
    for folder, summary in summaries.items():
        options = summary.get("options") or {}
        steps = number(summary.get("steps"), ",")
        if "unfinished" in summary:
            steps += f" of {number(options.get('steps'), ',')}"
        fault = "diverged" if summary.get("diverged") else "learned nothing" if summary.get("learned_nothing") else ""
        remark = summary.get("unfinished", fault)
        rows.append(
            [
                folder, str(summary.get("network", "")), str(summary.get("dataset", "")),
                *(option(options, name) for name in differing), steps,
                *(number(summary.get(ACCURACIES[label]), ".2%") for label in accuracies),
                number(summary.get("seconds"), ".1f"), number(summary.get("parameters"), ","), remark,
            ]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def option(options: dict[str, Any], name: str) -> str:
    """Returns an option as text, or nothing if the run does not have it or left it open."""
    return "" if options.get(name) is None else str(options[name])


def number(value: Any, form: str) -> str:
    """Returns a number of a summary as text, or nothing if an older version did not write it."""
    return format(value, form) if isinstance(value, int | float) else ""
