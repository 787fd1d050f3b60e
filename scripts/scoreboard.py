"""Compare gradient checkers on the planted bugs and the right layers of `tests/mutants`.

The checkers are this project's; `jax.test_util.check_grads`; `torch.autograd.gradcheck`, slow and fast, if PyTorch is
installed; the mean difference of the book; and the elementwise relative error of courses. All of them check the same
layers at the same inputs, without a reference.

`--kinds` runs this project's checker alone on the inputs of `tests/mutants/kinds`: the ways in which public code holds
parameters, returns gradients and computes. `--growth` shows how the checker's cost grows with the number of parameters.
Seconds are CPU time, which depends little on the load of the machine; OPENBLAS_NUM_THREADS=1 excludes waiting threads.
"""

import contextlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.test_util import check_grads

import numpy_ref
from jaxnet.cli.common_options import OptionalPath, check_seed, check_writable
from jaxnet.cli.errors import one_line_errors
from jaxnet.cli.progress import track
from jaxnet.crosscheck import Verdict, check_layer, inspected
from jaxnet.crosscheck.inspect.checkable import Checkable, Leaves
from jaxnet.validation import check_counts

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from mutants import CASES

Answer = Literal["right", "wrong", "unsure"]
ANSWERS: dict[str, Answer] = {Verdict.PASS: "right", Verdict.FAIL: "wrong", Verdict.INCONCLUSIVE: "unsure"}
OTHER_OUTCOMES = ("REFUSED", "CRASHED", "SKIPPED")
BOOK_STEP, BOOK_LIMIT = 1e-4, 1e-6  # the step is the book's; the book states no limit
COURSE_STEP, COURSE_LIMIT = 1e-5, 1e-6  # the limit above which a course calls a gradient "probably wrong"


@dataclass(frozen=True)
class Options:
    """Compare gradient checkers."""

    draws: int = 1
    """Draws of shapes, values and scales for each case."""
    dtype: Literal["float64", "float32"] = "float64"
    """The dtype of the inputs. It does not apply to --kinds."""
    seed: int = 0
    output: OptionalPath = None
    """Write the counts as JSON into this file."""
    kinds: bool = False
    """Run this project's checker alone on the kinds of input in `tests/mutants/kinds`."""
    growth: bool = False
    """Count forward passes and seconds of a PASS and of a FAIL, for layers of 10² to 10⁷ parameters."""
    largest: int = 7
    """The power of ten of the number of parameters of the largest layer of --growth."""


