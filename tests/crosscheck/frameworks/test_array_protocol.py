"""Tests arrays that lie elsewhere, as on a device, taken by the protocols that they implement and never by name."""

import numpy as np
import pytest

from jaxnet.crosscheck import check_function

X, W = np.linspace(-1.0, 1.5, 12).reshape(4, 3), np.linspace(0.3, 1.0, 6).reshape(3, 2)


class Remote:
    """An array that NumPy cannot read, and that computes with its own kind alone."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape, self.dtype = self._values.shape, self._values.dtype

    def get(self):
        return self._values.copy()

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion")

    def __array_function__(self, function, types, args, kwargs):
        if function is np.asarray:
            return Remote(args[0])
        return NotImplemented

    def _with(self, other, operate):
        if not isinstance(other, Remote | float):
            raise TypeError(f"a {type(other).__name__} beside a remote array")
        return Remote(operate(self._values, other._values if isinstance(other, Remote) else other))

    def __mul__(self, other):
        return self._with(other, np.multiply)

    def __matmul__(self, other):
        return self._with(other, np.matmul)

    @property
    def T(self):
        return Remote(self._values.T)


class ByNamespace(Remote):
    __array_function__ = None

    def __array_namespace__(self):
        return type("namespace", (), {"asarray": staticmethod(ByNamespace)})

    def _with(self, other, operate):
        return ByNamespace(super()._with(other, operate).get())

    @property
    def T(self):
        return ByNamespace(self._values.T)


@pytest.mark.parametrize("kind", [Remote, ByNamespace])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_remote_arrays(kind, dtype):
    def made(factor):
        return lambda x, w, dout: (dout @ w.T, x.T @ dout * factor)

    args = kind(X.astype(dtype)), kind(W.astype(dtype))
    report = check_function(lambda x, w: x @ w, *args, gradient=made(1.0))
    assert report.verdict.value == "PASS", str(report)
    for factor in (2.0, -1.0):
        report = check_function(lambda x, w: x @ w, *args, gradient=made(factor))
        assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def test_structures_of_remote_arrays():
    report = check_function(
        lambda p: {"y": p["x"] @ p["w"]},
        {"x": Remote(X), "w": Remote(W)},
        gradient=lambda p, dout: {"x": dout["y"] @ p["w"].T, "w": p["x"].T @ dout["y"]},
    )
    assert report.verdict.value == "PASS", str(report)
