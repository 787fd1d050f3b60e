"""Layers that move, gather, drop or add numbers: dropout, embedding, shapes, reductions."""

import jax.numpy as jnp
import numpy as np

from mutants.case import Family, different, size


def draw_mask(rng, scale):
    keep = float(rng.uniform(0.3, 0.8))
    mask = (rng.random((5, 6)) < keep).astype(float)
    mask.flat[:2] = 0, 1
    return scale * rng.standard_normal((5, 6)), mask / keep


dropout = Family(
    "dropout", "x mask",
    lambda x, mask: (x * mask, mask), lambda dout, mask: (dout * mask,), draw_mask, lambda x, mask: x * mask,
)  # fmt: skip
dropout.wrong("unscaled", "x", "backward does not divide by the keep probability",
              lambda dout, mask, dx: dout * (mask > 0), "mask")  # fmt: skip
dropout.wrong("scaled_twice", "x", "backward divides by the keep probability twice",
              lambda dout, mask, dx: dx * mask.max(), "mask")  # fmt: skip
dropout.wrong("no_mask", "x", "backward does not mask", lambda dout, mask, dx: dout * mask.max(), "mask is missing")
dropout.wrong("inverted", "x", "backward passes the dropped elements",
              lambda dout, mask, dx: dout * (mask == 0) * mask.max())  # fmt: skip


def draw_ids(rng, scale):
    rows, width = different(rng, 2, 4, 8)
    ids = rng.integers(0, rows, (3, 4))
    ids[0, :2] = ids[1, 0]
    return ids, scale * rng.standard_normal((rows, width))


def lookup_backward(dout, c):
    dW = np.zeros(c[1], dout.dtype)
    np.add.at(dW, c[0], dout)
    return None, dW


def counts(c):
    return np.maximum(np.bincount(c[0].ravel(), minlength=c[1][0]), 1)[:, None]


def assigned(dout, c, dW):
    dW = np.zeros_like(dW)
    dW[c[0]] = dout
    return dW


embedding = Family(
    "embedding", "ids W", lambda ids, W: (W[ids], (ids, W.shape)), lookup_backward, draw_ids, lambda ids, W: W[ids],
    parameters=1,
)  # fmt: skip
embedding.right("one_hot", "as a product with one-hot rows", lambda dout, c: (
    None, np.einsum("ntv,ntd->vd", np.eye(c[1][0])[c[0]], dout).astype(dout.dtype)))  # fmt: skip
embedding.right("no_ids", "returns only dW", lambda dout, c: lookup_backward(dout, c)[1:])
embedding.wrong("assigned", "W", "dW[ids] = dout: repeated ids keep the last", assigned, "overwritten")
embedding.wrong("mean", "W", "repeated ids are averaged", lambda dout, c, dW: (dW / counts(c)).astype(dW.dtype))
embedding.wrong("plus", "W", "dW[ids] += dout adds a repeated id once", lambda dout, c, dW: assigned(dout, c, dW),
                "overwritten")  # fmt: skip
embedding.wrong("first_column", "W", "only ids[:, 0] is used", lambda dout, c, dW:
                lookup_backward(dout[:, :1], (c[0][:, :1], c[1]))[1])  # fmt: skip

transpose = Family(
    "transpose", "x", lambda x: (x.transpose(1, 2, 0).copy(), None), lambda dout, _: (dout.transpose(2, 0, 1).copy(),),
    lambda rng, scale: (scale * rng.standard_normal((3, 3, 3)),), lambda x: x.transpose(1, 2, 0),
)  # fmt: skip
transpose.wrong("same", "x", "the permutation of forward instead of its inverse",
                lambda dout, _, dx: dout.transpose(1, 2, 0).copy())  # fmt: skip
transpose.wrong("none", "x", "not transposed back", lambda dout, _, dx: dout.copy(), "dout itself")

flatten = Family(
    "flatten", "x",
    lambda x: (x.reshape(len(x), -1).copy(), x.shape), lambda dout, shape: (dout.reshape(shape).copy(),),
    lambda rng, scale: (scale * rng.standard_normal((2, 3, 4, 4)),), lambda x: x.reshape(len(x), -1),
)  # fmt: skip
flatten.right("view", "returns a view of dout", lambda dout, shape: (dout.reshape(shape),))
flatten.wrong("order", "x", "height and width exchanged", lambda dout, c, dx: dx.swapaxes(2, 3).copy(), "transposed")
flatten.wrong("fortran", "x", "read back in the other memory order",
              lambda dout, shape, dx: np.ascontiguousarray(dout.reshape(shape, order="F")))  # fmt: skip

concat = Family(
    "concatenate", "a b", lambda a, b: (np.concatenate([a, b], axis=1), a.shape[1]),
    lambda dout, n: (dout[:, :n].copy(), dout[:, n:].copy()),
    lambda rng, scale: (scale * rng.standard_normal((3, 4)), scale * rng.standard_normal((3, 4))),
    lambda a, b: jnp.concatenate([a, b], axis=1),
)  # fmt: skip
concat.wrong("exchanged", "a", "a gets the part of b", lambda dout, n, da: dout[:, n:].copy())
concat.wrong("shifted", "b", "the split is one element too early", lambda dout, n, db: dout[:, n - 1 : -1].copy())

