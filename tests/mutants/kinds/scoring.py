"""Runs kinds and reports which of them do not get the expected result."""

import re
import time
import warnings
from typing import NamedTuple

from jaxnet.crosscheck import SubjectError
from mutants.kinds import KINDS, Kind


class Outcome(NamedTuple):
    """The outcome of a kind: a verdict, REFUSED, SKIPPED or CRASHED, and the text of the report."""

    verdict: str
    text: str
    seconds: float

    def shortfalls(self, kind: Kind) -> list[str]:
        """Returns what is not as expected, in words."""
        if self.verdict == "SKIPPED":
            return []
        if self.verdict not in kind.allowed:
            return [f"{self.verdict}, expected {' or '.join(sorted(kind.allowed))}"]
        short = []
        if kind.says and not re.search(kind.says, self.text):
            short.append(f"does not say {kind.says!r}")
        if kind.never and re.search(kind.never, self.text):
            short.append(f"says {kind.never!r}")
        return short


def outcome(kind: Kind, seed: int = 0) -> Outcome:
    """Runs a kind and returns its outcome, also if it raises an error."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = kind.run(seed)
            verdict, text = str(getattr(report.verdict, "value", report.verdict)), report.text(width=None)
        except SubjectError as error:
            verdict, text = "REFUSED", str(error)
        except ImportError as error:
            verdict, text = "SKIPPED", str(error)
        except Exception as error:  # counted as a crash
            verdict, text = "CRASHED", f"{type(error).__name__}: {error}"
    return Outcome(verdict, text, time.perf_counter() - start)


def score(only: str = "", seeds: int = 1) -> bool:
    """Prints the kinds that are not as expected, and totals; returns whether there are any."""
    chosen = [kind for kind in KINDS.values() if only in kind.name]
    counts: dict[tuple[bool, str], int] = {}
    short = 0
    start = time.perf_counter()
    for kind in chosen:
        for seed in range(seeds):
            result = outcome(kind, seed)
            key = kind.right, result.verdict
            counts[key] = counts.get(key, 0) + 1
            why = result.shortfalls(kind)
            if why:
                short += 1
                print(f"{kind.name} (seed {seed}, {result.seconds:.1f} s): {'; '.join(why)}\n    {kind.sentence}")
                print(f"    {' / '.join(line.strip() for line in result.text.splitlines()[:3])[:260]}", flush=True)
    for (right, verdict), count in sorted(counts.items()):
        print(f"{'right' if right else 'wrong'} {verdict}: {count}")
    total = sum(counts.values())
    print(f"{total - short} of {total} as expected, {short} not, in {time.perf_counter() - start:.0f} s")
    return bool(short)
