"""A term that is missing or there once too often: a skip connection, weight decay, one of two uses of a leaf."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Slip
from jaxnet.crosscheck.explain.wording import number

MOST_WORK = 3_000_000  # multiplications for one product
MOST_MATRICES = 6

Product = tuple[str, Array, Callable[[], Array]]  # its name, at the compared elements, and what makes the whole


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the term that is missing, or the product that is another."""
    with np.errstate(all="ignore"):
        for find in (_dout_once, _proportional, _constant, _products):
            found = next(find(evidence), None)
            if found is not None:
                yield found
                return


def _dout_once(evidence: Evidence) -> Iterator[Diagnosis]:
    """What goes past the layer: y = x + f(x)."""
    if evidence.dout.shape != evidence.shape:
        return
    dout, values = evidence.dout, evidence.dout[evidence.index]
    for sign, slip, sentence in (
        (1, Slip.TERM_MISSING, "the term dout is missing, as of what goes past the layer"),
        (-1, Slip.TERM_EXTRA, "the term dout is there once too often, as of what goes past the layer"),
    ):
        found = evidence.found(
            slip, sentence, evidence.claimed + sign * values, partial(lambda s: evidence.whole + s * dout, sign)
        )
        if found is not None:
            yield found


def _proportional(evidence: Evidence) -> Iterator[Diagnosis]:
    """The error is one number times the leaf: weight decay in one pass only."""
    if evidence.own is None:
        return
    own = evidence.own
    difference, basis = evidence.claimed - evidence.true, own[evidence.index]
    c = evidence.slope(difference, basis)
    name, slack = evidence.given.leaf, evidence.tolerance / max(np.abs(basis).max(), 1e-300)
    readings = tuple(
        f"{text}{key}, which is {value:.6g}"
        for key, value in evidence.given.numbers.items()
        for factor, text in ((1, ""), (2, "2 times "))
        if value and math.isclose(abs(c), factor * value, rel_tol=max(evidence.relative, 1e-6))
    )
    sentence = f"the error is {name} times {number(c, evidence, slack)}, as of weight decay in one pass only"
    found = evidence.found(
        Slip.TERM_EXTRA, sentence, evidence.claimed - c * basis, lambda: evidence.whole - c * own, 1, readings
    )
    if found is not None:
        yield found


def _constant(evidence: Evidence) -> Iterator[Diagnosis]:
    """The error is one number everywhere."""
    if evidence.wrong.sum() < 4 or not evidence.wrong.any():
        return
    c = float(np.median(evidence.claimed - evidence.true))
    if not np.ptp(evidence.true) > 100 * evidence.tolerance:
        return
    sentence = f"a constant, {number(c, evidence)}, is added everywhere"
    found = evidence.found(Slip.TERM_EXTRA, sentence, evidence.claimed - c, lambda: evidence.whole - c, parameters=1)
    if found is not None:
        yield found


def _matrices(evidence: Evidence) -> dict[str, Array]:
    """Returns the matrices that a gradient may be a product of."""
    candidates = {"dout": evidence.dout, **evidence.leaves, "output": evidence.output}
    found = {name: a for name, a in candidates.items() if a.ndim == 2 and a.size > 1}
    for name, array in evidence.leaves.items():
        if array.ndim == 1:
            found[name] = array[:, None]
    return dict(list(found.items())[:MOST_MATRICES])


def _products(evidence: Evidence) -> Iterator[Diagnosis]:
    """One product of matrices where another belongs, or a sum of two of which one is there."""
    if len(evidence.shape) != 2:
        return
    made = list(_all_products(evidence))
    right = [product for product in made if evidence.fits(product[1])]
    claimed = [product for product in made if evidence.matches_claimed(product[1])]
    for name, values, whole in right:
        for other, _, _ in claimed:
            found = evidence.found(Slip.WRONG_PRODUCT, f"it is {other}, where {name} belongs", values, whole)
            if found is not None:
                yield found
    for name, values, whole in made:
        for sign, slip, what in (
            (1, Slip.TERM_MISSING, "is missing, as of one of two uses"),
            (-1, Slip.TERM_EXTRA, "is there once too often"),
        ):
            found = evidence.found(
                slip,
                f"the term {name} {what}",
                evidence.claimed + sign * values,
                partial(lambda whole, sign: evidence.whole + sign * whole(), whole, sign),
            )
            if found is not None:
                yield found


def _all_products(evidence: Evidence) -> Iterator[Product]:
    """Yields the products of two and of three matrices that have the leaf's shape and dout as a factor."""
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
    inner = sum(a.shape[1] for a in arrays[:-1])
    return (evidence.compared.size + sum(a.size for a in arrays[1:-1])) * inner


def _at(arrays: list[Array], evidence: Evidence) -> Array:
    """Returns a product at the compared elements, arrays), without the rest of it."""
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
