"""The gradient checkers of the scoreboard: functions of a layer and its inputs that return an answer."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import numpy_ref
from jaxnet.crosscheck import Verdict, check_layer, inspected

Answer = Literal["right", "wrong", "unsure"]
Checker = Callable[[Any, tuple[Any, ...]], Answer]
ANSWERS: dict[str, Answer] = {Verdict.PASS: "right", Verdict.FAIL: "wrong", Verdict.INCONCLUSIVE: "unsure"}
BOOK_STEP, BOOK_LIMIT = 1e-4, 1e-6  # the step is the book's; the book states no limit
COURSE_STEP, COURSE_LIMIT = 1e-5, 1e-6  # the limit above which a course calls a gradient "probably wrong"


class Passes:
    """The passes of a layer as functions of its leaves, which are the inputs and parameters in a fixed order."""

    def __init__(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        self.subject = inspected(layer, *inputs)
        self.leaves = list(self.subject.leaves.values())

    def forward(self, leaves: Iterable[Any]) -> np.ndarray:
        """Returns the output y."""
        return self.subject.forward(self._by_name(leaves))

    def backward(self, leaves: Iterable[Any], dout: Any) -> tuple[Any, ...]:
        """Returns the gradients of <dout, y> in the order of the leaves."""
        gradients = self.subject.backward(self._by_name(leaves), np.array(dout))
        return tuple(gradients[name] for name in self.subject.leaves)

    def _by_name(self, leaves: Iterable[Any]) -> dict[str, np.ndarray]:
        own = self.subject.leaves
        return {name: np.array(leaf, own[name].dtype) for name, leaf in zip(own, leaves, strict=True)}


def by_jaxnet(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """Runs `jaxnet.crosscheck.check_layer` with its defaults."""
    return ANSWERS[check_layer(layer, *inputs).verdict]


def by_jax(layer: Any, inputs: tuple[Any, ...]) -> Answer:
    """Runs `check_grads` on a `custom_vjp` that calls the layer."""
    passes = Passes(layer, inputs)
    y = passes.forward(passes.leaves)

    @jax.custom_vjp
    def f(*leaves: Any) -> Any:
        return jax.pure_callback(
            lambda *values: passes.forward(values), jax.eval_shape(lambda: jnp.asarray(y)), *leaves
        )

    def backward(leaves: Any, dout: Any) -> Any:
        return jax.pure_callback(passes.backward, jax.eval_shape(lambda *values: values, *leaves), leaves, dout)

    f.defvjp(lambda *leaves: (f(*leaves), leaves), backward)
    with jax.enable_x64(True):
        try:
            check_grads(f, tuple(map(jnp.asarray, passes.leaves)), order=1, modes=("rev",))  # type: ignore[no-untyped-call]
        except Exception:
            return "wrong"
    return "right"


def by_torch(fast: bool) -> Checker:
    """Returns `gradcheck` with its defaults, on a `torch.autograd.Function` that calls the layer."""
    import torch

    def check(layer: Any, inputs: tuple[Any, ...]) -> Answer:
        passes = Passes(layer, inputs)

        class Function(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, *leaves: Any) -> Any:
                ctx.save_for_backward(*leaves)
                return torch.from_numpy(np.array(passes.forward(leaf.detach().numpy() for leaf in leaves)))

            @staticmethod
            def backward(ctx: Any, dout: Any) -> Any:
                found = passes.backward((leaf.detach().numpy() for leaf in ctx.saved_tensors), dout.numpy())
                return tuple(torch.from_numpy(np.array(gradient)) for gradient in found)

        leaves = [torch.from_numpy(leaf.copy()).requires_grad_() for leaf in passes.leaves]
        try:
            passed = torch.autograd.gradcheck(Function.apply, leaves, fast_mode=fast)
        except Exception:
            return "wrong"
        return "right" if passed else "wrong"

    return check


def by_difference(step: float, wrong: Callable[[np.ndarray, np.ndarray], bool]) -> Checker:
    """Returns a checker that compares the gradient with central differences of <dout, y> by `wrong`."""

    def check(layer: Any, inputs: tuple[Any, ...]) -> Answer:
        passes = Passes(layer, inputs)
        y = passes.forward(passes.leaves)
        dout = np.asarray(np.random.default_rng(0).standard_normal(y.shape), y.dtype) if y.ndim else np.ones_like(y)
        try:
            claimed = passes.backward(passes.leaves, dout)
        except Exception:
            return "wrong"
        for i, gradient in enumerate(claimed):

            def loss(leaf: np.ndarray, i: int = i) -> float:
                return float(np.vdot(dout, passes.forward([*passes.leaves[:i], leaf, *passes.leaves[i + 1 :]])))

            numerical = numpy_ref.numerical_gradient(loss, passes.leaves[i].copy(), step)
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


def checkers() -> dict[str, Checker]:
    """Returns the checkers that are installed, by name."""
    found: dict[str, Checker] = {"jaxnet.crosscheck": by_jaxnet, "jax check_grads": by_jax}
    try:
        found |= {"torch gradcheck, slow": by_torch(fast=False), "torch gradcheck, fast": by_torch(fast=True)}
    except ImportError:
        print("PyTorch is not installed, so its gradcheck is left out; `uv pip install torch` adds it", file=sys.stderr)
    return found | {
        "the book's mean": by_difference(BOOK_STEP, mean_difference),
        "relative error": by_difference(COURSE_STEP, relative_error),
    }
