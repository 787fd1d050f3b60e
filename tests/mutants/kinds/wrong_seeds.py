"""Wrong gradients that vanish along x or along numbers that a user draws, so that they are not noticed if dout is x."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check, check_function, check_layer
from mutants.kinds import wrong


def with_rule(f, bwd):
    """Returns f with a reverse rule of its own, of (x, dout)."""
    ruled = jax.custom_vjp(f)
    ruled.defvjp(lambda x: (f(x), x), lambda x, g: (bwd(x, g),))
    return ruled


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@wrong("seeds/l2norm-zeros", "The gradient of a row normalisation is zeros; x is default_rng(seed).standard_normal.")
def _(seed):
    x = np.random.default_rng(seed).standard_normal((6, 3))
    return check_function(unit, x, gradient=lambda x, dout: np.zeros_like(x), seed=seed)


@wrong("seeds/l2norm-column-zeros-jax", "A custom rule for a normalisation by column returns zeros.")
def _(seed):
    f = with_rule(lambda x: x / jnp.linalg.norm(x, axis=0), lambda x, g: 0 * g)
    return check(f, np.random.default_rng(seed).normal(size=(4, 5)), seed=seed)


@wrong("seeds/projection-dropped", "A unit vector's gradient is multiplied by the norm that should divide it.")
def _(seed):
    def forward(x):
        r = np.sqrt((x**2).sum())
        return x / r, (x, r)

    def backward(dout, cache):
        x, r = cache
        return (dout - (dout * x).sum() * x / r**2) * r  # times r, which should divide

    return check_layer((forward, backward), np.random.default_rng(seed).normal(size=7), seed=seed)


@wrong("seeds/rmsnorm-shape-drawn", "RMSNorm whose backward lacks its 1 / r; x is drawn by the checker.")
def _(seed):
    def forward(x):
        r = np.sqrt((x**2).mean(-1, keepdims=True))
        return x / r, (x, r)

    def backward(dout, cache):
        x, r = cache
        return dout - (dout * x).mean(-1, keepdims=True) * x / r**2  # 1/r is missing

    return check_layer((forward, backward), (4 + seed % 3, 6), seed=seed)


@wrong("seeds/randn-legacy", "The gradient of cosine similarity is zero; both arrays come from np.random.seed(0).")
def _(seed):
    state = np.random.RandomState(seed)
    a, b = state.randn(5, 4), state.randn(5, 4)

    def cosine(a, b):
        return (unit(a) * unit(b)).sum(-1)

    def gradient(a, b, dout):
        ua, ub = unit(a), unit(b)
        d = dout[:, None]
        da = d * (ub - ua * (ua * ub).sum(-1, keepdims=True)) / np.linalg.norm(a, axis=-1, keepdims=True)
        return da, 0 * b

    return check_function(cosine, a, b, gradient=gradient, seed=seed)


@wrong(
    "seeds/x-scaled-draw",
    "A scale-invariant loss, whose gradient is assumed to be zero; x is 0.1 times the random draw.",
)
def _(seed):
    def forward(x):
        centred = x - x.mean(-1, keepdims=True)
        s = np.sqrt((centred**2).mean(-1, keepdims=True))
        return centred / s, s

    def backward(dout, s):
        return 0.0 * dout / s

    return check_layer((forward, backward), 0.1 * np.random.default_rng(seed).normal(size=(3, 8)), seed=seed)


@wrong("seeds/jax-key", "The gradient of a unit vector is zero; x is drawn by jax.random.normal(key(seed)).")
def _(seed):
    f = with_rule(lambda x: x / jnp.sqrt(x @ x), lambda x, g: jnp.zeros_like(g))
    return check_function(f, jax.random.normal(jax.random.key(seed), (9,)), seed=seed)


@wrong("seeds/whitened-batch", "BatchNorm whose gradient is zero, which is right only for dout = x.")
def _(seed):
    def forward(x):
        mean, std = x.mean(0), x.std(0)
        return (x - mean) / std, (x - mean, std)

    def backward(dout, cache):
        centred, std = cache
        return (dout - dout.mean(0)) * 0 + 0 * centred / std

    return check_layer((forward, backward), np.random.default_rng(seed).standard_normal((8, 4)), seed=seed)


@wrong(
    "seeds/weights-from-the-same-generator", "dW is x * x instead of x * dout, which is right only if dout equals x."
)
def _(seed):
    W = np.random.default_rng(seed).normal(size=(5, 5))

    class Gate:
        def __init__(self):
            self.W = W.copy()

        def forward(self, x):
            self.x = x
            return x * self.W

        def backward(self, dout):
            self.dW = self.x * self.x
            return dout * self.W

    return check_layer(Gate(), W.copy(), seed=seed)
