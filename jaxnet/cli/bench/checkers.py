"""The checkers of PyTorch, JAX and SciPy, each beside `check` on the very same function of its framework."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxnet.cli.bench.check_layers import CheckedLayer
from jaxnet.crosscheck import check, check_function

Check = Callable[[], bool | None]  # runs once; returns whether it passes the gradient, None if that is not decided
ERROR = 1.01  # by which the gradient of one leaf is multiplied


class Calls:
    """The number of forward and backward passes that ran."""

    def __init__(self) -> None:
        self.forward, self.backward = 0, 0

    def count_forward(self) -> None:
        """Counts a forward pass."""
        self.forward += 1

    def count_backward(self) -> None:
        """Counts a backward pass."""
        self.backward += 1


class Subject(NamedTuple):
    """A layer at one size, whose gradient is right or wrong in one leaf.

    Attributes:
        layer: The layer.
        arrays: The float64 values of its leaves.
        wrong: Whether the gradient of `layer.wrong` is 1 % too large.
        calls: Counts the passes; None while they are timed, because counting compiled passes of JAX takes time.
    """

    layer: CheckedLayer
    arrays: list[np.ndarray]
    wrong: bool
    calls: Calls | None = None

    def forward(self, xp: Any, *leaves: Any, count: Callable[..., Any] = lambda call: call()) -> tuple[Any, Any]:
        """Runs the forward pass, and counts it by `count`."""
        if self.calls is not None:
            count(self.calls.count_forward)
        return self.layer.forward(xp, *leaves)

    def backward(self, xp: Any, dout: Any, cache: Any, count: Callable[..., Any] = lambda call: call()) -> list[Any]:
        """Runs the right or wrong backward pass, and counts it by `count`."""
        if self.calls is not None:
            count(self.calls.count_backward)
        gradients = list(self.layer.backward(xp, dout, cache))
        if self.wrong:
            leaf = self.layer.leaves.index(self.layer.wrong)
            gradients[leaf] = ERROR * gradients[leaf]
        return gradients


def check_torch(subject: Subject) -> dict[str, Check]:
    """Returns the checks of a `torch.autograd.Function`.

    Raises:
        ModuleNotFoundError: If PyTorch is not installed.
    """
    import torch

    class Function(torch.autograd.Function):  # type: ignore[misc]
        """The layer with its hand-written backward pass."""

        @staticmethod
        def forward(ctx: Any, *leaves: Any) -> Any:
            """Keeps the cache for backward."""
            y, ctx.cache = subject.forward(torch, *leaves)
            return y

        @staticmethod
        def backward(ctx: Any, dout: Any) -> Any:
            """Returns a gradient for each leaf."""
            return tuple(subject.backward(torch, dout, ctx.cache))

    torch.set_num_threads(1)
    leaves = [torch.from_numpy(array).requires_grad_() for array in subject.arrays]
    gradcheck = partial(torch.autograd.gradcheck, Function.apply, leaves, raise_exception=False)
    return {
        "check": lambda: bool(check(Function.apply, *leaves)),
        "gradcheck, slow": gradcheck,
        "gradcheck, fast": partial(gradcheck, fast_mode=True),
    }


def check_jax(subject: Subject) -> dict[str, Check]:
    """Returns the checks of a `jax.custom_vjp`, in float64."""
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads

    @jax.custom_vjp
    def function(*leaves: Any) -> Any:
        return subject.forward(jnp, *leaves, count=jax.debug.callback)[0]

    def forward(*leaves: Any) -> Any:
        return subject.forward(jnp, *leaves, count=jax.debug.callback)

    def backward(cache: Any, dout: Any) -> Any:
        return tuple(subject.backward(jnp, dout, cache, count=jax.debug.callback))

    function.defvjp(forward, backward)
    with jax.enable_x64(True):
        leaves = [jnp.asarray(array) for array in subject.arrays]

    def run_check() -> bool:
        report = check(function, *leaves)
        jax.effects_barrier()  # type: ignore[no-untyped-call]  # passes are counted by callbacks
        return bool(report)

    def run_check_grads() -> bool:
        with jax.enable_x64(True):
            try:
                check_grads(function, leaves, order=1, modes=["rev"])  # type: ignore[no-untyped-call]
            except AssertionError:
                return False
            finally:
                jax.effects_barrier()  # type: ignore[no-untyped-call]
        return True

    return {"check": run_check, "check_grads": run_check_grads}


def check_scipy(subject: Subject) -> dict[str, Check]:
    """Returns the checks of a scalar function of a flat vector and its gradient, as SciPy's optimizers take them.

    Raises:
        ModuleNotFoundError: If SciPy is not installed.
    """
    from scipy.optimize import check_grad

    shapes = [array.shape for array in subject.arrays]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = np.concatenate([array.ravel() for array in subject.arrays])
    output = subject.layer.forward(np, *subject.arrays)[0]
    dout = np.random.default_rng(1).standard_normal(output.shape)

    def leaves_of(v: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(v, ends[:-1]), shapes, strict=True)]

    def loss(v: np.ndarray) -> float:
        return float(np.vdot(dout, subject.forward(np, *leaves_of(v))[0]))

    def gradient(v: np.ndarray) -> np.ndarray:
        _, cache = subject.layer.forward(np, *leaves_of(v))
        return np.concatenate([each.ravel() for each in subject.backward(np, dout, cache)])

    def norm_of_error(direction: str) -> None:
        check_grad(loss, gradient, flat, direction=direction, **({"rng": 0} if direction == "random" else {}))

    return {
        "check": lambda: bool(check_function(loss, flat, gradient=gradient)),
        "check_grad": partial(norm_of_error, "all"),
        "check_grad, random": partial(norm_of_error, "random"),
    }


FRAMEWORKS: Mapping[str, Callable[[Subject], dict[str, Check]]] = {
    "torch": check_torch,
    "jax": check_jax,
    "scipy": check_scipy,
}
