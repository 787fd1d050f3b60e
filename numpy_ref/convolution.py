"""Layers that slide a window over images x (N, C, H, W), by hand. Read this file beside `jaxnet/nn/convolution.py`.

A K by K window has OH = (H + 2 padding - K) // stride + 1 positions along the height of a padded image, and OW along
its width. Elements beyond the last whole window, at the bottom and at the right, are unused.
"""

import math
from functools import reduce

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from numpy_ref.layers import Array, Layer, Spec

__all__ = ["AveragePool", "Convolution", "MaxPool"]


class Convolution(Layer):
    """y[n, f, i, j] = Σ_c,k,l x[n, c, i s + k - p, j s + l - p] W[f, c, k, l] + b[f], with stride s and padding p.

    It is Affine with a patch of x in each column: `windows` takes them ("im2col"), and `scatter` adds the gradient of
    each to the elements that it was taken from ("col2im"). Chellapilla, Puri and Simard, *High Performance
    Convolutional Neural Networks for Document Processing*, 2006, section 4.

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
        self.shape, patches = x.shape, windows(x, K, self.stride, self.padding)  # (K, K, N, C, OH, OW)
        _, _, N, _, OH, OW = patches.shape
        self.columns = patches.transpose(3, 0, 1, 2, 4, 5).reshape(C * K * K, N * OH * OW)
        y = self.W.reshape(F, -1) @ self.columns + self.b[:, None]  # (F, C K K) @ (C K K, N OH OW) + (F, 1)
        return y.reshape(F, N, OH, OW).swapaxes(0, 1)  # (N, F, OH, OW)

    def backward(self, dout: Array) -> Array:
        (F, C, K, _), (N, _, OH, OW) = self.W.shape, dout.shape
        dout = dout.swapaxes(0, 1).reshape(F, -1)  # (F, N OH OW)
        self.dW = (dout @ self.columns.T).reshape(self.W.shape)  # (F, C, K, K)
        self.db = dout.sum(axis=1)  # (F,)
        dcolumns = self.W.reshape(F, -1).T @ dout  # (C K K, F) @ (F, N OH OW)
        dpatches = dcolumns.reshape(C, K, K, N, OH, OW).transpose(1, 2, 3, 0, 4, 5)
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
        self.shape, self.patches = x.shape, windows(x, self.size, self.stride, self.padding, -math.inf)
        self.y = reduce(np.maximum, elements(self.patches))  # (N, C, OH, OW)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        dpatches = np.empty_like(self.patches, dout.dtype)  # (K, K, N, C, OH, OW)
        missing = np.ones(dout.shape, dtype=bool)  # windows whose largest element was not found yet
        for element, delement in zip(elements(self.patches), elements(dpatches), strict=True):
            largest = missing & ~(element < self.y)  # not ==, so that dout reaches dx where y is nan
            delement[...] = dout * largest
            missing &= ~largest
        return scatter(dpatches, self.shape, self.stride, self.padding)


class AveragePool(Pool):
    """y = the mean of each window, of each channel; each element of the window gets dout / K². Padding counts as 0.

    Raises:
        ValueError: If a size is out of range; in use, if x is no batch of images or has no room for a window.
    """

    def forward(self, x: Array) -> Array:
        check_images(x, None, self.size, self.padding)
        self.shape = x.shape
        patches = windows(x, self.size, self.stride, self.padding)  # (K, K, N, C, OH, OW)
        return reduce(np.add, elements(patches)) / self.size**2  # (N, C, OH, OW)

    def backward(self, dout: Array) -> Array:
        K = self.size
        dpatches = np.broadcast_to(dout / K**2, (K, K, *dout.shape))  # (K, K, N, C, OH, OW)
        return scatter(dpatches, self.shape, self.stride, self.padding)


def windows(x: Array, size: int, stride: int, padding: int, fill: float = 0.0) -> Array:
    """Returns a view of every window of the padded images: (size, size, N, C, OH, OW).

    The axes of an image are last because NumPy copies and adds long runs fast, and those of a window are short.
    """
    around = (0, 0), (0, 0), (padding, padding), (padding, padding)
    padded = np.pad(x, around, constant_values=fill) if padding else x
    patches = sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return patches.transpose(4, 5, 0, 1, 2, 3)


def elements(patches: Array) -> list[Array]:
    """Returns views of the first elements of all windows, (N, C, OH, OW), then the second ones, and so on by rows."""
    return [patches[position] for position in np.ndindex(patches.shape[:2])]


def scatter(dpatches: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """Adds the values of each window's elements up in images of this shape: the transpose of `windows`."""
    K, _, N, C, OH, OW = dpatches.shape
    dx = np.zeros((C, N, shape[2] + 2 * padding, shape[3] + 2 * padding), dpatches.dtype).swapaxes(0, 1)
    for i, j in np.ndindex(K, K):
        dx[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride] += dpatches[i, j]
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
