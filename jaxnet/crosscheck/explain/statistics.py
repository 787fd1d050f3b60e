"""Normalisation: the terms through mean and variance, eps under the root, a factor that is one for each group.

With d for the gradient by what is normalised, n elements in a group, xc = x - mean and s^2 = mean(xc^2) + eps,

    true = (d - mean(d) - k xc mean(d xc) / s^2) / s

with k = 1. The claimed gradient has another k, or lacks mean(d), and gives the true one by a projection.
"""

from collections.abc import Callable, Iterator

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Groups, Slip
from jaxnet.crosscheck.explain.reductions import epsilons
from jaxnet.crosscheck.explain.wording import axes_in_words

SMALLEST_GROUP = 3
Formula = Callable[..., Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the term of a normalisation that is missing or wrong, along the axes where one is."""
    if evidence.own is None:
        return
    with np.errstate(all="ignore"):
        for find in (_terms, _scales, _from_dout):
            for groups in groupings(evidence):
                found = next(find(evidence, groups, evidence.own), None)
                if found is not None:
                    yield found
                    return


def groupings(evidence: Evidence) -> Iterator[Groups]:
    """Yields the axes that statistics may run over."""
    ndim = len(evidence.shape)
    every = tuple(range(ndim))
    choices = [(0,), (ndim - 1,), every[1:], (0, *every[2:]), every[2:], every[-2:]]
    for axes in dict.fromkeys(c for c in choices if c):
        groups = Groups(evidence, axes)
        if groups.size >= SMALLEST_GROUP and evidence.whole.size > groups.size:
            yield groups


def _mean(a: Array) -> Array:
    return a.mean(axis=1, keepdims=True)


def _without(k: float, eps: float, centred: bool, mean: bool = False) -> Formula:
    """Returns the projection that makes the true gradient of one whose last term has a factor k."""

    def formula(claimed: Array, x: Array) -> Array:
        xc = x - _mean(x) if centred else x
        square = _mean(xc**2)
        whole = square + eps
        base = claimed - _mean(claimed) if mean else claimed
        return base + (k - 1) * xc * _mean(base * xc) / (whole - k * square)

    return formula


def _terms(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The term through the mean, through the variance, through both, or through the mean square."""
    along, claimed = axes_in_words(groups.axes), evidence.whole
    sentence = f"the term through the mean is missing or wrong: the error is constant along {along}"
    made = groups.candidate(lambda c: c - _mean(c), claimed)
    if (found := groups.found(Slip.MEAN_TERM, sentence, made)) is not None:
        yield found
        return
    n = groups.size
    for k, what in (
        (0.0, "is missing"),
        (float(n), "has a sum for the mean"),
        (n / (n - 1), "is over n - 1, where n belongs"),
        ((n - 1) / n, "is over n, where n - 1 belongs"),
        (2.0, "is there twice"),
        (0.5, "is halved"),
        (-1.0, "has the wrong sign"),
    ):
        for eps in (0.0, *epsilons(evidence)):
            variance = (
                f"the term through the variance is missing or wrong: it {what}, the error is as x - mean along {along}"
            )
            if (
                found := groups.found(
                    Slip.VARIANCE_TERM, variance, groups.candidate(_without(k, eps, True), claimed, x)
                )
            ) is not None:
                yield found
                return
            square = f"the term through the mean square is missing or wrong: it {what}, the error is as x along {along}"
            if (
                found := groups.found(Slip.VARIANCE_TERM, square, groups.candidate(_without(k, eps, False), claimed, x))
            ) is not None:
                yield found
                return
            if k == 0.0:
                both = f"the terms through mean and variance are missing or wrong, along {along}"
                made = groups.candidate(_without(k, eps, True, mean=True), claimed, x)
                if (found := groups.found(Slip.STATISTICS, both, made)) is not None:
                    yield found
                    return


def _scales(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """One factor for each group: the standard deviation, its square, a norm, an eps under the root."""
    along = axes_in_words(groups.axes)
    for eps in (0.0, *epsilons(evidence)):
        for name, scale in (
            ("the standard deviation", lambda x, e=eps: np.sqrt(_mean((x - _mean(x)) ** 2) + e)),
            ("the variance", lambda x, e=eps: _mean((x - _mean(x)) ** 2) + e),
            ("the root mean square", lambda x, e=eps: np.sqrt(_mean(x**2) + e)),
            ("the norm", lambda x, e=eps: np.sqrt((x**2).sum(axis=1, keepdims=True) + e)),
            ("the squared norm", lambda x, e=eps: (x**2).sum(axis=1, keepdims=True) + e),
            ("the sum", lambda x, e=eps: x.sum(axis=1, keepdims=True) + e),
        ):
            if eps and name == "the sum":
                continue
            with_eps = f" (with eps = {eps:g})" if eps else ""
            for power, words in ((1, "is missing as a factor"), (-1, "is missing as a divisor")):
                made = groups.candidate(lambda c, x, s=scale, p=power: c * s(x) ** p, evidence.whole, x)
                sentence = f"{name} of {evidence.given.leaf} along {along}{with_eps} {words}, or there once too often"
                if (found := groups.found(Slip.MISSING_FACTOR, sentence, made)) is not None:
                    yield found
                    return
    yield from _eps_under_the_root(evidence, groups, x)


def _eps_under_the_root(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The root has an eps in one pass, and none in the other: sqrt(var / (var + eps)) is a factor of each group."""
    along = axes_in_words(groups.axes)
    for centred, name in ((True, "the variance"), (False, "the mean square")):

        def root(x: Array, eps: float, centred: bool = centred) -> Array:
            square = _mean((x - _mean(x)) ** 2) if centred else _mean(x**2)
            return np.sqrt(square / (square + eps))

        for eps in epsilons(evidence):
            for power, which in ((1, "forward"), (-1, "backward")):
                made = groups.candidate(lambda c, x, e=eps, p=power, r=root: c * r(x, e) ** p, evidence.whole, x)
                sentence = f"eps = {eps:g} is added to {name} along {along} under the root in {which} alone"
                if (found := groups.found(Slip.EPSILON, sentence, made)) is not None:
                    yield found
                    return


def _from_dout(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The layer is recognised by its true gradient, made of `dout` and gamma; then the claimed one is looked for."""
    if evidence.dout.shape != evidence.shape:
        return
    for gamma, factor in _gammas(evidence):
        for eps in (0.0, *epsilons(evidence)):
            for centred in (True, False):
                whole = evidence.dout * factor
                right = groups.candidate(_normalised(eps, centred), whole, x)
                if not evidence.fits(right[0], where=groups.inside):
                    continue
                layer = f"the normalisation along {axes_in_words(groups.axes)}"
                for sentence, slip, claimed in _variants(evidence, groups, x, gamma, factor, eps, centred):
                    if evidence.matches_claimed(claimed[0], where=~np.isnan(claimed[0])):
                        found = groups.found(slip, f"{sentence}: backward of {layer}", right)
                        if found is not None:
                            yield found
                return


def _gammas(evidence: Evidence) -> Iterator[tuple[str, Array]]:
    yield "", np.ones(1)
    for name, array in evidence.leaves.items():
        if name == evidence.given.leaf or array.ndim != 1:
            continue
        for axis, length in enumerate(evidence.shape):
            if length == array.size:
                yield name, array.reshape(tuple(-1 if a == axis else 1 for a in range(len(evidence.shape))))


def _normalised(eps: float, centred: bool, power: int = 2, absolute: bool = False) -> Formula:
    """Returns the gradient of a normalisation, with its last term divided by the root to some power."""

    def formula(d: Array, x: Array) -> Array:
        xc = x - _mean(x) if centred else x
        root = np.sqrt(_mean(xc**2) + eps)
        first = d - _mean(d) if centred and not absolute else d
        return (first - xc * _mean(d * xc) / root**power) / root

    return formula


def _variants(
    evidence: Evidence, groups: Groups, x: Array, gamma: str, factor: Array, eps: float, centred: bool
) -> Iterator[tuple[str, Slip, tuple[Array, Callable[[], Array]]]]:
    """Yields what people write for the gradient of a normalisation."""
    d = evidence.dout * factor
    if gamma:
        late = groups.candidate(_normalised(eps, centred), evidence.dout, x)
        values = late[0] * evidence.at(factor)
        yield f"{gamma} is multiplied in after the means are taken", Slip.STATISTICS, (values, late[1])
    for power in (0, 1, 3, 4):
        made = groups.candidate(_normalised(eps, centred, power), d, x)
        yield f"the last term is divided by the root {power} times, not twice", Slip.VARIANCE_TERM, made
    for other in groupings(evidence):
        if other.axes == groups.axes:
            continue
        made = other.candidate(_normalised(eps, centred), d, x)
        yield f"the means run over {axes_in_words(other.axes)}", Slip.WRONG_AXIS, made

        def mixed(other: Groups = other) -> tuple[Array, Callable[[], Array]]:
            """The statistics of forward, the means of backward over the other axes."""
            whole = _whole_axes(x, groups.axes, centred, eps)
            xhat, root = whole
            first = d - d.mean(axis=other.axes, keepdims=True) if centred else d
            values = (first - xhat * (d * xhat).mean(axis=other.axes, keepdims=True)) / root
            return values[evidence.index], lambda: values

        if evidence.whole.size <= 1 << 17:
            yield f"the means run over {axes_in_words(other.axes)} in backward", Slip.WRONG_AXIS, mixed()


def _whole_axes(x: Array, axes: tuple[int, ...], centred: bool, eps: float) -> tuple[Array, Array]:
    """Returns x normalised over some axes, and the root."""
    xc = x - x.mean(axis=axes, keepdims=True) if centred else x
    root = np.sqrt((xc**2).mean(axis=axes, keepdims=True) + eps)
    return xc / root, root
