"""Kernels with long sums in 16 bits, from which the naming of a sum that is accumulated in 16 bits is measured.

`python tests/crosscheck/half_sums.py [seeds]` prints how often each leaf of each kernel gets which verdict and cause.
"""

import sys
from collections import Counter

import numpy as np
from crosscheck.half_grid import HALVES, affine, attention, conv, layer_norm, pair, softmax

from jaxnet.crosscheck import check_layer


def mean(m):
    return lambda x, w: (m.mean(x * w, 0)[0], (x, w)), lambda d, c: (
        np.broadcast_to(d * c[1] / d.dtype.type(len(c[0])), c[0].shape).copy(),
        m.mean(c[0] * d, 0)[0],
    )


def log_sum_exp(m):
    def forward(x):
        largest = x.max(-1, keepdims=True)
        y = np.log(m.sum(np.exp(x - largest), -1)) + largest
        return y[..., 0], (x, y)

    return forward, lambda d, c: d[..., None] * np.exp(c[0] - c[1])


def cumulative_sum(m):
    return lambda x: (m.cumsum(x), None), lambda d, _: m.cumsum(d[..., ::-1])[..., ::-1]


def normal(rng, shape):
    return rng.normal(size=shape)


def positive(rng, shape):
    return np.abs(rng.normal(size=shape))


SUMS = {
    "matmul": (affine, normal, ((2048, 3), (3, 2), (2,))),
    "mean": (mean, positive, ((4096, 2), (2,))),
    "layer norm": (layer_norm, normal, ((2048, 4), (4,))),
    "softmax": (softmax, normal, ((2, 2048),)),
    "log-sum-exp": (log_sum_exp, normal, ((3, 2048),)),
    "convolution": (conv, positive, ((4096,), (3,))),
    "attention": (attention, normal, ((1, 4, 4), (1, 1024, 4), (1, 1024, 4))),
    "cumulative sum": (cumulative_sum, normal, ((2, 2048),)),
}


def report_on(kernel, half, kind, seed):
    """Returns the report on a kernel that accumulates in float32, or in 16 bits ("sums")."""
    make, draw, shapes = SUMS[kernel]
    rng = np.random.default_rng(2000 + seed)
    return check_layer(pair(make, kind), *(draw(rng, shape).astype(HALVES[half]) for shape in shapes), seed=seed)


def main(seeds, kernels):
    for kernel in kernels or SUMS:
        for half in HALVES:
            for kind in ("float32", "sums"):
                leaves = [leaf for seed in range(seeds) for leaf in report_on(kernel, half, kind, seed).leaves]
                for name in dict.fromkeys(leaf.name for leaf in leaves):
                    own = [leaf for leaf in leaves if leaf.name == name]
                    ratios = [leaf.rounding_ratio for leaf in own]
                    counts = Counter(f"{leaf.verdict} {leaf.cause.name}" for leaf in own).most_common()
                    print(
                        f"{kernel:15}{half:9} {kind:8}{name:4} ratio {min(ratios):6.2f} to {max(ratios):6.2f}  "
                        + ", ".join(f"{label} {count}" for label, count in counts)
                    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4, sys.argv[2:])
