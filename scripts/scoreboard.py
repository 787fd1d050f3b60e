"""Gradient checkers side by side, on the planted bugs and the right layers of `tests/mutants`.

This project's checker; `jax.test_util.check_grads`; `torch.autograd.gradcheck`, slow and fast, where PyTorch is
installed; the book's mean difference; and the elementwise relative error of courses. All see the same layers at the
same inputs, without a reference. `--growth` shows instead how this checker's cost grows with the number of parameters.
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
from ending import check_writable, one_line
from jax.test_util import check_grads
from options import File, check_seed
from progress import counted

import numpy_ref
from jaxnet.checks import check_counts
from jaxnet.crosscheck import check_layer, inspected
from jaxnet.crosscheck.inspect import Checkable, Leaves

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from mutants import CASES

Answer = Literal["right", "wrong", "unsure"]
BOOK_STEP, BOOK_LIMIT = 1e-4, 1e-6  # the book's h; it prints the mean difference and leaves the limit to the reader
COURSE_STEP, COURSE_LIMIT = 1e-5, 1e-6  # relative error above which a course's notes say "probably wrong"


@dataclass(frozen=True)
class Options:
    """Compare gradient checkers."""

    draws: int = 1
    """Of shapes, values and scales for each case."""
    dtype: Literal["float64", "float32"] = "float64"
    seed: int = 0
    output: File = None
    """Write the counts as JSON here, too."""
    growth: bool = False
    """Instead: forward passes and seconds for layers of 10³ to 10⁷ parameters."""


def ours(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """`jaxnet.crosscheck.check_layer`, with its defaults."""
    verdict = check_layer(layer, *inputs).verdict
    return {"PASS": "right", "FAIL": "wrong", "INCONCLUSIVE": "unsure"}[verdict]  # type: ignore[return-value]


def by_jax(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """`check_grads`, the layer called back from a `custom_vjp`."""
    subject = inspected(layer, *inputs)
    names, y = list(subject.leaves), subject.forward(subject.leaves)

    @jax.custom_vjp
    def f(*leaves: Any) -> Any:
        return jax.pure_callback(
            lambda *given: forward(subject, names, given), jax.eval_shape(lambda: jnp.asarray(y)), *leaves
        )

    def backward(leaves: Any, dout: Any) -> Any:
        shapes = jax.eval_shape(lambda *given: given, *leaves)
        return jax.pure_callback(lambda given, d: gradients(subject, names, given, d), shapes, leaves, dout)

    f.defvjp(lambda *leaves: (f(*leaves), leaves), backward)
    with jax.enable_x64(True):
        leaves = tuple(jnp.asarray(leaf) for leaf in subject.leaves.values())
        try:
            check_grads(f, leaves, order=1, modes=("rev",))  # type: ignore[no-untyped-call]
        except Exception:
            return "wrong"
    return "right"


def by_torch(fast: bool) -> Callable[[Any, tuple[Any, ...]], Answer]:
    """`gradcheck` with its defaults, the layer in a `torch.autograd.Function`."""
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
    """Central differences of <dout, y> for every element, and one number made of them."""

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
            if wrong(np.asarray(gradient), numerical):  # as it is written: shapes that broadcast are not noticed
                return "wrong"
        return "right"

    return check


def mean_difference(claimed: np.ndarray, numerical: np.ndarray) -> bool:
    """The book's: the mean of the absolute differences."""
    return bool(np.abs(claimed - numerical).mean() > BOOK_LIMIT)


def relative_error(claimed: np.ndarray, numerical: np.ndarray) -> bool:
    """Courses': the largest difference over the sum of the sizes."""
    sizes = np.maximum(1e-8, np.abs(claimed) + np.abs(numerical))
    return bool(np.max(np.abs(claimed - numerical) / sizes) > COURSE_LIMIT)


def forward(subject: Checkable, names: list[str], leaves: Any) -> np.ndarray:
    """At these leaves."""
    return subject.forward(_named(subject, names, leaves))


def gradients(subject: Checkable, names: list[str], leaves: Any, dout: Any) -> tuple[Any, ...]:
    """In the order of the names."""
    found = subject.backward(_named(subject, names, leaves), np.array(dout))
    return tuple(found[name] for name in names)


