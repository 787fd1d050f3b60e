"""A dout that is clipped, flushed or rounded at some magnitude: right only for a dout of order 1."""

import numpy as np

from mutants.kinds.wrong_state import Dense, of_size, registered

for scale, change, what in (
    (1e3, lambda d: np.clip(d, -5, 5), "clipped-at-5"),
    (1e6, lambda d: np.clip(d, -1e4, 1e4), "clipped-at-1e4"),
    (1e2, lambda d: d * min(1, 10 / (np.linalg.norm(d) + 1e-12)), "clipped-by-norm"),
    (1e-9, lambda d: np.where(np.abs(d) < 1e-6, 0, d), "small-ones-flushed"),
    (1e-9, lambda d: d.astype(np.float16).astype(d.dtype), "through-half-precision"),
    (1e-4, lambda d: np.round(d, 3), "rounded-to-3-digits"),
):

    def _make(change):
        class Changed(Dense):
            def backward(self, dout):
                return super().backward(change(dout))

        return Changed

    registered(f"state/dout-{what}", f"dout is changed before it is used: {what}.", of_size(scale))(_make(change))
