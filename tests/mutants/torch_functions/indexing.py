"""Gathering, scattering, embeddings and maxima."""

import torch

from mutants.torch_functions.case import Formula, normal

IDS = torch.tensor([2, 0, 2, 1, 2])
PADDING = 0


def table(generator):
    return normal(generator, 4, 3), IDS


def wide(generator):
    return normal(generator, 3, 5), torch.tensor([[0, 0, 2], [1, 3, 3], [4, 4, 4]])


def square(generator):
    return normal(generator, 3, 3), torch.tensor([[0, 1, 2], [1, 2, 0], [2, 2, 1]])


def ties(generator):
    x = normal(generator, 4, 6)
    x[:, 1] = x[:, 4] = x.amax(1) + 1
    return (x,)


embedding = Formula(
    "embedding",
    lambda w, ids: w[ids],
    lambda dout, y, w, ids: torch.zeros_like(w).index_add(0, ids, dout),
    table,
)
embedding.wrong("assignment", "repeated ids overwrite each other",
                lambda dout, y, w, ids: torch.zeros_like(w).index_copy(0, ids, dout))  # fmt: skip

padded = Formula(
    "padded_embedding",
    lambda w, ids: w[ids] * (ids != PADDING)[:, None],
    lambda dout, y, w, ids: torch.zeros_like(w).index_add(0, ids, dout * (ids != PADDING)[:, None]),
    table,
)
padded.wrong("padding", "the padding gets a gradient",
             lambda dout, y, w, ids: torch.zeros_like(w).index_add(0, ids, dout))  # fmt: skip
padded.wrong("other_padding", "the last row is taken as padding", lambda dout, y, w, ids:
             torch.zeros_like(w).index_add(0, ids, dout * (ids != len(w) - 1)[:, None]))  # fmt: skip

gathered = Formula(
    "gathered",
    lambda x, ids: x.gather(1, ids),
    lambda dout, y, x, ids: torch.zeros_like(x).scatter_add(1, ids, dout),
    wide,
)
gathered.wrong("scatter", "scatter in place of scatter_add",
               lambda dout, y, x, ids: torch.zeros_like(x).scatter(1, ids, dout))  # fmt: skip

scattered = Formula(
    "scattered",
    lambda x, ids: torch.zeros_like(x).scatter_add(1, ids, x),
    lambda dout, y, x, ids: dout.gather(1, ids),
    square,
)
scattered.wrong("dim", "gathered along the other dim", lambda dout, y, x, ids: dout.gather(0, ids))


def at_maximum(x):
    return (x == x.amax(1, keepdim=True)).to(x)


def maximum_gradient(dout, y, x):
    mask = at_maximum(x)
    return dout[:, None] * mask / mask.sum(1, keepdim=True)


maximum = Formula("maximum", lambda x: x.amax(1), maximum_gradient, lambda generator: (normal(generator, 4, 6),))
maximum.right("ties", "two maxima share the gradient", maximum_gradient, ties)
maximum.right("first_of_ties", "the first of two maxima gets the gradient", lambda dout, y, x:
              torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), dout[:, None]), ties)  # fmt: skip
maximum.wrong("all_ties", "each of two maxima gets the whole gradient", lambda dout, y, x:
              dout[:, None] * at_maximum(x), ties)  # fmt: skip
maximum.wrong("smallest", "the smallest gets the gradient", lambda dout, y, x:
              dout[:, None] * (x == x.amin(1, keepdim=True)))  # fmt: skip
