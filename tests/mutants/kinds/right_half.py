"""Right layers whose arrays are in half precision, or that compute in it."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right
from mutants.kinds.right_operations import OPERATIONS

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SUITABLE = "rms_norm", "softmax", "gelu_tanh", "cosine_similarity", "matmul_chain", "attention"


def beyond_half(gradients, true):
    """Returns the difference of gradients, relative to the largest of a leaf, beyond the rounding of 3 percent."""
    gaps = [np.abs(np.float64(f) - t).max() / np.abs(t).max() for f, t in zip(gradients, true, strict=True)]
    return max(0.0, float(max(gaps)) - 0.03)


def in_halves(fwd, bwd, half):
    """Returns the pair that computes in float32 and rounds its results."""

    def forward(*inputs):
        y, cache = fwd(*(v.astype(np.float32) for v in inputs))
        return y.astype(half), cache

    def backward(dout, cache):
        return tuple(g.astype(half) for g in as_tuple(bwd(dout.astype(np.float32), cache)))

    return forward, backward


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def against_double(pair, fwd, bwd, inputs):
    """Returns the error of a pair's gradients against those of `bwd` in float64, which other kinds verify."""
    y, cache = pair[0](*inputs)
    dout = Draw(99)(*y.shape).astype(y.dtype)
    gradients = pair[1](dout, cache)
    return beyond_half(gradients, as_tuple(bwd(np.float64(dout), fwd(*map(np.float64, inputs))[1])))


def halves(seed, shapes, dtype):
    draw = Draw(seed)
    return [draw(*shape).astype(dtype) for shape in shapes]


def mlp(x, w, v, dtype):
    return jnp.tanh(x.astype(dtype) @ w.astype(dtype)) @ v.astype(dtype)


def mlp_error(seed, half):
    inputs = halves(seed, ((4, 5), (5, 6), (6, 3)), np.float32)

    def loss(dtype):
        return lambda *a: mlp(*a, dtype).astype(jnp.float32).sum()

    with jax.enable_x64(True):
        true = jax.grad(lambda *a: mlp(*a, jnp.float64).sum(), (0, 1, 2))(*map(np.float64, inputs))
    return beyond_half(jax.grad(loss(half), (0, 1, 2))(*inputs), true)


for half_name, half in HALVES.items():
    for label in SUITABLE:
        fwd, bwd, shapes, _ = OPERATIONS[label]

        def half_error(seed, fwd=fwd, bwd=bwd, shapes=shapes, half=half):
            return against_double(in_halves(fwd, bwd, half), fwd, bwd, halves(seed, shapes, half))

        @right(
            f"half/{label}-{half_name}-arrays",
            f"{label} of {half_name} arrays, computed in float32 and rounded to {half_name} at the end",
            never="kink",
            undecided=True,  # difference quotients in half precision resolve a tenth of a gradient at best
            true=half_error,
        )
        def check(seed, fwd=fwd, bwd=bwd, shapes=shapes, half=half):
            return check_layer(in_halves(fwd, bwd, half), *halves(seed, shapes, half))

    def tensor_core(half=half):
        def narrow(v):
            return v.astype(half).astype(np.float32)

        def backward(dout, cache):
            x, w = cache
            return narrow(dout) @ w.T, x.T @ narrow(dout)

        return lambda x, w: (narrow(x) @ narrow(w), (narrow(x), narrow(w))), backward

    def core_error(seed, half=half, pair=tensor_core):
        exact = lambda x, w: (x @ w, (x, w)), lambda d, c: (d @ c[1].T, c[0].T @ d)
        return against_double(pair(half), *exact, halves(seed, ((5, 4), (4, 3)), np.float32))

    @right(
        f"half/tensor-core-matmul-{half_name}",
        f"a product whose factors are rounded to {half_name} and summed in float32, of float32 arrays",
        undecided=True,
        true=core_error,
    )
    def check_core(seed, half=half, pair=tensor_core):
        return check_layer(pair(half), *halves(seed, ((5, 4), (4, 3)), np.float32))

    @right(
        f"half/jax-mixed-precision-{half_name}",
        f"an MLP in {half_name} with float32 weights, by JAX",
        undecided=True,
        true=lambda seed, half=half: mlp_error(seed, half),
    )
    def mixed(seed, half=half):
        inputs = map(jnp.asarray, halves(seed, ((4, 5), (5, 6), (6, 3)), np.float32))
        return check_function(lambda x, w, v: mlp(x, w, v, half).astype(jnp.float32), *inputs)
