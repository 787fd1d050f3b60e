"""Tests functions compiled by Numba, which are plain callables with frozen globals."""

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from jaxnet.crosscheck import check, check_function  # noqa: E402

X = np.array([1.3, 0.7, 0.8, 1.9, 1.2])
K = np.array([1.0, 2.0, 3.0, 4.0, 5.0])


@numba.njit
def loss(x):
    return np.sum(K * np.sin(x) ** 2)


@numba.njit
def gradient(x):
    return 2 * K * np.sin(x) * np.cos(x)


@numba.njit
def wrong(x):
    return K * np.sin(x) * np.cos(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_and_the_globals_that_they_read(dtype):
    report = check_function(loss, X.astype(dtype), gradient=gradient)
    assert report.verdict.value == "PASS", str(report)
    assert "K affects the output and has no gradient" in report.text(width=None)
    assert check_function(loss, X.astype(dtype), gradient=wrong).verdict.value == "FAIL"


def test_pairs_and_closures():
    def made(factor):
        @numba.njit
        def forward(x, w):
            return x * w, (x, w)

        @numba.njit
        def backward(dout, cache):
            x, w = cache
            return dout * w, factor * dout * x

        return forward, backward

    assert check(made(1.0), X, K).verdict.value == "PASS"
    report = check(made(2.0), X, K)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]