def by_jaxnet(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """Runs `jaxnet.crosscheck.check_layer` with its defaults."""
    return ANSWERS[check_layer(layer, *inputs).verdict]


def by_jax(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """Runs `check_grads` on a `custom_vjp` that calls the layer."""
    subject = inspected(layer, *inputs)
    names, y = list(subject.leaves), subject.forward(subject.leaves)

    @jax.custom_vjp
    def f(*leaves: Any) -> Any:
        return jax.pure_callback(
            lambda *values: forward(subject, names, values), jax.eval_shape(lambda: jnp.asarray(y)), *leaves
        )

    def backward(leaves: Any, dout: Any) -> Any:
        shapes = jax.eval_shape(lambda *values: values, *leaves)
        return jax.pure_callback(lambda values, d: gradients(subject, names, values, d), shapes, leaves, dout)

    f.defvjp(lambda *leaves: (f(*leaves), leaves), backward)
    with jax.enable_x64(True):
        leaves = tuple(jnp.asarray(leaf) for leaf in subject.leaves.values())
        try:
            check_grads(f, leaves, order=1, modes=("rev",))  # type: ignore[no-untyped-call]
        except Exception:
            return "wrong"
    return "right"


def by_torch(fast: bool) -> Callable[[Any, tuple[Any, ...]], Answer]:
    """Returns `gradcheck` with its defaults, on a `torch.autograd.Function` that calls the layer."""
    import torch

    def check(layer: Any, inputs: tuple[Any, ...]) -> Answer:
        subject = inspected(layer, *inputs)
        names = list(subject.leaves)

        class Function(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, *leaves: Any) -> Any:
                ctx.save_for_backward(*leaves)
                return torch.from_numpy(np.array(forward(subject, names, [leaf.detach().numpy() for leaf in leaves])))

            @staticmethod
            def backward(ctx: Any, dout: Any) -> Any:
                found = gradients(subject, names, [leaf.detach().numpy() for leaf in ctx.saved_tensors], dout.numpy())
                return tuple(torch.from_numpy(np.array(gradient)) for gradient in found)

        leaves = [torch.from_numpy(leaf.copy()).requires_grad_() for leaf in subject.leaves.values()]
        try:
            passed = torch.autograd.gradcheck(Function.apply, leaves, fast_mode=fast)
        except Exception:
            return "wrong"
        return "right" if passed else "wrong"

    return check


def by_difference(step: float, wrong: Callable[[np.ndarray, np.ndarray], bool]) -> Callable[..., Answer]:
    """Returns a checker that compares the gradient with central differences of <dout, y> by `wrong`."""

    def check(layer: Any, inputs: tuple[Any, ...]) -> Answer:
        subject = inspected(layer, *inputs)
        names, y = list(subject.leaves), subject.forward(subject.leaves)
        dout = np.asarray(np.random.default_rng(0).standard_normal(y.shape), y.dtype) if y.ndim else np.ones_like(y)
        try:
            claimed = gradients(subject, names, list(subject.leaves.values()), dout.copy())
        except Exception:
            return "wrong"
        for name, gradient in zip(names, claimed, strict=True):
            leaf = subject.leaves[name].copy()

            def loss(x: np.ndarray, name: str = name) -> float:
                return float(np.vdot(dout, subject.forward(subject.leaves | {name: x})))

            numerical = numpy_ref.numerical_gradient(loss, leaf, step)
            if wrong(np.asarray(gradient), numerical):  # such checkers do not notice shapes that broadcast
                return "wrong"
        return "right"

    return check


def mean_difference(claimed: np.ndarray, numerical: np.ndarray) -> bool:
    """Returns whether the mean of the absolute differences, as in the book, exceeds its limit."""
    return bool(np.abs(claimed - numerical).mean() > BOOK_LIMIT)


def relative_error(claimed: np.ndarray, numerical: np.ndarray) -> bool:
    """Returns whether the largest elementwise relative error, as in courses, exceeds its limit."""
    sizes = np.maximum(1e-8, np.abs(claimed) + np.abs(numerical))
    return bool(np.max(np.abs(claimed - numerical) / sizes) > COURSE_LIMIT)


def forward(subject: Checkable, names: list[str], leaves: Any) -> np.ndarray:
    """Runs the forward pass at these leaves."""
    return subject.forward(_named(subject, names, leaves))


def gradients(subject: Checkable, names: list[str], leaves: Any, dout: Any) -> tuple[Any, ...]:
    """Returns the gradients in the order of the names."""
    found = subject.backward(_named(subject, names, leaves), np.array(dout))
    return tuple(found[name] for name in names)


def _named(subject: Checkable, names: list[str], leaves: Any) -> Leaves:
    return {n: np.array(leaf, subject.leaves[n].dtype) for n, leaf in zip(names, leaves, strict=True)}


def checkers() -> dict[str, Callable[[Any, tuple[Any, ...]], Answer]]:
    """Returns the checkers that are installed."""
    found: dict[str, Callable[[Any, tuple[Any, ...]], Answer]] = {
        "jaxnet.crosscheck": by_jaxnet,
        "jax check_grads": by_jax,
    }
    try:
        found |= {"torch gradcheck, slow": by_torch(fast=False), "torch gradcheck, fast": by_torch(fast=True)}
    except ImportError:
        print("PyTorch is not installed, so its gradcheck is left out; `uv pip install torch` adds it", file=sys.stderr)
    return found | {
        "the book's mean": by_difference(BOOK_STEP, mean_difference),
        "relative error": by_difference(COURSE_STEP, relative_error),
    }


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


class Unexplained(numpy_ref.Affine):
    """An affine layer with a random error of 1 % in dW: no slip explains it, so all of them are tried."""

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """Returns dx, which is right."""
        dx = super().backward(dout)
        self.dW = self.dW * (1 + 0.01 * np.random.default_rng(0).standard_normal(self.dW.shape))
        return dx


def growth(largest: int) -> list[dict[str, Any]]:
    """Checks right and wrong affine layers of increasing size; prints and returns the cost."""
    rows: list[dict[str, Any]] = []
    print(f"{'parameters':>12}  {'gradient':<10} {'verdict':<13} {'forward passes':>15} {'CPU s':>8}")
    for power in range(2, largest + 1):
        for what, kind in (("right", numpy_ref.Affine), ("dW 1 % off", Unexplained)):
            rng = np.random.default_rng(0)
            D = 10**power // 50 - 1
            layer, x = kind(rng.standard_normal((D, 50)), rng.standard_normal(50)), rng.standard_normal((3, D))
            start = time.process_time()
            report = check_layer(layer, x)
            row = {
                "parameters": 10**power,
                "gradient": what,
                "verdict": str(report.verdict),
                "calls": report.calls,
                "seconds": time.process_time() - start,
            }
            rows.append(row)
            print(
                "{parameters:>12,}  {gradient:<10} {verdict:<13} {calls:>15,} {seconds:>8.2f}".format(**row), flush=True
            )
    return rows


def main(options: Options) -> None:
    """Runs the comparison and prints it.

    Raises:
        ValueError: If an option is out of range.
    """
    check_counts(draws=options.draws)
    check_counts(2, largest=options.largest)
    check_seed(options.seed)
    check_writable("output", options.output)
    if options.growth and options.kinds:
        raise ValueError("growth, kinds: pass only one of the two")
    rows: Any
    if options.growth:
        rows = growth(options.largest)
    elif options.kinds:
        rows = on_kinds(options)
        show_kinds(rows)
    else:
        rows = scoreboard(options)
        show(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


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


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options, description=__doc__))
