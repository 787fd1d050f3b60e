"""Unchanged functions of jax.nn, jax.scipy.special and jax.numpy, with JAX's derivatives."""

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from jaxnet.crosscheck import check_function
from mutants.kinds import Draw, right

NN = {
    "relu": jax.nn.relu, "relu6": jax.nn.relu6, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus,
    "sparse_plus": jax.nn.sparse_plus, "sparse_sigmoid": jax.nn.sparse_sigmoid, "soft_sign": jax.nn.soft_sign,
    "silu": jax.nn.silu, "log_sigmoid": jax.nn.log_sigmoid, "leaky_relu": jax.nn.leaky_relu,
    "hard_sigmoid": jax.nn.hard_sigmoid, "hard_silu": jax.nn.hard_silu, "hard_tanh": jax.nn.hard_tanh,
    "elu": jax.nn.elu, "celu": jax.nn.celu, "selu": jax.nn.selu, "gelu": jax.nn.gelu,
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False), "glu": lambda x: jax.nn.glu(x, axis=-1),
    "squareplus": jax.nn.squareplus, "mish": jax.nn.mish, "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax, "logmeanexp": jax.nn.logmeanexp, "logsumexp": jax.nn.logsumexp,
    "standardize": jax.nn.standardize, "tanh": jax.nn.tanh, "identity": jax.nn.identity, "swish": jax.nn.swish,
    "normalize": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "log1mexp": lambda x: jax.nn.log1mexp(
        jnp.abs(x)),
}  # fmt: skip

for label, function in NN.items():

    @right(f"jax-nn/{label}", f"jax.nn.{label} at typical points")
    def check_nn(seed, function=function):
        return check_function(function, Draw(seed)(4, 6))

    if label in ("relu", "relu6", "hard_tanh", "hard_silu", "leaky_relu", "selu", "elu", "soft_sign", "sparse_plus"):

        @right(f"jax-nn/{label}-at-whole-numbers", f"jax.nn.{label} at whole numbers, of which some are corners")
        def check_whole(seed, function=function):
            return check_function(function, Draw(seed).rng.integers(-3, 8, (4, 6)).astype(float))

    if label in ("softmax", "gelu", "silu", "log_softmax", "standardize", "softplus"):

        @right(f"jax-nn/{label}-float32", f"jax.nn.{label} of float32 arrays", step=3e-2)
        def check_single(seed, function=function):
            return check_function(function, Draw(seed)(4, 6, dtype=np.float32))


# spence is left out: its gradient by JAX is 0 at 1 and nan above 1, up to 2, where log(x) / (1 - x) is smooth.
SPECIAL = {
    "erf": special.erf, "erfc": special.erfc, "erf_inv": lambda x: special.erfinv(x / 4),
    "gammaln": special.gammaln, "gamma": special.gamma, "digamma": special.digamma,
    "beta": lambda x: special.beta(x, 1.7), "betaln": lambda x: special.betaln(x, 0.6),
    "expit": special.expit, "logit": lambda x: special.logit(x / 4), "entr": special.entr,
    "ndtr": special.ndtr, "ndtri": lambda x: special.ndtri(x / 4), "log_ndtr": special.log_ndtr,
    "i0": special.i0, "i0e": special.i0e, "i1": special.i1, "i1e": special.i1e,
    "xlogy": lambda x: special.xlogy(x, x + 1), "xlog1py": lambda x: special.xlog1py(x, x),
    "kl_div": lambda x: special.kl_div(x, x * x), "rel_entr": lambda x: special.rel_entr(x, 2 + x),
    "polygamma": lambda x: special.polygamma(2, x), "zeta": lambda x: special.zeta(3.0, x),
    "expi": special.expi, "exp1": special.exp1, "multigammaln": lambda x:
    special.multigammaln(x + 2, 3), "gammainc": lambda x: special.gammainc(1.3, x),
    "gammaincc": lambda x: special.gammaincc(2.1, x), "betainc": lambda x: special.betainc(1.2, 2.3, x / 4),
    "sinc": lambda x: jnp.sinc(x - 1), "logsumexp": special.logsumexp, "softmax": special.softmax,
}  # fmt: skip

for label, function in SPECIAL.items():

    @right(f"jax-special/{label}", f"{label} of jax.scipy.special at typical points")
    def check_special(seed, function=function):
        return check_function(function, Draw(seed).positive(6, low=0.4, high=3.5))


NUMPY = {
    "sort": jnp.sort, "median": lambda x: jnp.median(x, axis=1), "max": lambda x: x.max(axis=1), "cumprod":
    lambda x: jnp.cumprod(x, axis=1), "prod-with-a-zero": lambda x: jnp.prod(x * (x != x[0, 0]), axis=1),
    "var": lambda x: x.var(axis=0), "quantile": lambda x: jnp.quantile(x, 0.3, axis=1), "fft": lambda x:
    jnp.abs(jnp.fft.fft(x)) ** 2, "rfft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * 2j).real, "interp": lambda x:
    jnp.interp(x, jnp.linspace(-4, 4, 7), jnp.sin(jnp.linspace(-4, 4, 7))), "convolve": lambda x:
    jnp.convolve(x[0], x[1]), "einsum": lambda x: jnp.einsum("ij,kj->ik", x, x), "where-guarded": lambda x:
    jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), "top_k": lambda x: jax.lax.top_k(x, 3)[0],
    "hypot": lambda x: jnp.hypot(x, x[::-1]), "arctan2": lambda x: jnp.arctan2(x, x[:, ::-1] + 3), "power":
    lambda x: jnp.abs(x) ** (1 + jnp.tanh(x)), "mod": lambda x: jnp.mod(x, 0.37) ** 2,
}  # fmt: skip

for label, function in NUMPY.items():

    @right(f"jax-numpy/{label}", f"{label} by jax.numpy")
    def check_numpy(seed, function=function):
        return check_function(function, Draw(seed)(4, 6))
