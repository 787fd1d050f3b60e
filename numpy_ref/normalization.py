"""Layers that normalize their inputs to mean 0 and variance 1, by hand, beside `jaxnet/nn/normalization.py`.

They differ in the elements that share a mean. With x̂ = (x - mean) / std, and every mean over those elements,

    dx = (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂)) / std.

The second term comes through the mean, the third through the variance (the chain of Ioffe and Szegedy, *Batch
Normalization*, 2015, section 3, simplified).
"""

import numpy as np

from numpy_ref.layers import Array, Layer, Spec, rows

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm"]


class BatchNorm(Layer):
    """y = gamma x̂ + beta, x̂ = (x - mean) / √(var + eps): a vector's elements (N, D), an image's channels (N, D, H, W).

    dgamma = Σ dout x̂, dbeta = Σ dout, dx̂ = dout gamma, and dx as above. Training uses the mean and variance of the
    batch, and updates running ones for inference: running = momentum * running + (1 - momentum) * batch. Both variances
    are divided by the number of elements; the paper's algorithm 1 divides the running one by that less one.

    Raises:
        ValueError: If the arrays are not vectors of one size, or a number is out of range; in use, if x has another D.
    """

    parameters = ("gamma", "beta")
    statistics = ("mean", "var")

    @staticmethod
    def spec(size: int, momentum: float, eps: float) -> Spec:
        return dict.fromkeys(("gamma", "beta", "mean", "var"), (size,)), (momentum, eps)

    def __init__(
        self, gamma: Array, beta: Array, mean: Array, var: Array, momentum: float = 0.9, eps: float = 1e-5
    ) -> None:
        if gamma.ndim != 1 or not gamma.shape == beta.shape == mean.shape == var.shape:
            shapes = ", ".join(str(a.shape) for a in (gamma, beta, mean, var))
            raise ValueError(f"gamma, beta, mean, var: shapes {shapes}, expected (D,) each")
        if not (0 <= momentum < 1 and eps > 0):
            raise ValueError(f"momentum, eps: {momentum}, {eps}, expected a share in [0, 1) and a number > 0")
        self.gamma, self.beta, self.mean, self.var, self.momentum, self.eps = gamma, beta, mean, var, momentum, eps

    def forward(self, x: Array) -> Array:
        check_channels(x, len(self.gamma))
        self.axes = (0, *range(2, x.ndim))  # the axes of a mean: (0,) or (0, 2, 3)
        mean, var = x.mean(self.axes), x.var(self.axes)  # (D,), (D,)
        self.mean = self.momentum * self.mean + (1 - self.momentum) * mean
        self.var = self.momentum * self.var + (1 - self.momentum) * var
        self.std = along_channels(np.sqrt(var + self.eps), x)  # (1, D) or (1, D, 1, 1)
        self.x_hat = (x - along_channels(mean, x)) / self.std
        return along_channels(self.gamma, x) * self.x_hat + along_channels(self.beta, x)

    def backward(self, dout: Array) -> Array:
        self.dgamma = (dout * self.x_hat).sum(self.axes)  # (D,)
        self.dbeta = dout.sum(self.axes)  # (D,)
        return backward_of_x_hat(dout * along_channels(self.gamma, dout), self.x_hat, self.std, self.axes)

    def infer(self, x: Array) -> Array:
        check_channels(x, len(self.gamma))
        gamma, beta, mean, var = (along_channels(a, x) for a in (self.gamma, self.beta, self.mean, self.var))
        return gamma * ((x - mean) / np.sqrt(var + self.eps)) + beta


