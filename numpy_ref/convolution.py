"""Layers that slide a window over images x (N, C, H, W), by hand. Read this file beside `jaxnet/nn/convolution.py`.

A K by K window has OH = (H + 2 padding - K) // stride + 1 positions along the height of a padded image, and OW along
its width. Elements beyond the last whole window, at the bottom and at the right, are unused.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from numpy_ref.layers import Array, Layer, Spec

__all__ = ["AveragePool", "Convolution", "MaxPool"]


class Convolution(Layer):
    """y[n, f, i, j] = Σ_c,k,l x[n, c, i s + k - p, j s + l - p] W[f, c, k, l] + b[f], with stride s and padding p.

    It is Affine on rows that are patches of x: `windows` takes them ("im2col"), and `scatter` adds the gradient of each
    to the elements that it was taken from ("col2im"). Chellapilla, Puri and Simard, *High Performance Convolutional
    Neural Networks for Document Processing*, 2006, section 4.

    Raises:
        ValueError: If arrays or numbers do not fit; in use, if x has other channels or no room for a window.
    """

    parameters = ("W", "b")

    @staticmethod
    def spec(in_channels: int, filters: int, size: int, stride: int, padding: int) -> Spec:
        return {"W": (filters, in_channels, size, size), "b": (filters,)}, (stride, padding)

    def __init__(self, W: Array, b: Array, stride: int = 1, padding: int = 0) -> None:
        if W.ndim != 4 or W.shape[2] != W.shape[3] or b.shape != W.shape[:1]:
            raise ValueError(f"W, b: shapes {W.shape} and {b.shape}, expected (F, C, K, K) and (F,)")
        check_window(W.shape[2], stride, padding)
        self.W, self.b, self.stride, self.padding = W, b, stride, padding

    def forward(self, x: Array) -> Array:
        F, C, K, _ = self.W.shape
        check_images(x, C, K, self.padding)
        self.shape, patches = x.shape, windows(x, K, self.stride, self.padding)  # (N, C, OH, OW, K, K)
        N, _, OH, OW, _, _ = patches.shape
        self.columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(N * OH * OW, C * K * K)
        y = self.columns @ self.W.reshape(F, -1).T + self.b  # (N OH OW, C K K) @ (C K K, F) + (F,)
        return y.reshape(N, OH, OW, F).transpose(0, 3, 1, 2)  # (N, F, OH, OW)

    def backward(self, dout: Array) -> Array:
        (F, C, K, _), (N, _, OH, OW) = self.W.shape, dout.shape
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, F)  # (N OH OW, F)
        self.dW = (dout.T @ self.columns).reshape(self.W.shape)  # (F, C, K, K)
        self.db = dout.sum(axis=0)  # (F,)
        dcolumns = dout @ self.W.reshape(F, -1)  # (N OH OW, F) @ (F, C K K)
        dpatches = dcolumns.reshape(N, OH, OW, C, K, K).transpose(0, 3, 1, 2, 4, 5)
        return scatter(dpatches, self.shape, self.stride, self.padding)


class Pool(Layer):
    """A layer that replaces each window of each channel by one element."""

    def __init__(self, size: int, stride: int, padding: int = 0) -> None:
        check_window(size, stride, padding)
        if padding >= size:  # or a window could lie on padding alone
            raise ValueError(f"padding: {padding}, expected less than the size, {size}")
        self.size, self.stride, self.padding = size, stride, padding


class MaxPool(Pool):
    """y = the largest element of each window, of each channel; dout goes to that element of x.

    Of several largest elements, the first one by rows gets dout. Padding is -inf.

    Raises:
        ValueError: If a size is out of range; in use, if x is no batch of images or has no room for a window.
    """

    def forward(self, x: Array) -> Array:
        check_images(x, None, self.size, self.padding)
        self.shape = x.shape
        patches = windows(x, self.size, self.stride, self.padding, -math.inf)  # (N, C, OH, OW, K, K)
        patches = patches.reshape(*patches.shape[:4], -1)  # (N, C, OH, OW, K K)
        self.largest = patches.argmax(axis=-1)[..., None]  # (N, C, OH, OW, 1)
        return np.take_along_axis(patches, self.largest, axis=-1)[..., 0]  # (N, C, OH, OW)

    def backward(self, dout: Array) -> Array:
        K = self.size
        dpatches = np.where(np.arange(K * K) == self.largest, dout[..., None], 0)  # (N, C, OH, OW, K K)
        return scatter(dpatches.reshape(*dout.shape, K, K), self.shape, self.stride, self.padding)


class AveragePool(Pool):
    """y = the mean of each window, of each channel; each element of the window gets dout / K². Padding counts as 0.

    Raises:
        ValueError: If a size is out of range; in use, if x is no batch of images or has no room for a window.
    """

    def forward(self, x: Array) -> Array:
        check_images(x, None, self.size, self.padding)
        self.shape = x.shape
        return windows(x, self.size, self.stride, self.padding).mean(axis=(-2, -1))  # (N, C, OH, OW)

    def backward(self, dout: Array) -> Array:
        K = self.size
        dpatches = np.broadcast_to(dout[..., None, None] / K**2, (*dout.shape, K, K))  # (N, C, OH, OW, K, K)
        return scatter(dpatches, self.shape, self.stride, self.padding)


def windows(x: Array, size: int, stride: int, padding: int, fill: float = 0.0) -> Array:
    """Returns a view of every window of the padded images: (N, C, OH, OW, size, size)."""
    around = (0, 0), (0, 0), (padding, padding), (padding, padding)
    padded = np.pad(x, around, constant_values=fill) if padding else x
    return sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def scatter(dpatches: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """Adds the values of each window's elements up in images of this shape: the transpose of `windows`."""
    N, C, OH, OW, K, _ = dpatches.shape
    dx = np.zeros((N, C, shape[2] + 2 * padding, shape[3] + 2 * padding), dpatches.dtype)
    for i, j in np.ndindex(K, K):
        dx[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride] += dpatches[..., i, j]
    return dx[:, :, padding : padding + shape[2], padding : padding + shape[3]]


def check_window(size: int, stride: int, padding: int) -> None:
    """Raises ValueError if the size or the stride of a window is below 1, or the padding below 0."""
    if size < 1 or stride < 1 or padding < 0:
        raise ValueError(f"size, stride, padding: {size}, {stride}, {padding}, expected at least 1, 1 and 0")


def check_images(x: Array, channels: int | None, size: int, padding: int) -> None:
    """Raises ValueError if images have other channels than these, or no room for a window."""
    if x.ndim != 4 or channels not in (None, x.shape[1]) or min(x.shape[2:]) + 2 * padding < size:
        wanted = f"(N, {'C' if channels is None else channels}, H, W)"
        raise ValueError(f"x: shape {x.shape}, expected {wanted} with H and W at least {size - 2 * padding}")
