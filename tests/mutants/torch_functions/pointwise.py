"""Functions of each element on its own."""

import math

import torch

from mutants.torch_functions.case import Formula, normal, shapes

ROOT = math.sqrt(2 / math.pi)
MATRIX = shapes((4, 5))


def with_zeros(generator):
    x = normal(generator, 4, 5)
    x.view(-1)[:6] = 0.0
    return (x,)


def at_limits(generator):
    x = 2 * normal(generator, 4, 5)
    x.view(-1)[:4] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    return (x,)


def large(generator):
    return (1e5 * normal(generator, 4, 5),)


def small(generator):
    return (1e-7 * normal(generator, 4, 5),)


square = Formula("square", lambda x: x * x, lambda dout, y, x: 2 * x * dout, MATRIX)
square.right("large", "at values near 10⁵", square.backward, large)
square.wrong("factor", "the factor 2 is missing", lambda dout, y, x: x * dout)
square.wrong("small", "the factor is 3, at values near 10⁻⁷", lambda dout, y, x: 3 * x * dout, small)

cosine = Formula("cosine", torch.cos, lambda dout, y, x: -torch.sin(x) * dout, MATRIX)
cosine.wrong("sign", "the sign is missing", lambda dout, y, x: torch.sin(x) * dout)

exponential = Formula("exponential", torch.exp, lambda dout, y, x: y * dout, MATRIX)
exponential.wrong("of_output", "exp is applied to the output again", lambda dout, y, x: torch.exp(y) * dout)

sigmoid = Formula("sigmoid", torch.sigmoid, lambda dout, y, x: y * (1 - y) * dout, MATRIX)
sigmoid.wrong("input", "1 - x in place of 1 - y", lambda dout, y, x: y * (1 - x) * dout)

relu = Formula("relu", torch.relu, lambda dout, y, x: dout * (x > 0), MATRIX)
relu.right("at_0", "some x are 0, where the gradient is 0", relu.backward, with_zeros)
relu.right("half_at_0", "some x are 0, where the gradient is dout / 2",
           lambda dout, y, x: dout * (1 + x.sign()) / 2, with_zeros)  # fmt: skip
relu.wrong("double_at_0", "some x are 0, where the gradient is 2 dout",
           lambda dout, y, x: dout * ((x >= 0).to(x) + (x == 0)), with_zeros)  # fmt: skip
relu.wrong("no_mask", "the mask is missing", lambda dout, y, x: dout.clone())

absolute = Formula("absolute", torch.abs, lambda dout, y, x: dout * x.sign(), MATRIX)
absolute.right("at_0", "some x are 0", absolute.backward, with_zeros)

clamp = Formula(
    "clamp", lambda x: x.clamp(-1, 1), lambda dout, y, x: dout * ((x > -1) & (x < 1)),
    lambda generator: (2 * normal(generator, 4, 5),),
)  # fmt: skip
clamp.right("at_limits", "some x are at the limits, where the gradient is dout",
            lambda dout, y, x: dout * ((x >= -1) & (x <= 1)), at_limits)  # fmt: skip
clamp.wrong("no_mask", "the mask is missing", lambda dout, y, x: dout.clone())
clamp.wrong("one_side", "only the upper limit is masked", lambda dout, y, x: dout * (x < 1))
clamp.wrong("mask_of_output", "the mask is of the output, with >= and <=, which all of it fulfils",
            lambda dout, y, x: dout * ((y >= -1) & (y <= 1)))  # fmt: skip


def gelu_tanh_slope(x):
    u = torch.tanh(ROOT * (x + 0.044715 * x**3))
    return (1 + u) / 2 + x / 2 * (1 - u**2) * ROOT * (1 + 3 * 0.044715 * x**2)


def gelu_slope(x):
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


gelu = Formula("gelu", torch.nn.functional.gelu, lambda dout, y, x: dout * gelu_slope(x), MATRIX)
gelu.wrong("tanh", "the slope is that of the approximation by tanh", lambda dout, y, x: dout * gelu_tanh_slope(x))

rounding = Formula("rounding", torch.round, lambda dout, y, x: torch.zeros_like(x), MATRIX)
rounding.wrong("straight_through", "dout passes straight through", lambda dout, y, x: dout.clone())

single = shapes((4, 5), dtype=torch.float32)
sine = Formula("sine_float32", torch.sin, lambda dout, y, x: torch.cos(x) * dout, single)
sine.wrong("one_percent", "1 % off in single precision", lambda dout, y, x: 1.01 * torch.cos(x) * dout)

inside = Formula(
    "float32_inside", lambda x: torch.sin(x.float()).to(x), lambda dout, y, x: torch.cos(x.float()).to(x) * dout, MATRIX
)
inside.wrong(
    "sign", "the sign, in code that computes in float32", lambda dout, y, x: -torch.cos(x.float()).to(x) * dout
)

precise = Formula("cubed", lambda x: x**3, lambda dout, y, x: 3 * x * x * dout, MATRIX)
precise.wrong("in_half", "backward computes in half precision",
              lambda dout, y, x: (3 * x.half() * x.half() * dout.half()).to(x))  # fmt: skip
precise.wrong("in_bfloat16", "dout is rounded to bfloat16", lambda dout, y, x: 3 * x * x * dout.bfloat16().to(x))
