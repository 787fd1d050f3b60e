"""Right layers that compute in float32 for inputs of every dtype, each with float32 and float64 arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_layer
from mutants.kinds import Draw, right
from mutants.kinds.right_operations import OPERATIONS, cross_entropy, cross_entropy_backward


def in_float32(forward, backward):
    """Returns the pair that rounds its inputs to float32 and computes in float32."""

    def narrow(v):
        return np.asarray(v).astype(np.float32) if np.asarray(v).dtype.kind == "f" else v

    def narrow_backward(dout, cache):
        return backward(narrow(dout), cache)

    return lambda *inputs: forward(*map(narrow, inputs)), narrow_backward


def register(name, forward, backward, draw, reference):
    for dtype in ("float32", "float64"):
        for in_jax in (None, reference):

            @right(
                f"float32/{name}-{dtype}" + ("-reference" if in_jax else ""),
                f"{name} computes in float32 on {dtype} arrays" + (" and a JAX reference" if in_jax else ""),
                never="kink",
                step=3e-2,
            )
            def check(seed, dtype=dtype, in_jax=in_jax):
                inputs = [v.astype(dtype) if v.dtype.kind == "f" else v for v in draw(Draw(seed))]
                return check_layer(renamed(in_float32(forward, backward), name), *inputs, reference=in_jax)


def renamed(pair, name):
    pair[0].__name__ = name
    return pair


for label, (fwd, bwd, shapes, ref) in OPERATIONS.items():
    register(label, fwd, bwd, lambda draw, shapes=shapes: [draw(*shape) for shape in shapes], ref)
register(
    "cross_entropy",
    cross_entropy,
    cross_entropy_backward,
    lambda draw: [3 * draw(6, 5), draw.labels(6, 5)],
    lambda x, t: -jax.nn.log_softmax(x)[jnp.arange(len(t)), t].mean(),
)
