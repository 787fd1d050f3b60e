"""Draws matrix functions with condition numbers up to a million."""

import math
from typing import Any

import numpy as np

from fuzz.trials import Operation, Trial, trial_of


def conditioned(rng: np.random.Generator, n: int, positive: bool) -> tuple[Any, float]:
    """Returns a matrix with a random condition number, and that number."""
    condition = 10.0 ** rng.uniform(0, 6)
    values = np.exp(np.linspace(0, -math.log(condition), n))
    q, p = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return (q * values) @ (q if positive else p).T, condition


def cholesky_back(d: Any, a: Any) -> Any:
    L = np.linalg.cholesky((a + a.T) / 2)
    P = np.tril(L.T @ d)
    P[np.diag_indices(len(P))] /= 2
    inner = np.linalg.solve(L.T, P) @ np.linalg.inv(L)
    return ((inner + inner.T) / 2,)


def eigen_back(d: Any, a: Any) -> Any:
    _, q = np.linalg.eigh((a + a.T) / 2)
    return ((q * d) @ q.T,)


def singular_back(d: Any, a: Any) -> Any:
    u, _, vt = np.linalg.svd(a)
    return ((u * d) @ vt,)


def solve_back(d: Any, a: Any, b: Any) -> Any:
    db = np.linalg.solve(a.T, d)
    return -db @ np.linalg.solve(a, b).T, db


def inverse_back(d: Any, a: Any) -> Any:
    y = np.linalg.inv(a)
    return (-y.T @ d @ y.T,)


MATRICES = {
    "solve": (lambda xp, a, b: xp.linalg.solve(a, b), solve_back, False),
    "inverse": (lambda xp, a: xp.linalg.inv(a), inverse_back, False),
    "cholesky": (lambda xp, a: xp.linalg.cholesky((a + a.T) / 2), cholesky_back, True),
    "logdet": (lambda xp, a: xp.linalg.slogdet(a)[1], lambda d, a: (d * np.linalg.inv(a).T,), False),
    "eigenvalues": (lambda xp, a: xp.linalg.eigvalsh((a + a.T) / 2), eigen_back, True),
    "singular_values": (lambda xp, a: xp.linalg.svd(a, compute_uv=False), singular_back, False),
    "cube": (lambda xp, a: a @ a @ a, lambda d, a: (d @ (a @ a).T + a.T @ d @ a.T + (a @ a).T @ d,), False),
}


def linear_algebra(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a matrix function with a condition number of up to 1e6."""
    name = str(rng.choice(list(MATRICES)))
    forward, backward, positive = MATRICES[name]
    n = int(rng.integers(2, 8))
    matrix, condition = conditioned(rng, n, positive)
    matrix = matrix * 10.0 ** rng.uniform(-3, 3)
    rest = [rng.standard_normal((n, int(rng.integers(1, 4))))] if name == "solve" else []
    op = Operation(forward, backward, lambda rng: [matrix, *rest])
    return trial_of(op, rng, seed, f"{name} of condition {condition:.1e}", ["float64"], [""])