def _named(subject: Checkable, names: list[str], leaves: Any) -> Leaves:
    return {n: np.array(leaf, subject.leaves[n].dtype) for n, leaf in zip(names, leaves, strict=True)}


def checkers() -> dict[str, Callable[[Any, tuple[Any, ...]], Answer]]:
    """All that can be had here."""
    found: dict[str, Callable[[Any, tuple[Any, ...]], Answer]] = {
        "jaxnet.crosscheck": ours,
        "jax check_grads": by_jax,
    }
    try:
        found |= {"torch gradcheck, slow": by_torch(fast=False), "torch gradcheck, fast": by_torch(fast=True)}
    except ImportError:
        print(
            "PyTorch is not installed here: its gradcheck is left out; `uv pip install torch` adds it", file=sys.stderr
        )
    return found | {
        "the book's mean": by_difference(BOOK_STEP, mean_difference),
        "relative error": by_difference(COURSE_STEP, relative_error),
    }


def scoreboard(options: Options) -> list[dict[str, Any]]:
    """Every checker on every case; the names of what it missed and accused."""
    tried = checkers()
    rows: dict[str, dict[str, Any]] = {
        name: {"checker": name, "caught": 0, "wrong": 0, "accused": 0, "right": 0, "unsure": 0, "seconds": 0.0}
        | {"missed": [], "accused of": []}
        for name in tried
    }
    jobs = [(case, draw) for case in CASES.values() for draw in range(options.draws)]
    for case, draw in counted(jobs, "checking", total=len(jobs)):
        for name, checker in tried.items():
            rng = np.random.default_rng([options.seed, draw])
            scale = 10 ** (rng.uniform(-3, 3) if case.right else rng.uniform(-0.5, 0.5))
            layer, inputs, _ = case.make(rng, np.dtype(options.dtype).type, scale)
            row, start = rows[name], time.perf_counter()
            with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                try:
                    answer = checker(layer, inputs)
                except Exception:
                    answer = "wrong"  # it raised: whoever runs it sees that something is off
            row["seconds"] += time.perf_counter() - start
            row["right" if case.right else "wrong"] += 1
            row["unsure"] += answer == "unsure"
            if case.right and answer == "wrong":
                row["accused"] += 1
                row["accused of"].append(case.name)
            if not case.right:
                row["caught"] += answer == "wrong"
                row["missed"] += [case.name] if answer != "wrong" else []
    return list(rows.values())


def growth() -> None:
    """An affine layer of more and more parameters: the forward passes stay, and the time is theirs."""
    print(f"{'parameters':>12} {'forward passes':>15} {'seconds':>8} {'of one forward':>15}")
    for power in range(3, 8):
        calls = 0

        class Counting(numpy_ref.Affine):
            def forward(self, x: np.ndarray) -> np.ndarray:
                nonlocal calls
                calls += 1
                return super().forward(x)

        rng = np.random.default_rng(0)
        D = 10**power // 50
        layer, x = Counting(rng.standard_normal((D, 50)), rng.standard_normal(50)), rng.standard_normal((3, D))
        start = time.perf_counter()
        layer.forward(x)
        one, calls, start = time.perf_counter() - start, 0, time.perf_counter()
        report = check_layer(layer, x)
        seconds = time.perf_counter() - start
        print(f"{D * 50 + 50:>12,} {calls:>15} {seconds:>8.2f} {seconds / one:>15.0f}  {report.verdict}", flush=True)


def main(options: Options) -> None:
    """Compare and print.

    Raises:
        ValueError: An option is out of range.
    """
    check_counts(draws=options.draws)
    check_seed(options.seed)
    check_writable("output", options.output)
    if options.growth:
        growth()
        return
    rows = scoreboard(options)
    print(f"{'':<24} {'caught':>12} {'accused':>12} {'unsure':>7} {'seconds':>8}")
    for row in rows:
        caught, accused = f"{row['caught']}/{row['wrong']}", f"{row['accused']}/{row['right']}"
        print(f"{row['checker']:<24} {caught:>12} {accused:>12} {row['unsure']:>7} {row['seconds']:>8.1f}")
    for row in rows:
        for what in ("missed", "accused of"):
            if names := sorted(set(row[what])):
                print(f"\n{row['checker']}, {what}: {', '.join(names)}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    with one_line("scoreboard.py"):
        main(tyro.cli(Options, description=__doc__))
