"""Recognizes a term of a sum that is missing or extra: a skip connection, weight decay, one of two uses of a leaf."""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence, Make
from jaxnet.crosscheck.explain.phrases import number
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

MOST_WORK = 3_000_000  # the most multiplications for one product
MOST_MATRICES = 6

Product = tuple[str, Array, Make]  # name, values at the compared elements, a function that returns all values


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a term that is missing or extra, or a product of matrices that is another one's."""
    for find in (_skip_connection, _weight_decay, _constant, _products):
        yield from find(evidence)


def _skip_connection(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields `dout` as a missing or extra term, as from y = x + f(x)."""
    if evidence.dout.shape != evidence.shape:
        return
    dout, values = evidence.dout, evidence.dout[evidence.index]
    for sign, slip, sentence in (
        (1, Slip.TERM_MISSING, "the term dout is missing, as from a skip connection"),
        (-1, Slip.TERM_EXTRA, "the term dout is added once too often, as from a skip connection"),
    ):
        yield from evidence.test(
            slip, sentence, evidence.claimed + sign * values, partial(lambda s: evidence.whole + s * dout, sign)
        )


def _weight_decay(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields an error that is the leaf times a number."""
    if evidence.own is None:
        return
    own = evidence.own
    difference, basis = evidence.claimed - evidence.true, own[evidence.index]
    c = evidence.slope(difference, basis)
    name, slack = evidence.inputs.leaf, evidence.tolerance / max(np.abs(basis).max(), 1e-300)
    readings = tuple(
        f"{text}{key}, which is {value:.6g}"
        for key, value in evidence.inputs.numbers.items()
        for factor, text in ((1, ""), (2, "2 times "))
        if value and math.isclose(abs(c), factor * value, rel_tol=max(evidence.relative, 1e-6))
    )
    sentence = f"the error is {name} times {number(c, evidence, slack)}, as from weight decay in one pass only"
    yield from evidence.test(
        Slip.TERM_EXTRA, sentence, evidence.claimed - c * basis, lambda: evidence.whole - c * own, 1, readings
    )


def _constant(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields an error that is one number everywhere."""
    if evidence.wrong.sum() < 4:
        return
    c = float(np.median(evidence.claimed - evidence.true))
    if not np.ptp(evidence.true) > 100 * evidence.tolerance:
        return
    sentence = f"a constant, {number(c, evidence)}, is added everywhere"
    yield from evidence.test(Slip.TERM_EXTRA, sentence, evidence.claimed - c, lambda: evidence.whole - c, parameters=1)


def _matrices(evidence: Evidence) -> dict[str, Array]:
    """Returns the matrices that a gradient may be a product of; a vector counts as one column."""
    candidates = {"dout": evidence.dout, **evidence.leaves, "output": evidence.output}
    matrices = {name: a for name, a in candidates.items() if a.ndim == 2 and a.size > 1}
    matrices |= {name: a[:, None] for name, a in evidence.leaves.items() if a.ndim == 1}
    return dict(itertools.islice(matrices.items(), MOST_MATRICES))


def _products(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a product of matrices that is another one's, or a product that is a missing or extra term."""
    if len(evidence.shape) != 2:
        return
    products = list(_all_products(evidence))
    right = [product for product in products if evidence.fits(product[1])]
    claimed = [product for product in products if evidence.matches_claimed(product[1])]
    for name, values, whole in right:
        for other, _, _ in claimed:
            yield from evidence.test(Slip.WRONG_PRODUCT, f"it is {other}, but should be {name}", values, whole)
    for name, values, whole in products:
        for sign, slip, what in (
            (1, Slip.TERM_MISSING, "is missing, as if the leaf were used once instead of twice"),
            (-1, Slip.TERM_EXTRA, "is added once too often"),
        ):
            yield from evidence.test(
                slip,
                f"the term {name} {what}",
                evidence.claimed + sign * values,
                partial(lambda whole, sign: evidence.whole + sign * whole(), whole, sign),
            )


def _all_products(evidence: Evidence) -> Iterator[Product]:
    """Yields the products of two or three matrices that have the leaf's shape and contain dout once."""
    sides = [
        (name + suffix, array.T if suffix else array)
        for name, array in _matrices(evidence).items()
        for suffix in ("", ".T")
    ]
    for factors in itertools.chain(itertools.product(sides, repeat=2), itertools.product(sides, repeat=3)):
        arrays = [array for _, array in factors]
        if (arrays[0].shape[0], arrays[-1].shape[1]) != evidence.shape:
            continue
        if any(a.shape[1] != b.shape[0] for a, b in itertools.pairwise(arrays)):
            continue
        if sum(name.startswith("dout") for name, _ in factors) != 1:
            continue
        if _work(arrays, evidence) > MOST_WORK:
            continue
        yield " @ ".join(name for name, _ in factors), _at(arrays, evidence), partial(_whole, arrays)


def _work(arrays: list[Array], evidence: Evidence) -> int:
    """Returns the number of multiplications for a product at the compared elements."""
    inner = sum(a.shape[1] for a in arrays[:-1])
    return (evidence.compared.size + sum(a.size for a in arrays[1:-1])) * inner


def _at(arrays: list[Array], evidence: Evidence) -> Array:
    """Returns a product at the compared elements without computing the rest of it."""
    rows, inverse = np.unique(evidence.index[0], return_inverse=True)
    left = arrays[0][rows]
    for array in arrays[1:-1]:
        left = left @ array
    return np.einsum("ki,ki->k", left[inverse], arrays[-1].T[evidence.index[1]])


def _whole(arrays: list[Array]) -> Array:
    product = arrays[0]
    for array in arrays[1:]:
        product = product @ array
    return product
