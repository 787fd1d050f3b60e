"""Optimizers by hand: `update(params, grads)` changes the parameters in place, as in the book.

W is one leaf of the parameters, dW its gradient and η the learning rate. Formulas, which are elementwise, and default
values are optax's, so that a name means the same here and in `jaxnet.train.step.OPTIMIZERS`. "Book" tells how Saito's
*Deep Learning from Scratch* differs on the first step (section 6.1, and `common/optimizer.py` in its repository, where
lr = 0.01 by default, and 0.001 for Adam), as tests/numpy_ref/test_optimizers.py measures.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from numpy_ref.layers import Array, Tree
from numpy_ref.tree_paths import leaves_by_path, map_leaves

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "clip_by_global_norm",
    "make_optimizer",
]


@dataclass(eq=False)
class Optimizer:
    """The base class of optimizers. A subclass defines `step`, the update of a leaf, and how many arrays it keeps.

    Raises:
        ValueError: If a number is out of range.
    """

    learning_rate: float  # > 0; it may be changed between updates
    kept_arrays: ClassVar[int] = 0  # for each leaf, in its shape: the state of `step`

    def __post_init__(self) -> None:
        self.steps = 0  # number of updates, t
        self.state: dict[str, tuple[Array, ...]] = {}  # by the path of the leaf, "Affine1.W"
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def init(self, W: Array) -> tuple[Array, ...]:
        """Returns the initial state of the leaf `W`, zeros."""
        return tuple(np.zeros_like(W) for _ in range(self.kept_arrays))

    def step(self, W: Array, dW: Array, *state: Any) -> None:
        """Changes `W` and its `state` in place."""
        raise NotImplementedError

    def update(self, params: Tree, grads: Tree) -> None:
        """Makes one step with `grads`, which has the tree of `params`. It checks both before it changes anything.

        Raises:
            ValueError: If `params` are not writable NumPy arrays or those of the first update, or `grads` do not fit.
        """
        leaves, gradients = leaves_by_path(params), leaves_by_path(grads)
        if set(gradients) != set(leaves):
            raise ValueError(f"grads: holds {', '.join(gradients)}, expected the leaves of params, {', '.join(leaves)}")
        for name, W in leaves.items():
            if not isinstance(W, np.ndarray) or not W.flags.writeable:
                raise ValueError(f"params: {name} is not a writable NumPy array; copy it first")
            if gradients[name].shape != W.shape:
                raise ValueError(f"grads: {name} has shape {gradients[name].shape}, expected {W.shape}")
        self.state = self.state or {name: self.init(W) for name, W in leaves.items()}
        for name, W in leaves.items():
            if name not in self.state or any(a.shape != W.shape for a in self.state[name]):
                raise ValueError(f"params: {name} is new to this optimizer; make one for each network")
        self.steps += 1
        for name, W in leaves.items():
            self.step(W, gradients[name], *self.state[name])


@dataclass(eq=False)
class SGD(Optimizer):
    """W ← W - η dW (Robbins and Monro 1951; book, section 6.1.2)."""

    learning_rate: float = 0.1

    def step(self, W: Array, dW: Array) -> None:
        W -= self.learning_rate * dW


@dataclass(eq=False)
class Momentum(Optimizer):
    """v ← α v + dW, W ← W - η v (Polyak 1964; Sutskever et al. 2013, equations 1 and 2, with η outside v).

    Book, equations 6.3 and 6.4: v ← α v - η dW, W ← W + v. This is the same while η is constant. When η falls to a
    tenth after the first step, the second under the same gradient is 1.0 η dW long instead of 0.19, with the first η.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9  # α
    kept_arrays = 1

    def step(self, W: Array, dW: Array, v: Array) -> None:
        v *= self.momentum
        v += dW
        W -= self.learning_rate * v


@dataclass(eq=False)
class Nesterov(Momentum):
    """v ← α v + dW, W ← W - η (dW + α v), where W is the point to which momentum alone would move the parameters.

    Bengio, Boulanger-Lewandowski and Pascanu 2012, arXiv:1212.0901, section 3.5: with u = -η v before the update,
    W ← W + α² u - (1 + α) η dW. Book: the repository cites this, but updates u first and adds α² times the new u. Its
    first step is (1 + α + α²) η dW = 2.71 η dW long instead of 1.9. Under a constant gradient both tend to 10 η dW.
    """

    def step(self, W: Array, dW: Array, v: Array) -> None:
        v *= self.momentum
        v += dW
        W -= self.learning_rate * (dW + self.momentum * v)


