"""Draws right and wrong layers at random and counts the verdicts: run `python -m fuzz GROUP FIRST COUNT` in `tests`.

A trial is a group and a seed; `python -m fuzz GROUP SEED 1 --show` repeats it and prints the report. Nothing is drawn
from the checker's streams. A wrong trial is a right one with an error added to one leaf, so that the size of the error
is known exactly.
"""

import argparse
import contextlib
import json
import math
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fuzz.corpus import GROUPS
from fuzz.trials import TRIAL_SECONDS, Trial
from jaxnet.crosscheck import Report, SubjectError
from jaxnet.crosscheck.decide import Cause

ZERO = 1e-9  # the largest norm of a gradient that counts as zero; outputs are of order 1


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError after a number of seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"{seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def trial(group: str, seed: int) -> Trial:
    """Returns the trial of a seed."""
    return GROUPS[group](np.random.default_rng([list(GROUPS).index(group), seed, 77]), seed)


def outcome(group: str, seed: int, show: bool = False) -> dict[str, Any]:
    """Runs a trial and returns its verdict, its cost, and whether the verdict is a violation."""
    start, report, about, right, text = time.perf_counter(), None, "", True, ""
    drawn: Trial | None = None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            with limited(TRIAL_SECONDS):
                drawn = trial(group, seed)
                about, right = drawn.about, drawn.right
                report = drawn.run()
                verdict, text = str(report.verdict.value), report.text(width=None)
                violation, measure = _violation(drawn, report)
        except SubjectError as error:
            verdict, text, violation, measure = "REFUSED", str(error), "", ""
        except TimeoutError as error:
            verdict, text, violation, measure = "HUNG", str(error), "hung", ""
        except ImportError as error:
            verdict, text, violation, measure = "SKIPPED", str(error), "", ""
        except Exception as error:  # counted as a crash
            verdict, text, violation, measure = "CRASHED", f"{type(error).__name__}: {error}", "crashed", ""
    if show:
        truth = drawn.truth() if drawn is not None and drawn.truth else None
        print(
            about,
            f"the right gradient's distance to JAX's: {truth}",
            report.details() if report is not None else text,
            measure,
            violation,
            sep="\n",
        )
    causes = sorted({leaf.cause.name for leaf in report.leaves if leaf.verdict != "PASS"}) if report is not None else []
    return {
        "group": group, "seed": seed, "right": right, "verdict": verdict, "violation": violation, "measure": measure,
        "about": about, "causes": causes, "calls": report.calls if report is not None else 0,
        "seconds": round(time.perf_counter() - start, 3), "text": text[:500] if verdict != "PASS" or violation else "",
    }  # fmt: skip


def _violation(drawn: Trial, report: Report) -> tuple[str, str]:
    """Returns the violation in a report, if there is one, and the numbers that show it."""
    verdict = str(report.verdict.value)
    if verdict in drawn.allowed:
        return "", ""
    if drawn.right:
        return {"FAIL": "false alarm", "INCONCLUSIVE": "", "PASS": ""}[verdict], ""
    if verdict == "FAIL" and drawn.leaf:
        others = [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL" and leaf.name != drawn.leaf]
        return ("false alarm in a right leaf", " ".join(others)) if others or report.behaviour else ("", "")
    return _certified(drawn, report) if verdict == "PASS" else ("", "")


def _certified(drawn: Trial, report: Report) -> tuple[str, str]:
    """Returns the violation in a PASS of a wrong gradient: its error is larger than the certificate allows."""
    error, norm = drawn.error() if drawn.error else (math.nan, math.nan)
    if not drawn.leaf:
        relative = max((leaf.min_detectable_error for leaf in report.leaves), default=math.nan)
        return ("certified" if not error < 1e-8 else ""), f"relative error {error:.1e}, detects {relative:.1e} absolute"
    leaf = next(leaf for leaf in report.leaves if leaf.name == drawn.leaf)
    measure = f"{leaf.name}: error {error:.2e} of {norm:.2e}, detects {leaf.min_detectable_error:.2e}"
    if error == 0 or (leaf.cause is Cause.ZERO_EVERYWHERE and norm < ZERO):
        return "", measure
    if math.isnan(leaf.min_detectable_error):
        return "certified without a size", measure
    if error <= leaf.min_detectable_error:
        return "", measure
    measure += f", {leaf.compared} of {leaf.size} elements compared"
    return ("certified" if leaf.compared == leaf.size else "passed, but not all elements were compared"), measure


def main() -> None:
    """Runs trials and prints one line of JSON for each, or prints a summary of files of such lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", help="a group, or the word `summary`")
    parser.add_argument("first", nargs="?", type=int, default=0)
    parser.add_argument("count", nargs="?", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no trial starts after this time")
    parser.add_argument("--show", action="store_true", help="prints the reports")
    parser.add_argument("--files", nargs="*", default=[], help="the files that `summary` reads")
    options = parser.parse_args()
    if options.group == "summary":
        summary(options.files)
        return
    start = time.perf_counter()
    for seed in range(options.first, options.first + options.count):
        if time.perf_counter() - start > options.seconds:
            break
        result = outcome(options.group, seed, options.show)
        if not options.show:
            print(json.dumps(result), flush=True)
        if seed % 400 == 399:
            jax.clear_caches()


def summary(files: list[str]) -> None:
    """Prints counts by group, and every violation."""
    rows = [json.loads(line) for name in files for line in Path(name).read_text().splitlines()]
    for group in GROUPS:
        own = [row for row in rows if row["group"] == group]
        if not own:
            continue
        seconds, calls = (sum(row[key] for row in own) / len(own) for key in ("seconds", "calls"))
        print(f"{group}: {len(own)} trials, {calls:.0f} calls and {seconds:.2f} s each")
        for right in (True, False):
            counts = Counter(row["verdict"] for row in own if row["right"] is right)
            print(f"  {'right' if right else 'wrong'}: {dict(counts)}")
    print(dict(Counter(row["violation"] for row in rows if row["violation"])))
    for row in rows:
        if row["violation"]:
            print(f"{row['violation']}: python -m fuzz {row['group']} {row['seed']} 1 --show")
            print(f"    {row['about'][:150]}  {row['measure']} {row['causes']}")


if __name__ == "__main__":
    sys.exit(main())
