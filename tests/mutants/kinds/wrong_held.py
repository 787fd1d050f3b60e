"""Parameters held by callable objects, closures, partials and modules, whose gradients are wrong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check, check_function, check_layer
from mutants.kinds import Draw, wrong
from mutants.kinds.truth import Measuring


def ruled(f, bwd):
    """Returns f with a reverse rule of (arguments, dout)."""
    g = jax.custom_vjp(f)
    g.defvjp(lambda *args: (f(*args), args), bwd)
    return g


wrong_scale = ruled(lambda x, w: x * w, lambda r, g: (g * r[1], -3 * jnp.sum(g * r[0], 0)))
wrong_dense = ruled(lambda x, w, b: jnp.tanh(x @ w + b), lambda r, g: _dense_bwd(r, g))


def _dense_bwd(r, g):
    x, w, b = r
    d = g * (1 - jnp.tanh(x @ w + b) ** 2)
    return d @ w.T, x.T @ d, d.mean(0)  # a mean instead of the sum


def scale_error(seed):
    """Returns the error of the rule in the cases, with w as an argument."""
    return Measuring(seed, 1e-3).check_function(wrong_scale, Draw(seed)(5, 3), Draw(seed + 1)(3))


def dense_error(seed):
    """Returns the error of the dense rule, with its parameters as arguments."""
    draw = Draw(seed)
    return Measuring(seed, 1e-3).check_function(wrong_dense, draw(5, 4), draw(4, 3), draw(3))


@wrong(
    "missing/callable-object",
    "An object with __call__ holds w as a plain attribute; its gradient has the wrong sign.",
    undecided=True,
    says=r"\bw\b",
    true=scale_error,
)
def _(seed):
    draw = Draw(seed)

    class Scale:
        def __init__(self, w):
            self.w = w

        def __call__(self, x):
            return wrong_scale(x, self.w)

    return check_function(Scale(jnp.asarray(draw(4))), draw(6, 4))


@wrong(
    "missing/partial",
    "functools.partial holds w, whose gradient is wrong.",
    undecided=True,
    says=r"\bw\b",
    true=scale_error,
)
def _(seed):
    draw = Draw(seed)
    return check_function(functools.partial(wrong_scale, w=jnp.asarray(draw(3))), draw(5, 3))


@wrong(
    "missing/closure", "A closure holds w, whose gradient is wrong.", undecided=True, says=r"\bw\b", true=scale_error
)
def _(seed):
    draw = Draw(seed)
    w = jnp.asarray(draw(3))

    def f(x):
        return wrong_scale(x, w)

    return check_function(f, draw(5, 3))


def closure_error(seed):
    """Returns the error of a missing gradient for W, which is 1 if W affects the output."""
    draw = Draw(seed)
    x, W = draw(5, 4), draw(4, 3)
    moved = np.tanh(x @ (W + 1e-3)) - np.tanh(x @ W)
    return float(np.abs(moved).max() > 1e-6)


@wrong(
    "missing/numpy-closure",
    "Weights are variables of the enclosing function, and no gradient is returned for them.",
    undecided=True,
    says=r"\bW\b",
    true=closure_error,
)
def _(seed):
    draw = Draw(seed)
    n, d, m = draw.sizes(3)
    W = draw(d, m)

    def forward(x):
        return np.tanh(x @ W), (x, np.tanh(x @ W))

    def backward(dout, cache):
        return dout * (1 - cache[1] ** 2) @ W.T

    return check_layer((forward, backward), draw(n, d))


@wrong(
    "missing/registered-module",
    "A module that is a pytree is called with x; the gradient of its bias is a mean instead of a sum.",
    says=r"\bb\b",
    undecided=True,
    true=dense_error,
)
def _(seed):
    draw = Draw(seed)

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Dense:
        w: jax.Array
        b: jax.Array

        def __call__(self, x):
            return wrong_dense(x, self.w, self.b)

    return check(Dense(jnp.asarray(draw(4, 3)), jnp.asarray(draw(3))), draw(5, 4))


@wrong(
    "missing/nested-module",
    "A module within a module holds the weight with the wrong gradient.",
    undecided=True,
    says=r"\bw\b",
    true=scale_error,
)
def _(seed):
    draw = Draw(seed)

    class Inner:
        def __init__(self, w):
            self.w = w

        def __call__(self, x):
            return wrong_scale(x, self.w)

    class Outer:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, x):
            return jnp.sin(self.inner(x))

    return check_function(Outer(Inner(jnp.asarray(draw(4)))), draw(3, 4))


@wrong(
    "missing/bound-method",
    "The check gets a bound method, and the gradient of its object's weight is wrong.",
    undecided=True,
    says=r"\bw\b",
    true=scale_error,
)
def _(seed):
    draw = Draw(seed)

    class Model:
        def __init__(self, w):
            self.w = w

        def apply(self, x):
            return wrong_scale(x, self.w)

    return check_function(Model(jnp.asarray(draw(4))).apply, draw(3, 4))


@wrong(
    "missing/default-argument",
    "The weight is a default argument, and its gradient is wrong.",
    undecided=True,
    says=r"\bw\b",
    true=scale_error,
)
def _(seed):
    draw = Draw(seed)

    def f(x, w=jnp.asarray(draw(4))):  # noqa: B008
        return wrong_scale(x, w)

    return check_function(f, draw(3, 4))
