"""Tests windows that overlap: gradients that overwrite each other are named, and windows that hide them warned of."""

import numpy as np
import pytest

from jaxnet.crosscheck import check
from jaxnet.crosscheck.explain.slips import Slip

OVERWRITES = "overlapping windows overwrite each other"
HIDES = "the windows do not overlap"


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


class Windows:
    """A layer over square windows (2-D) of an input (N, C, H, W), whose backward adds their gradients or not."""

    size, stride, pad, adds, backwards = 3, 1, 0, True, False

    def __init__(self, **settings):
        vars(self).update({f"_{name}": value for name, value in settings.items()})  # by names that nothing knows
        for name in ("size", "stride", "pad", "adds", "backwards"):
            vars(self).setdefault(f"_{name}", getattr(type(self), name))

    def windows(self, x):
        counts = [(n - self._size) // self._stride + 1 for n in x.shape[2:]]
        places = [(i, j) for i in range(counts[0]) for j in range(counts[1])]
        step, size = self._stride, self._size
        cuts = [np.s_[:, :, i * step : i * step + size, j * step : j * step + size] for i, j in places]
        return counts, list(zip(places, cuts, strict=True))

    def forward(self, x):
        self.x = np.pad(x, [(0, 0), (0, 0), (self._pad,) * 2, (self._pad,) * 2])
        counts, windows = self.windows(self.x)
        parts = np.stack([self.of_window(self.x[cut]) for _, cut in windows], axis=-1)
        return parts.reshape(*parts.shape[:2], *counts)

    def backward(self, dout):
        dx = np.zeros_like(self.x)
        _, windows = self.windows(self.x)
        for (i, j), cut in reversed(windows) if self._backwards else windows:
            d = self.gradient_of_window(self.x[cut], dout[:, :, i, j])
            dx[cut] = dx[cut] + d if self._adds else d
        inner = slice(self._pad, -self._pad or None)
        return dx[:, :, inner, inner]


class Convolution(Windows):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.W = draw(4, 3, self._size, self._size)

    def of_window(self, x):
        return np.einsum("nchw,fchw->nf", x, self.W)

    def gradient_of_window(self, x, dout):
        return np.einsum("nf,fchw->nchw", dout, self.W)

    def backward(self, dout):
        self.dW = sum(
            np.einsum("nf,nchw->fchw", dout[:, :, i, j], self.x[cut]) for (i, j), cut in self.windows(self.x)[1]
        )
        return super().backward(dout)


class MaxPool(Windows):
    def of_window(self, x):
        return x.max(axis=(2, 3))

    def gradient_of_window(self, x, dout):
        return (x == x.max(axis=(2, 3), keepdims=True)) * dout[:, :, None, None]


class AveragePool(Windows):
    def of_window(self, x):
        return x.mean(axis=(2, 3))

    def gradient_of_window(self, x, dout):
        return np.broadcast_to(dout[:, :, None, None] / x[0, 0].size, x.shape)


CASES = {
    "a convolution": (Convolution, {}, "the last one"),
    "with padding": (Convolution, {"pad": 1}, "the last one"),
    "with a stride": (Convolution, {"stride": 2}, "the last one"),
    "from the last window to the first": (Convolution, {"backwards": True}, "the first one"),
    "a maximum": (MaxPool, {}, "the last one"),
    "a maximum with a stride": (MaxPool, {"stride": 2}, "the last one"),
    "a mean": (AveragePool, {"stride": 2}, "the last one"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_windows_that_overwrite_each_other_are_named(name):
    kind, settings, which = CASES[name]
    right = check(kind(**settings), draw(2, 3, 7, 7))
    assert right.verdict == "PASS"
    assert not any(HIDES in warning for warning in right.warnings)
    leaf = check(kind(adds=False, **settings), draw(2, 3, 7, 7)).leaves[-1]
    assert (leaf.name, leaf.slip) == ("x", Slip.OVERWRITTEN)
    assert OVERWRITES in leaf.diagnosis
    assert which in leaf.diagnosis


@pytest.mark.parametrize("kind", [Convolution, MaxPool, AveragePool])
def test_windows_that_do_not_overlap_hide_it_and_are_warned_of(kind):
    report = check(kind(stride=3, adds=False), draw(2, 3, 6, 6))
    assert report.verdict == "PASS"
    assert any(HIDES in warning for warning in report.warnings)


def test_windows_of_a_pair_of_functions_are_recognized():
    def forward(x):
        return x.reshape(*x.shape[:2], -1, 3).sum(axis=-1), None

    report = check((forward, lambda dout, _: np.repeat(dout, 3, axis=-1)), draw(2, 3, 6))
    assert any(HIDES in warning for warning in report.warnings)


WITHOUT_WINDOWS = {
    "a function of each element": (lambda x: x**2, lambda d, x: 2 * x * d, (2, 3, 6)),
    "every second element": (
        lambda x: x[..., ::2],
        lambda d, x: np.stack([d, 0 * d], axis=-1).reshape(x.shape),
        (2, 3, 6),
    ),
    "two halves": (
        lambda x: x[..., :3] * x[..., 3:],
        lambda d, x: np.concatenate([d * x[..., 3:], d * x[..., :3]], axis=-1),
        (2, 3, 6),
    ),
    "a projection": (lambda x: x @ draw(6, 3), lambda d, x: d @ draw(6, 3).T, (2, 4, 6)),
    "a mean": (lambda x: x.mean(-1, keepdims=True), lambda d, x: np.repeat(d / 6, 6, axis=-1), (2, 3, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_WINDOWS)
def test_no_other_layer_is_warned_of_windows(name):
    forward, backward, shape = WITHOUT_WINDOWS[name]
    report = check((lambda x: (forward(x), x), backward), draw(*shape))
    assert report.verdict == "PASS"
    assert not any(HIDES in warning for warning in report.warnings)


def test_a_recurrence_has_no_windows():
    decay = np.tril(0.5 ** np.subtract.outer(np.arange(6), np.arange(6)))  # y[t] = x[t] + y[t-1] / 2

    def backward(dout, x):
        return dout * (1 - np.tanh(x) ** 2)  # of each step alone

    report = check((lambda x: (np.tanh(x) @ decay.T, x), backward), draw(2, 3, 6))
    assert report.verdict == "FAIL"
    assert OVERWRITES not in report.leaves[0].diagnosis
