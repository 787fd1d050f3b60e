"""Adjoints of solvers that are wrong by at least 1e-3, and approximations that are worse than declared."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_function
from mutants.kinds import Draw, wrong


def spd(draw, n):
    """Returns a symmetric matrix of condition about 10."""
    a = draw(n, n)
    return a @ a.T / n + np.eye(n)


@wrong("solver/fixed-point-adjoint-stopped", "A fixed point is exact to 1e-12, its adjoint has three steps.", off=1e-5)
def _(seed):
    draw = Draw(seed)
    w = 0.4 * draw(4, 4) / 2

    def solve(b):
        y = np.zeros_like(b)
        for _ in range(200):
            y = np.tanh(w @ y + b)
        return y

    def gradient(b, dout):
        y = solve(b)
        slope, v = 1 - y * y, dout.copy()
        for _ in range(3):
            v = dout + w.T @ (slope * v)
        return slope * v

    return check_function(solve, draw(4), gradient=gradient)


@wrong("solver/implicit-with-a-wrong-matrix", "An implicit gradient uses I + J instead of I - J.", off=1e-3)
def _(seed):
    draw = Draw(seed)
    w = 0.05 * draw(4, 4)

    def solve(b):
        y = np.zeros_like(b)
        for _ in range(100):
            y = np.tanh(w @ y + b)
        return y

    def gradient(b, dout):
        slope = 1 - solve(b) ** 2
        return slope * np.linalg.solve(np.eye(4) + (slope[:, None] * w).T, dout)

    return check_function(solve, draw(4), gradient=gradient)


@wrong(
    "solver/conjugate-gradients-for-the-adjoint",
    "The adjoint of a solve is three steps of conjugate gradients.",
    off=1e-4,
)
def _(seed):
    draw = Draw(seed)
    a = spd(draw, 6)

    def gradient(b, dout):
        x, r = np.zeros_like(dout), dout.copy()
        p = r
        for _ in range(3):
            alpha = r @ r / (p @ a @ p)
            x, after = x + alpha * p, r - alpha * a @ p
            p, r = after + (after @ after) / (r @ r) * p, after
        return x

    return check_function(lambda b: np.linalg.solve(a, b), draw(6), gradient=gradient, name="solve")


@wrong("solver/ode-adjoint-by-euler", "Runge-Kutta steps, but Euler steps for the continuous adjoint.", off=1e-3)
def _(seed):
    def rate(y, k):
        return -k * np.sin(y)

    def solve(y, k, h=0.05):
        for _ in range(20):
            a = rate(y, k)
            b = rate(y + h / 2 * a, k)
            c = rate(y + h / 2 * b, k)
            y = y + h / 6 * (a + 2 * b + 2 * c + rate(y + h * c, k))
        return y

    def gradient(y0, k, dout):
        path, h = [y0], 0.05
        for _ in range(20):
            path.append(path[-1] + h * rate(path[-1], k))
        v, dk = dout, 0.0
        for y in path[:0:-1]:
            dk = dk - h * v * np.sin(y)
            v = v - h * v * k * np.cos(y)
        return v, dk

    draw = Draw(seed)
    return check_function(solve, draw(4), draw.positive(4), gradient=gradient)


@wrong("solver/root-slope-at-the-previous-step", "A root is differentiated 2e-3 away from it.", off=1e-3)
def _(seed):
    @jax.custom_vjp
    def root(a):
        y = jnp.ones_like(a)
        for _ in range(20):
            y = y - (y - jnp.cos(a * y)) / (1 + a * jnp.sin(a * y))
        return y

    def bwd(r, g):
        a, y = r
        return (-g * jnp.sin(a * y) * y / (1 + a * jnp.sin(a * y)),)

    root.defvjp(lambda a: (root(a), (a, root(a) + 2e-3)), bwd)
    return check_function(root, Draw(seed).positive(5, low=0.4, high=1.2))


@wrong(
    "solver/worse-than-the-declared-accuracy",
    "An accuracy of 1e-4 is declared, and the gradient is off by 1e-2.",
    off=5e-3,
)
def _(seed):
    def gradient(x, dout):
        return dout * np.cos(x) * 1.01

    return check_function(np.sin, Draw(seed)(6), gradient=gradient, accuracy=1e-4, name="sine")


@wrong("solver/one-leaf-worse-than-declared", "One of two gradients is off by 3e-2, where 1e-3 is allowed.", off=5e-3)
def _(seed):
    def gradient(x, w, dout):
        return dout * np.cos(x * w) * w * 1.0005, 0.97 * dout * np.cos(x * w) * x

    draw = Draw(seed)
    return check_function(lambda x, w: np.sin(x * w), draw(6), draw(6), gradient=gradient, accuracy=1e-3)


@wrong("solver/table-of-slopes", "tanh' is read from a table of 32 entries without interpolation.", off=1e-3)
def _(seed):
    grid = np.linspace(-4, 4, 33)

    def gradient(x, dout):
        return dout * (1 - np.tanh(grid) ** 2)[np.clip(np.round((x + 4) * 4).astype(int), 0, 32)]

    return check_function(np.tanh, Draw(seed)(9), gradient=gradient, name="tanh")


@wrong("solver/differences-as-gradient", "The gradient is a one-sided difference with a step of 1e-2.", off=1e-3)
def _(seed):
    def f(x):
        return float((np.sin(3 * x) ** 2).sum())

    def gradient(x):
        return np.array([(f(x + 1e-2 * e) - f(x)) / 1e-2 for e in np.eye(len(x))])

    return check_function(f, Draw(seed)(5), gradient=gradient)


@wrong(
    "solver/sinkhorn-gradient-of-few-iterations",
    "Thirty Sinkhorn iterations, whose cost is differentiated as if the plan were fixed.",
    off=1e-3,
)
def _(seed):
    def plan(cost):
        k, v = np.exp(-cost), np.ones(cost.shape[1])
        for _ in range(30):
            u = 1 / (k @ v)
            v = 1 / (k.T @ u)
        return u[:, None] * k * v

    return check_function(lambda c: float((plan(c) * c).sum()), Draw(seed).positive(4, 4), gradient=plan)


@wrong(
    "solver/quadrature-end-points", "The gradient of a trapezoidal integral gives the end points full weight.", off=1e-2
)
def _(seed):
    def integral(y, h=0.1):
        return float(h * (np.exp(y).sum() - np.exp(y[0]) / 2 - np.exp(y[-1]) / 2))

    return check_function(integral, Draw(seed)(8), gradient=lambda y: 0.1 * np.exp(y))
