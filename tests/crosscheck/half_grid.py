"""Layers in 16 bits, from which the limits of `measure/half_precision.py` are chosen.

`python tests/crosscheck/half_grid.py [seeds]` prints the table.

Each layer is written once, for any dtype, with an arithmetic that says what is rounded: the result alone ("float32"),
every operation but not the terms within a sum ("steps"), or the terms within sums too ("sums").
"""

import sys
from collections import Counter

import ml_dtypes
import numpy as np

from jaxnet.crosscheck import inspected
from jaxnet.crosscheck.measure.half_precision import HalfMeter

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def wide(v):
    return v.astype(np.float32) if v.dtype.itemsize == 2 else v


class Arithmetic:
    """One way to compute with arrays in 16 bits; arrays of other dtypes are computed with as they are."""

    def __init__(self, kind):
        self.kind = kind

    def start(self, v):
        return wide(v) if self.kind == "float32" else v

    def sum(self, v, axis):
        if self.kind != "sums":
            return wide(v).sum(axis, keepdims=True).astype(v.dtype)
        return np.add.accumulate(v, axis, dtype=v.dtype).take([-1], axis)

    def cumsum(self, v):
        if self.kind == "sums":
            return np.add.accumulate(v, -1, dtype=v.dtype)
        return np.add.accumulate(wide(v), -1).astype(v.dtype)

    def mean(self, v, axis=-1):
        return (self.sum(v, axis) / v.dtype.type(v.shape[axis])).astype(v.dtype)

    def matmul(self, a, b):
        return self.sum((a[..., :, :, None] * b[..., None, :, :]).astype(a.dtype), -2)[..., 0, :]


def transposed(v):
    return np.swapaxes(v, -1, -2)


def affine(m):
    return (
        lambda x, w, b: (m.matmul(x, w) + b, (x, w)),
        lambda d, c: (m.matmul(d, c[1].T), m.matmul(c[0].T, d), m.sum(d, 0)[0]),
    )


def softmax(m):
    def forward(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        y = e / m.sum(e, -1)
        return y, y

    return forward, lambda d, y: y * (d - m.sum(d * y, -1))


def layer_norm(m):
    def forward(x, g):
        centred = x - m.mean(x)
        inverse = 1 / np.sqrt(m.mean(centred * centred) + x.dtype.type(1e-5))
        normal = centred * inverse
        return normal * g, (normal, inverse, g)

    def backward(d, c):
        normal, inverse, g = c
        e = d * g
        return inverse * (e - m.mean(e) - normal * m.mean(e * normal)), m.sum(d * normal, 0)[0]

    return forward, backward


def gelu(m):
    def inner(x):
        t = x.dtype.type
        return np.tanh(t(0.7978846) * (x + t(0.044715) * x * x * x))

    def backward(d, x):
        t, h = x.dtype.type, inner(x)
        slope = t(0.7978846) * (t(1) + t(0.134145) * x * x)
        return d * (t(0.5) * (t(1) + h) + t(0.5) * x * (t(1) - h * h) * slope)

    return lambda x: (x.dtype.type(0.5) * x * (x.dtype.type(1) + inner(x)), x), backward


def attention(m):
    weights, weights_backward = softmax(m)

    def forward(q, k, v):
        root = q.dtype.type(1 / np.sqrt(q.shape[-1]))
        p, _ = weights(m.matmul(q, transposed(k)) * root)
        return m.matmul(p, v), (q, k, v, p, root)

    def backward(d, c):
        q, k, v, p, root = c
        e = weights_backward(m.matmul(d, transposed(v)), p) * root
        return m.matmul(e, k), m.matmul(transposed(e), q), m.matmul(transposed(p), d)

    return forward, backward


def conv(m):
    def forward(x, w):
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[0], axis=0)
        return m.sum(windows * w, -1)[..., 0], (windows, w)

    def backward(d, c):
        windows, w = c
        padded = np.pad(d, (len(w) - 1, len(w) - 1))
        back = np.lib.stride_tricks.sliding_window_view(padded, len(w), axis=0) * w[::-1]
        return m.sum(back, -1)[..., 0], m.sum(windows * d[:, None], 0)[0]

    return forward, backward


def column_sums(m):
    return lambda x, b: (x * b, (x, b)), lambda d, c: (d * c[1], m.sum(d * c[0], 0)[0])


LAYERS = {
    "affine": (affine, ((6, 16), (16, 5), (5,))),
    "softmax": (softmax, ((4, 12),)),
    "layer norm": (layer_norm, ((4, 16), (16,))),
    "gelu": (gelu, ((5, 8),)),
    "attention": (attention, ((2, 6, 8), (2, 6, 8), (2, 6, 8))),
    "conv": (conv, ((40,), (5,))),
    "a sum over 4,096": (column_sums, ((4096, 2), (2,))),
}


def faulty(gradients, fault, cache_dtype):
    """Returns the gradients with a fault that only code in 16 bits has."""
    if fault == "right" or cache_dtype.itemsize != 2:
        return gradients
    factor = {"1 %": 1.01, "wrong": 0.7}[fault]
    return tuple((wide(g) * np.float32(factor)) for g in gradients)


def pair(make, kind, fault="right"):
    """Returns a layer as a pair of functions that takes and returns arrays of any dtype."""
    m = Arithmetic(kind)
    fwd, bwd = make(m)

    def forward(*inputs):
        y, cache = fwd(*map(m.start, inputs))
        return y.astype(inputs[0].dtype), (cache, inputs[0].dtype)

    def backward(dout, cache):
        result = bwd(m.start(dout), cache[0])
        result = faulty(result if isinstance(result, tuple) else (result,), fault, cache[1])
        return tuple(g.astype(cache[1]) for g in result)

    return forward, backward


def inputs_of(shapes, dtype, seed):
    rng = np.random.default_rng(1000 + seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def measured(layer, half, kind, fault, seed):
    """Returns the measurements of a layer's leaves against itself in float64."""
    make, shapes = LAYERS[layer]
    code = inspected(pair(make, kind, fault), *inputs_of(shapes, HALVES[half], seed))
    output = code.forward({name: array.copy() for name, array in code.leaves.items()})
    dout = np.random.default_rng(seed + 5).normal(size=output.shape)

    def finer(at, d):
        return {n: np.asarray(g, np.float64) for n, g in code.backward({k: v.copy() for k, v in at.items()}, d).items()}

    return list(
        HalfMeter(code, finer, dout, output.dtype, np.random.default_rng(seed)).measure([*code.leaves]).values()
    )


def main(seeds):
    cases = [(k, "right") for k in ("float32", "steps", "sums")]
    cases += [(k, f) for f in ("1 %", "wrong") for k in ("float32", "steps")]
    for kind, fault in cases:
        for layer in LAYERS:
            for half in HALVES:
                leaves = [m for seed in range(seeds) for m in measured(layer, half, kind, fault, seed)]
                ratios = [leaf.ratio for leaf in leaves]
                systematic = [leaf.systematic for leaf in leaves if leaf.systematic >= 0] or [float("nan")]
                print(
                    f"{kind:8}{fault:6} {layer:16} {half:9} ratio {min(ratios):7.2f} to {max(ratios):7.2f}, "
                    f"systematic {min(systematic):6.2f} to {max(systematic):6.2f}, "
                    + ", ".join(f"{origin.name} {count}" for origin, count in Counter(m.origin for m in leaves).items())
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
