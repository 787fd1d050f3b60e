"""Kernels that accept only float32, with a gradient that is off by 1 % to 10 %."""

from jaxnet.crosscheck import check_layer
from mutants.kinds import wrong
from mutants.kinds.wrong_float32 import OPERATIONS, F, inputs_of, signature_of


def register_only(name, factor):
    """Registers an operation that accepts only float32."""
    forward, backward, _, _, shapes = OPERATIONS[name]

    def run(seed):
        inputs = inputs_of(shapes, seed, F)

        def f(*args):
            if any(a.dtype != F for a in args):
                raise TypeError(f"kernel: expected float32, got {[str(a.dtype) for a in args]}")
            return forward(*args), args

        def back(dout, cache):
            if dout.dtype != F:
                raise TypeError(f"kernel: expected a float32 dout, got {dout.dtype}")
            first, *others = backward(F(1), dout, *cache)
            return (F(factor) * first, *others)

        f.__signature__ = signature_of(forward, len(inputs))
        return check_layer((f, back), *inputs)

    sentence = f"Accepts only float32; the first gradient is off by {abs(factor - 1):.0%}."
    wrong(f"float32-only/{name}", sentence, off=abs(factor - 1) * 0.9, step=0.04, never="kink")(run)


for _name, _factor in {
    "layernorm": 1.1,
    "gelu": 1.02,
    "conv-im2col": 0.98,
    "attention": 1.05,
    "matmul-chain": 1.01,
    "cumsum": 0.97,
}.items():
    register_only(_name, _factor)
