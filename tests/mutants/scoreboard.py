"""Compare gradient checkers on the planted bugs and the right layers of `tests/mutants`.

The checkers are this project's; `jax.test_util.check_grads`; `torch.autograd.gradcheck`, slow and fast, if PyTorch is
installed; the mean difference of the book; and the elementwise relative error of courses. All of them check the same
layers at the same inputs, without a reference.

`--torch` compares checkers of PyTorch code on the functions of `tests/mutants/torch_functions`. `--kinds` runs this
project's checker alone on the inputs of `tests/mutants/kinds`: the ways in which public code holds parameters, returns
gradients and computes. `--growth` shows how the checker's cost grows with the number of parameters.
Seconds are CPU time, which depends little on the load of the machine; OPENBLAS_NUM_THREADS=1 excludes waiting threads.
"""

import contextlib
import io
import json
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxnet.cli.common_options import OptionalPath, check_writable
from jaxnet.cli.progress import track
from jaxnet.common.validation import check_counts
from jaxnet.crosscheck import Verdict
from mutants import CASES
from mutants.checkers import checkers
from mutants.growth import growth

OTHER_OUTCOMES = ("REFUSED", "CRASHED", "SKIPPED")


@dataclass(frozen=True)
class Options:
    """Compare gradient checkers."""

    draws: int = 1
    """Draws of shapes, values and scales for each case."""
    dtype: Literal["float64", "float32"] = "float64"
    """The dtype of the inputs. It does not apply to --kinds and --torch."""
    seed: int = 0
    output: OptionalPath = None
    """Write the counts as JSON into this file."""
    kinds: bool = False
    """Run this project's checker alone on the kinds of input in `tests/mutants/kinds`."""
    torch: bool = False
    """Compare this project's checker with PyTorch's `gradcheck` and `gradgradcheck` on `torch.autograd.Function`s."""
    growth: bool = False
    """Count forward passes and seconds of a PASS and of a FAIL, for layers of 10² to 10⁷ parameters."""
    largest: int = 7
    """The power of ten of the number of parameters of the largest layer of --growth."""


def scoreboard(options: Options) -> list[dict[str, Any]]:
    """Runs every checker on every case; returns counts, missed bugs and right layers that failed."""
    tried = checkers()
    rows: dict[str, dict[str, Any]] = {
        name: {"checker": name, "caught": 0, "wrong": 0, "false alarms": 0, "right": 0, "unsure": 0, "seconds": 0.0}
        | {"missed": [], "falsely failed": []}
        for name in tried
    }
    jobs = [(case, draw) for case in CASES.values() for draw in range(options.draws)]
    for case, draw in track(jobs, "checking"):
        for name, checker in tried.items():
            rng = np.random.default_rng([options.seed, draw])
            scale = 10 ** (rng.uniform(-3, 3) if case.right else rng.uniform(-0.5, 0.5))
            layer, inputs, _ = case.make(rng, np.dtype(options.dtype).type, scale)
            row, start = rows[name], time.process_time()
            with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                try:
                    answer = checker(layer, inputs)
                except Exception:
                    answer = "wrong"  # a traceback also tells a user that something is wrong
            row["seconds"] += time.process_time() - start
            row["right" if case.right else "wrong"] += 1
            row["unsure"] += answer == "unsure"
            if case.right and answer == "wrong":
                row["false alarms"] += 1
                row["falsely failed"].append(case.name)
            if not case.right:
                row["caught"] += answer == "wrong"
                row["missed"] += [case.name] if answer != "wrong" else []
    return list(rows.values())


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the counts of `scoreboard`."""
    print(f"{'':<24} {'caught':>12} {'false alarms':>12} {'unsure':>7} {'CPU s':>8}")
    for row in rows:
        caught, false_alarms = f"{row['caught']}/{row['wrong']}", f"{row['false alarms']}/{row['right']}"
        print(f"{row['checker']:<24} {caught:>12} {false_alarms:>12} {row['unsure']:>7} {row['seconds']:>8.1f}")
    for row in rows:
        for what in ("missed", "falsely failed"):
            if names := sorted(set(row[what])):
                print(f"\n{row['checker']}, {what}: {', '.join(names)}")


def on_kinds(options: Options) -> dict[str, Any]:
    """Runs this project's checker on every kind of input; returns counts, and the unexpected results."""
    from mutants.kinds import KINDS
    from mutants.kinds.scoring import outcome

    counts = {right: dict.fromkeys((*Verdict, *OTHER_OUTCOMES), 0) for right in (False, True)}
    short: list[dict[str, Any]] = []
    jobs = [(kind, options.seed + draw) for kind in KINDS.values() for draw in range(options.draws)]
    start = time.process_time()
    for kind, seed in track(jobs, "checking"):
        with contextlib.redirect_stderr(io.StringIO()):
            result = outcome(kind, seed)
        counts[kind.right][result.verdict] += 1
        if why := result.shortfalls(kind):
            short.append({"kind": kind.name, "seed": seed, "why": why, "sentence": kind.sentence})
    names = {False: "wrong", True: "right"}
    return {
        **{names[right]: {str(k): n for k, n in found.items()} for right, found in counts.items()},
        "as expected": len(jobs) - len(short),
        "of": len(jobs),
        "seconds": time.process_time() - start,
        "not as expected": short,
    }


def show_kinds(found: dict[str, Any]) -> None:
    """Prints the counts of `on_kinds`."""
    columns = (*Verdict, *OTHER_OUTCOMES)
    print(f"{'':<16}" + "".join(f"{column:>14}" for column in columns))
    for row in ("wrong", "right"):
        print(f"{row + ' gradients':<16}" + "".join(f"{found[row][column]:>14}" for column in columns))
    print(f"{found['as expected']} of {found['of']} as expected, in {found['seconds']:.0f} s of CPU time")
    for short in found["not as expected"]:
        print(f"\n{short['kind']}, seed {short['seed']}: {'; '.join(short['why'])}\n  {short['sentence']}")


def on_torch_functions(options: Options) -> list[dict[str, Any]]:
    """Runs the checkers of PyTorch code on `torch.autograd.Function`s.

    Raises:
        ValueError: If PyTorch is not installed.
    """
    try:
        from mutants.torch_scoreboard import torch_scoreboard
    except ModuleNotFoundError as error:
        raise ValueError("torch: PyTorch is not installed; `uv pip install torch` adds it") from error
    return torch_scoreboard(options.draws, options.seed)


def main(options: Options) -> None:
    """Runs the comparison and prints it.

    Raises:
        ValueError: If an option is out of range.
    """
    check_counts(draws=options.draws)
    check_counts(2, largest=options.largest)
    check_writable("output", options.output)
    if options.growth + options.kinds + options.torch > 1:
        raise ValueError("growth, kinds, torch: pass only one of them")
    rows: Any
    if options.growth:
        rows = growth(options.largest)
    elif options.kinds:
        rows = on_kinds(options)
        show_kinds(rows)
    elif options.torch:
        rows = on_torch_functions(options)
        show(rows)
    else:
        rows = scoreboard(options)
        show(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