@dataclass(eq=False)
class AdaGrad(Optimizer):
    """h ← h + dW², W ← W - η dW / √(h + ε), with h = 0.1 at the start (Duchi, Hazan and Singer 2011).

    Book, equations 6.5 and 6.6, closer to the paper: h = 0 at the start, and √h + 1e-7 in the denominator. Its first
    step has length η for every gradient; here it is 0.032 η for dW = 0.01.
    """

    learning_rate: float = 0.01
    initial_accumulator: float = 0.1
    eps: float = 1e-7  # ε

    def init(self, W: Array) -> tuple[Array, ...]:
        return (np.full_like(W, self.initial_accumulator),)

    def step(self, W: Array, dW: Array, h: Array) -> None:
        h += dW**2
        W -= self.learning_rate * dW / np.sqrt(h + self.eps)


@dataclass(eq=False)
class RMSprop(Optimizer):
    """h ← ρ h + (1 - ρ) dW², W ← W - η dW / √(h + ε) (Tieleman and Hinton 2012, lecture 6.5, which has no ε).

    Book (the repository; section 6.1.5 only mentions it): ρ = 0.99, and √h + 1e-7 in the denominator. An ε of 1e-8
    under the root is like 1e-4 outside it: the first step for dW = 1e-5 has length 0.1 η here and 9.1 η there.
    """

    learning_rate: float = 0.001
    decay_rate: float = 0.9  # ρ
    eps: float = 1e-8  # ε
    kept_arrays = 1

    def step(self, W: Array, dW: Array, h: Array) -> None:
        h *= self.decay_rate
        h += (1 - self.decay_rate) * dW**2
        W -= self.learning_rate * dW / np.sqrt(h + self.eps)


@dataclass(eq=False)
class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) dW, v ← β₂ v + (1 - β₂) dW², W ← W - η m̂ / (√v̂ + ε).

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) at step t correct the bias of the start at zero (Kingma and Ba 2015,
    arXiv:1412.6980, algorithm 1). Book: the repository uses the short form at the end of their section 2, the same rule
    with ε = 1e-7 / √(1 - β₂ᵗ), 3.2e-6 at the first step: for dW = 1e-6 it has length 0.24 η there and 0.99 η here.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8  # ε
    kept_arrays = 2

    def step(self, W: Array, dW: Array, m: Array, v: Array) -> None:
        m += (1 - self.beta1) * (dW - m)
        v += (1 - self.beta2) * (dW**2 - v)
        m_hat = m / (1 - self.beta1**self.steps)
        v_hat = v / (1 - self.beta2**self.steps)
        W -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.eps)


@dataclass(eq=False)
class AdamW(Adam):
    """Adam with an additional W ← W - η λ W for every leaf, biases too (Loshchilov and Hutter 2019, arXiv:1711.05101).

    The paper's algorithm 2 does not multiply λ by the learning rate; optax and PyTorch do. Book, section 6.4.2: λ W is
    a gradient of the loss. Where W = 1 has no other, Adam's first step is η long, not η λ = 1e-4 η.
    """

    weight_decay: float = 1e-4  # λ

    def step(self, W: Array, dW: Array, m: Array, v: Array) -> None:
        W -= self.learning_rate * self.weight_decay * W
        super().step(W, dW, m, v)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    optimizer.__name__.lower(): optimizer for optimizer in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW)
}


def make_optimizer(name: str, learning_rate: float | None = None) -> Optimizer:
    """Returns a new optimizer of a name in `OPTIMIZERS`. The learning rate defaults to that of its class.

    Raises:
        ValueError: If the name is unknown, or the learning rate out of range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: {name!r}, expected one of {', '.join(OPTIMIZERS)}, or an Optimizer")
    return OPTIMIZERS[name]() if learning_rate is None else OPTIMIZERS[name](learning_rate)


def clip_by_global_norm(grads: Tree, clip_norm: float) -> dict[str, Any]:
    """Returns g min(1, c / ‖g‖), with one norm over all leaves (Pascanu et al. 2013, algorithm 1).

    Book (the second volume, section 6.1.4): it divides by ‖g‖ + 1e-6, which clips a norm of 2 to 0.9999995, not to 1.

    Raises:
        ValueError: If `clip_norm` is not a finite number > 0.
    """
    _check("clip_norm", clip_norm)
    norm = float(np.sqrt(sum(np.sum(g**2) for g in leaves_by_path(grads).values())))
    scale = clip_norm / max(norm, clip_norm)
    return map_leaves(lambda _, g: scale * g, grads)


def _check(name: str, value: float) -> None:
    if name in ("momentum", "decay_rate", "beta1", "beta2"):
        valid, expected = 0 <= value < 1, "a number in [0, 1)"
    elif name in ("initial_accumulator", "weight_decay"):
        valid, expected = 0 <= value < np.inf, "a finite number >= 0"
    else:
        valid, expected = 0 < value < np.inf, "a finite number > 0"
    if not valid:
        raise ValueError(f"{name}: {value}, expected {expected}")
