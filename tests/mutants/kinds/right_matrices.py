"""Right gradients of linear algebra, some of it ill-conditioned, and of functions of statistics."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, special

from jaxnet.crosscheck import check_function
from mutants.kinds import Draw, right


def conditioned(draw, condition, n=5):
    """Returns a symmetric positive definite matrix of a condition number."""
    q, _ = np.linalg.qr(draw(n, n))
    return q * np.geomspace(1, 1 / condition, n) @ q.T


@right("linear-algebra/solve-of-condition-1e5", "a solve whose matrix has condition 1e5", never="kink")
def solve(seed):
    draw = Draw(seed)

    def gradient(a, b, dout):
        db = np.linalg.solve(a.T, dout)
        return -db @ np.linalg.solve(a, b).T, db

    return check_function(lambda a, b: np.linalg.solve(a, b), conditioned(draw, 1e5), draw(5, 2), gradient=gradient)


@right("linear-algebra/inverse", "a matrix's inverse, condition 1e3", never="kink")
def inverse(seed):
    def gradient(a, dout):
        y = np.linalg.inv(a)
        return -y.T @ dout @ y.T

    return check_function(lambda a: np.linalg.inv(a), conditioned(Draw(seed), 1e3), gradient=gradient)


@right("linear-algebra/log-determinant", "log |A| by slogdet, condition 1e4", never="kink")
def log_determinant(seed):
    return check_function(
        lambda a: np.linalg.slogdet(a)[1], conditioned(Draw(seed), 1e4), gradient=lambda a: np.linalg.inv(a).T
    )


@right("linear-algebra/determinant", "a determinant, by cofactors from the inverse", never="kink")
def determinant(seed):
    return check_function(np.linalg.det, Draw(seed)(4, 4), gradient=lambda a: np.linalg.det(a) * np.linalg.inv(a).T)


@right(
    "linear-algebra/cholesky-reads-the-lower-half", "Cholesky of the lower triangle, whose gradient is lower as well"
)
def cholesky(seed):
    def factor(a):
        return np.linalg.cholesky(np.tril(a) + np.tril(a, -1).T)

    def gradient(a, dout):
        low = factor(a)
        p = np.tril(low.T @ dout)
        p[np.diag_indices(len(p))] /= 2
        s = np.linalg.solve(low.T, np.linalg.solve(low.T, p.T).T)
        s = s + s.T
        return np.tril(s) - np.diag(np.diag(s)) / 2

    return check_function(factor, conditioned(Draw(seed), 50), gradient=gradient)


@right("linear-algebra/matrix-exponential", "expm, with the gradient read from the exponential of a block matrix")
def exponential(seed):
    def gradient(a, dout):
        n = len(a)
        return linalg.expm(np.block([[a.T, dout], [np.zeros((n, n)), a.T]]))[:n, n:]

    return check_function(lambda a: linalg.expm(a), Draw(seed)(4, 4), gradient=gradient)


@right("linear-algebra/nuclear-norm", "the sum of singular values, with U V^T")
def nuclear(seed):
    def gradient(a):
        u, _, vt = np.linalg.svd(a, full_matrices=False)
        return u @ vt

    return check_function(lambda a: np.linalg.svd(a, compute_uv=False).sum(), Draw(seed)(5, 3), gradient=gradient)


@right("linear-algebra/eigenvalues-of-the-symmetric-part", "eigenvalues of (A + A^T) / 2, with v v^T")
def eigenvalues(seed):
    def gradient(a, dout):
        _, v = np.linalg.eigh((a + a.T) / 2)
        return v * dout @ v.T

    return check_function(lambda a: np.linalg.eigvalsh((a + a.T) / 2), Draw(seed)(4, 4), gradient=gradient)


@right("linear-algebra/least-squares", "ridge regression, differentiated through the normal equations")
def ridge(seed):
    draw = Draw(seed)

    def parts(x, y):
        h = x.T @ x + 1e-3 * np.eye(x.shape[1])
        return h, np.linalg.solve(h, x.T @ y)

    def gradient(x, y, dout):
        h, w = parts(x, y)
        u = np.linalg.solve(h, dout)
        return np.outer(y - x @ w, u) - np.outer(x @ u, w), x @ u

    return check_function(lambda x, y: parts(x, y)[1], draw(8, 3), draw(8), gradient=gradient)


@right("linear-algebra/gaussian-log-likelihood", "the evidence of a Gaussian process, given length scale and noise")
def evidence(seed):
    draw = Draw(seed)
    x, y = np.sort(draw(8)), draw(8)
    square = (x[:, None] - x) ** 2

    def covariance(scale, noise):
        return np.exp(-square / (2 * scale**2)) + noise * np.eye(8)

    def loss(scale, noise):
        k = covariance(scale, noise)
        return 0.5 * y @ np.linalg.solve(k, y) + 0.5 * np.linalg.slogdet(k)[1]

    def gradient(scale, noise):
        k = covariance(scale, noise)
        inner = np.linalg.inv(k)
        a = inner @ y
        dk = 0.5 * (inner - np.outer(a, a))
        return np.array((dk * (k - noise * np.eye(8)) * square / scale**3).sum()), np.array(np.trace(dk))

    return check_function(loss, np.array(0.8), np.array(0.05), gradient=gradient)


STATISTICS = {
    "gamma": (special.gamma, lambda x: special.gamma(x) * special.digamma(x)),
    "log-gamma": (special.gammaln, special.digamma),
    "digamma": (special.digamma, lambda x: special.polygamma(1, x)),
    "error-function": (special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "normal-distribution-function": (special.ndtr, lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi)),
    "log-of-the-normal-tail": (
        lambda x: special.log_ndtr(-8 * x),
        lambda x: -8 * np.exp(-32 * x * x - special.log_ndtr(-8 * x)) / np.sqrt(2 * np.pi),
    ),
    "bessel": (special.j0, lambda x: -special.j1(x)),
    "softplus": (lambda x: np.logaddexp(0, 40 * x), lambda x: 40 * special.expit(40 * x)),
}

for label, (function, slope) in STATISTICS.items():

    @right(f"special/numpy-{label}", f"{label} by SciPy, with the derivative of the tables")
    def check(seed, function=function, slope=slope):
        x = Draw(seed).positive(5, low=0.3, high=4)
        return check_function(lambda x: function(x), x, gradient=lambda x, dout: dout * slope(x))


JAX_LINEAR = {
    "solve": lambda a: jnp.linalg.solve(a, jnp.ones(4)),
    "inv": jnp.linalg.inv,
    "slogdet": lambda a: jnp.linalg.slogdet(a)[1],
    "det": jnp.linalg.det,
    "cholesky": lambda a: jnp.linalg.cholesky(a @ a.T + jnp.eye(4)),
    "eigh": lambda a: jnp.linalg.eigh(a + a.T)[0],
    "svd": lambda a: jnp.linalg.svd(a, compute_uv=False),
    "qr": lambda a: jnp.linalg.qr(a)[1],
    "pinv": lambda a: jnp.linalg.pinv(a[:, :3]),
    "norm": jnp.linalg.norm,
    "spectral-norm": lambda a: jnp.linalg.norm(a, ord=2),
    "matrix-power": lambda a: jnp.linalg.matrix_power(a, 3),
    "expm": lambda a: jax.scipy.linalg.expm(a),
    "triangular-solve": lambda a: jax.scipy.linalg.solve_triangular(a, jnp.ones(4), lower=True),
    "lstsq": lambda a: jnp.linalg.lstsq(a[:, :2], jnp.ones(4))[0],
}

for label, jax_function in JAX_LINEAR.items():

    @right(f"jax-linear-algebra/{label}", f"jax's own derivative of {label} of a well-conditioned matrix")
    def check_jax(seed, jax_function=jax_function):
        return check_function(jax_function, 3 * np.eye(4) + Draw(seed)(4, 4))