crop = Family(
    "slice", "x", lambda x: (x[:, 2:5].copy(), x.shape),
    lambda dout, shape: (np.pad(dout, ((0, 0), (2, shape[1] - 5))),),
    lambda rng, scale: (scale * rng.standard_normal((3, 8)),), lambda x: x[:, 2:5],
)  # fmt: skip
crop.wrong("start", "x", "put back at the beginning", lambda dout, shape, dx: np.roll(dx, -2, axis=1))
crop.wrong("off_by_one", "x", "put back one element too far", lambda dout, shape, dx: np.roll(dx, 1, axis=1))

padding = Family(
    "pad", "x", lambda x: (np.pad(x, ((0, 0), (1, 2))), None), lambda dout, _: (dout[:, 1:-2].copy(),),
    lambda rng, scale: (scale * rng.standard_normal((3, 6)),), lambda x: jnp.pad(x, ((0, 0), (1, 2))),
)  # fmt: skip
padding.wrong("uncut", "x", "the padding is cut off only at the end", lambda dout, _, dx: dout[:, :-3].copy())
padding.wrong("kept", "x", "the padding is not cut off", lambda dout, _, dx: dout.copy(), "shape")

mean = Family(
    "mean", "x",
    lambda x: (x.mean(axis=0), x.shape), lambda dout, shape: (np.broadcast_to(dout / shape[0], shape).copy(),),
    lambda rng, scale: (scale * rng.standard_normal((size(rng, 3), 4)),), lambda x: x.mean(axis=0),
)  # fmt: skip
mean.wrong("sum", "x", "the gradient of a sum", lambda dout, shape, dx: dx * shape[0], "a sum instead of a mean")
mean.wrong("size", "x", "divided by all elements", lambda dout, shape, dx: dx / shape[1], "a mean instead of a sum")
mean.wrong("unspread", "x", "not broadcast back, one row", lambda dout, shape, dx: dx[:1], "only broadcasts")

cumsum = Family(
    "cumsum", "x", lambda x: (x.cumsum(axis=1), None), lambda dout, _: (dout[:, ::-1].cumsum(axis=1)[:, ::-1].copy(),),
    lambda rng, scale: (scale * rng.standard_normal((3, 5)),), lambda x: x.cumsum(axis=1),
)  # fmt: skip
cumsum.wrong("forward", "x", "summed in the forward's order", lambda dout, _, dx: dout.cumsum(axis=1))
cumsum.wrong("unturned", "x", "summed from the end and not reversed", lambda dout, _, dx:
             dout[:, ::-1].cumsum(axis=1), "reverse")  # fmt: skip
cumsum.wrong("exclusive", "x", "without the element itself", lambda dout, _, dx: dx - dout)


def max_backward(dout, c):
    hit = c[0] == c[1]
    return (hit / hit.sum(axis=1, keepdims=True).astype(dout.dtype) * dout[:, None],)


def draw_ties(rng, scale):
    return (scale * rng.integers(-2, 3, (4, 6)).astype(float),)


highest = Family(
    "max", "x", lambda x: (x.max(axis=1), (x, x.max(axis=1, keepdims=True))), max_backward,
    lambda rng, scale: (scale * rng.standard_normal((4, 6)),), lambda x: x.max(axis=1),
)  # fmt: skip
highest.right("ties_shared", "ties share the gradient", max_backward, draw_ties)
highest.right("ties_first", "the first of several ties gets the gradient", lambda dout, c: (
    (np.arange(c[0].shape[1]) == c[0].argmax(axis=1)[:, None]) * dout[:, None],), draw_ties)  # fmt: skip
highest.right(
    "ties_last",
    "the last of several ties gets the gradient",
    lambda dout, c: (
        (np.arange(c[0].shape[1]) == c[0].shape[1] - 1 - c[0][:, ::-1].argmax(axis=1)[:, None]) * dout[:, None],
    ),
    draw_ties,
)
highest.wrong("ties_all", "x", "each of several ties gets the whole gradient", lambda dout, c, dx:
              (c[0] == c[1]) * dout[:, None], "",
              lambda rng, scale: (scale * rng.integers(0, 2, (4, 6)).astype(float),))  # fmt: skip
highest.wrong("mean", "x", "spread over the row, like the gradient of a mean", lambda dout, c, dx:
              np.broadcast_to(dout[:, None] / dx.shape[1], dx.shape).copy(), "broadcast")  # fmt: skip
highest.wrong("second", "x", "the smallest element gets the gradient", lambda dout, c, dx:
              (c[0] == c[0].min(axis=1, keepdims=True)) * dout[:, None])  # fmt: skip