class LayerNorm(Layer):
    """y = gamma x̂ + beta, x̂ = (x - mean) / √(var + eps), over the last axis: (..., D) -> (..., D).

    Ba, Kiros and Hinton, *Layer Normalization*, 2016, equation 4; backward as Karpathy's llm.c, doc/layernorm.

    Raises:
        ValueError: If the arrays are not vectors of one size, or eps is not > 0; in use, if x has another width.
    """

    parameters = ("gamma", "beta")

    @staticmethod
    def spec(size: int, eps: float) -> Spec:
        return {"gamma": (size,), "beta": (size,)}, (eps,)

    def __init__(self, gamma: Array, beta: Array, eps: float = 1e-5) -> None:
        if gamma.ndim != 1 or gamma.shape != beta.shape:
            raise ValueError(f"gamma, beta: shapes {gamma.shape} and {beta.shape}, expected (D,) each")
        if not eps > 0:
            raise ValueError(f"eps: {eps}, expected a number > 0")
        self.gamma, self.beta, self.eps = gamma, beta, eps

    def forward(self, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != len(self.gamma):
            raise ValueError(f"x: shape {x.shape}, expected (N, ..., {len(self.gamma)})")
        self.std = np.sqrt(x.var(axis=-1, keepdims=True) + self.eps)  # (..., 1)
        self.x_hat = (x - x.mean(axis=-1, keepdims=True)) / self.std  # (..., D)
        return self.gamma * self.x_hat + self.beta

    def backward(self, dout: Array) -> Array:
        self.dgamma = rows(dout * self.x_hat).sum(axis=0)  # (D,)
        self.dbeta = rows(dout).sum(axis=0)  # (D,)
        return backward_of_x_hat(dout * self.gamma, self.x_hat, self.std, -1)  # (..., D)


class GroupNorm(LayerNorm):
    """y = gamma x̂ + beta, x̂ = (x - mean) / √(var + eps), over each group of channels: (N, D) or (N, D, H, W).

    A group has D / groups channels that follow each other; gamma and beta have an element for each channel. Wu and He,
    *Group Normalization*, 2018, equations 1 and 6; backward as at the top of this file.

    Raises:
        ValueError: If the arrays are not vectors of one size D, or a number does not fit; in use, if x has another D.
    """

    @staticmethod
    def spec(groups: int, size: int, eps: float) -> Spec:  # type: ignore[override]  # its description has the groups
        return {"gamma": (size,), "beta": (size,)}, (groups, eps)

    def __init__(self, gamma: Array, beta: Array, groups: int, eps: float = 1e-5) -> None:
        super().__init__(gamma, beta, eps)
        if groups < 1 or len(gamma) % groups:
            raise ValueError(f"groups: {groups}, expected a divisor of the size, {len(gamma)}")
        self.groups = groups

    def forward(self, x: Array) -> Array:
        check_channels(x, len(self.gamma))
        grouped = x.reshape(len(x), self.groups, -1)  # (N, G, D/G H W)
        self.std = np.sqrt(grouped.var(axis=-1, keepdims=True) + self.eps)  # (N, G, 1)
        self.x_hat = (grouped - grouped.mean(axis=-1, keepdims=True)) / self.std  # (N, G, D/G H W)
        return along_channels(self.gamma, x) * self.x_hat.reshape(x.shape) + along_channels(self.beta, x)

    def backward(self, dout: Array) -> Array:
        axes = (0, *range(2, dout.ndim))  # every axis but that of the channels
        self.dgamma = (dout * self.x_hat.reshape(dout.shape)).sum(axes)  # (D,)
        self.dbeta = dout.sum(axes)  # (D,)
        dx_hat = (dout * along_channels(self.gamma, dout)).reshape(self.x_hat.shape)  # (N, G, D/G H W)
        return backward_of_x_hat(dx_hat, self.x_hat, self.std, -1).reshape(dout.shape)


def backward_of_x_hat(dx_hat: Array, x_hat: Array, std: Array, axes: int | tuple[int, ...]) -> Array:
    """Returns dx as at the top of this file, where the elements along these axes share a mean."""
    through_mean = dx_hat.mean(axes, keepdims=True)
    through_var = x_hat * (dx_hat * x_hat).mean(axes, keepdims=True)
    return (dx_hat - through_mean - through_var) / std


def along_channels(a: Array, x: Array) -> Array:
    """Returns an array (D,) in a shape that broadcasts with x: (1, D) or (1, D, 1, 1)."""
    return a.reshape(1, -1, *(1,) * (x.ndim - 2))


def check_channels(x: Array, D: int) -> None:
    """Raises ValueError if x is neither (N, D) nor (N, D, H, W)."""
    if x.ndim not in (2, 4) or x.shape[1] != D:
        raise ValueError(f"x: shape {x.shape}, expected (N, {D}) or (N, {D}, H, W)")
