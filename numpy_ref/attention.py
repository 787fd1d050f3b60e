"""Layers of a transformer, by hand, beside `jaxnet/nn/attention.py`: sequences of T positions, x (N, T, D)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpy_ref.layers import Array, Layer, Spec, rows
from numpy_ref.losses import softmax

__all__ = ["Attention", "Embedding", "PositionalEmbedding"]


class Embedding(Layer):
    """y[n, t] = E[x[n, t]]: ids x (N, T) in [0, V) -> y (N, T, D); dE[v] = Σ dout[n, t] over all x[n, t] = v.

    It is Affine on one-hot rows (Mikolov et al. 2013, arXiv:1301.3781, section 2). `backward` returns zeros for ids.

    Raises:
        ValueError: If E is no matrix; in use, if x is no matrix of integers, or an id is out of range.
    """

    parameters = ("E",)

    @staticmethod
    def spec(vocabulary: int, size: int) -> Spec:
        return {"E": (vocabulary, size)}, ()

    def __init__(self, E: Array) -> None:
        if E.ndim != 2:
            raise ValueError(f"E: shape {E.shape}, expected (V, D)")
        self.E = E

    def forward(self, x: NDArray[Any]) -> Array:
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            raise ValueError(f"x: {x.dtype} of shape {x.shape}, expected integers (N, T)")
        if not 0 <= x.min() <= x.max() < len(self.E):
            raise ValueError(f"x: ids run from {x.min()} to {x.max()}, expected 0 to {len(self.E) - 1}")
        self.x = x
        return self.E[x]  # (N, T, D), a copy

    def backward(self, dout: Array) -> Array:
        self.dE = np.zeros_like(self.E)  # (V, D)
        np.add.at(self.dE, self.x, dout)  # `dE[x] += dout` would count a repeated id once
        return np.zeros(self.x.shape, dout.dtype)


class PositionalEmbedding(Layer):
    """y[n, t] = x[n, t] + P[t], with a learned row for each position; dP[t] = Σₙ dout[n, t], dx = dout.

    x (N, T, D) may have fewer positions than P (length, D). Gehring et al. 2017, arXiv:1705.03122, section 3.1.

    Raises:
        ValueError: If P is no matrix; in use, if x has more positions or another width.
    """

    parameters = ("P",)

    @staticmethod
    def spec(length: int, size: int) -> Spec:
        return {"P": (length, size)}, ()

    def __init__(self, P: Array) -> None:
        if P.ndim != 2:
            raise ValueError(f"P: shape {P.shape}, expected (T, D)")
        self.P = P

    def forward(self, x: Array) -> Array:
        if x.ndim != 3 or x.shape[1] > len(self.P) or x.shape[2] != self.P.shape[1]:
            raise ValueError(f"x: shape {x.shape}, expected (N, T, {self.P.shape[1]}) with T up to {len(self.P)}")
        return x + self.P[: x.shape[1]]  # (N, T, D) + (T, D)

    def backward(self, dout: Array) -> Array:
        self.dP = np.zeros_like(self.P)
        self.dP[: dout.shape[1]] = dout.sum(axis=0)  # (T, D); positions beyond x have gradient 0
        return dout.copy()


class Attention(Layer):
    """Causal multi-head self-attention: y = concat_h(A_h v_h) Wo, A_h = softmax(q_h k_hᵀ / √K), where t sees s <= t.

    q = x Wq, k = x Wk and v = x Wv are each split into heads of K = D / heads columns. Vaswani et al., *Attention Is
    All You Need*, 2017, section 3.2. Backward follows by the chain rule: through a row of the softmax it is
    dS = A (dA - Σₛ dA A). A masked position has A = 0, and so dS = 0.

    Raises:
        ValueError: If the matrices are not (D, D), or the heads do not divide D; in use, if x is not (N, T, D).
    """

    parameters = ("Wq", "Wk", "Wv", "Wo")

    @staticmethod
    def spec(size: int, heads: int) -> Spec:
        return dict.fromkeys(("Wq", "Wk", "Wv", "Wo"), (size, size)), (heads,)

    def __init__(self, Wq: Array, Wk: Array, Wv: Array, Wo: Array, heads: int) -> None:
        shapes = {W.shape for W in (Wq, Wk, Wv, Wo)}
        if shapes != {(len(Wq), len(Wq))}:
            raise ValueError(f"Wq, Wk, Wv, Wo: shapes {sorted(shapes)}, expected (D, D) each")
        if heads < 1 or len(Wq) % heads:
            raise ValueError(f"heads: {heads}, expected a divisor of the size, {len(Wq)}")
        self.Wq, self.Wk, self.Wv, self.Wo, self.heads = Wq, Wk, Wv, Wo, heads
        self.scale = 1 / math.sqrt(len(Wq) // heads)

    def forward(self, x: Array) -> Array:
        if x.ndim != 3 or x.shape[2] != len(self.Wq):
            raise ValueError(f"x: shape {x.shape}, expected (N, T, {len(self.Wq)})")
        self.x, T = x, x.shape[1]  # (N, T, D)
        self.q, self.k, self.v = (self._split(x @ W) for W in (self.Wq, self.Wk, self.Wv))  # (N, heads, T, K) each
        scores = self.q @ self.k.swapaxes(-1, -2) * self.scale  # (N, heads, T, T)
        self.A = softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))  # each row over the positions s <= t
        self.o = self._merge(self.A @ self.v)  # (N, T, D)
        return self.o @ self.Wo

    def backward(self, dout: Array) -> Array:
        self.dWo = rows(self.o).T @ rows(dout)  # (D, D)
        do = self._split(dout @ self.Wo.T)  # (N, heads, T, K)
        dA = do @ self.v.swapaxes(-1, -2)  # (N, heads, T, T)
        dS = self.A * (dA - (dA * self.A).sum(axis=-1, keepdims=True)) * self.scale
        dq = self._merge(dS @ self.k)  # (N, T, D)
        dk = self._merge(dS.swapaxes(-1, -2) @ self.q)
        dv = self._merge(self.A.swapaxes(-1, -2) @ do)
        self.dWq, self.dWk, self.dWv = (rows(self.x).T @ rows(d) for d in (dq, dk, dv))  # (D, D) each
        return dq @ self.Wq.T + dk @ self.Wk.T + dv @ self.Wv.T  # (N, T, D)

    def _split(self, x: Array) -> Array:
        """Splits (N, T, D) into heads, (N, heads, T, K)."""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)

    def _merge(self, x: Array) -> Array:
        """Joins the heads, (N, heads, T, K) -> (N, T, D)."""
        return x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1)
