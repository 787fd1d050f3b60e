"""Recognizes errors in the gradient of a cross-entropy: wrong targets, an eps in the log that is in one pass only."""

from collections.abc import Iterator

import numpy as np

from jaxnet.crosscheck.explain import softmax
from jaxnet.crosscheck.explain.array_factors import sigmoid
from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip
from jaxnet.crosscheck.explain.softmax import Softmax, softmax_of, softmax_of_rows

MOST_LOGITS = 1 << 18  # the largest leaf for which a whole loss is computed

Variant = tuple[Slip, str, Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the error in the gradient of a softmax or of a loss that contains one."""
    if evidence.whole.size <= MOST_LOGITS:
        yield from _cross_entropy(evidence)
        yield from _binary(evidence)
    for probabilities in softmax.softmaxes(evidence):
        yield from softmax.slips(evidence, probabilities)
        yield from _epsilon_without_labels(evidence, probabilities)


def _variants(evidence: Evidence, right: Array, variants: list[Variant]) -> Iterator[Diagnosis]:
    """Yields the variant that the claimed gradient equals, if `right` equals the true one."""
    if not evidence.fits(right[evidence.index]):
        return
    for slip, sentence, variant in variants:
        if evidence.matches_claimed(variant[evidence.index]):
            yield from evidence.test(slip, sentence, right[evidence.index], lambda: right)


def _targets(evidence: Evidence) -> Iterator[tuple[str, Array, Array | None]]:
    """Yields targets of the leaf's shape: name, values (one-hot or probabilities), and the labels if there are any."""
    if evidence.dout.size not in (1, evidence.whole.size) and evidence.dout.shape != evidence.shape[:-1]:
        return
    rows, classes = evidence.shape[:-1], evidence.shape[-1]
    for name, ids in evidence.inputs.integers.items():
        ids = np.asarray(ids)
        if ids.shape == rows and ids.size and ids.min() >= 0 and ids.max() < classes:
            yield name, (np.arange(classes) == ids[..., None]).astype(float), ids
        elif ids.shape == evidence.shape:
            yield name, ids.astype(float), None
    for name, array in evidence.leaves.items():
        if name != evidence.inputs.leaf and array.shape == evidence.shape and array.min() >= 0 and array.max() <= 1:
            yield name, array, None


def _multipliers(evidence: Evidence) -> Iterator[Array]:
    """Yields the arrays that p - t may be multiplied by: dout over the number of samples, or dout itself."""
    rows = evidence.shape[:-1]
    count = int(np.prod(rows)) if rows else 1
    if evidence.dout.size == 1:
        dout = evidence.dout.reshape(())
        yield dout / count
        if count > 1:
            yield dout
    elif evidence.dout.shape == rows:
        yield evidence.dout[..., None]


def _wrong_targets(scale: Array, p: Array, target: Array, logits: Array, name: str) -> list[Variant]:
    """Returns the ways to get a target wrong that do not depend on the kind of cross-entropy."""
    return [
        (Slip.TARGET, f"the target {name} is not subtracted: it is p, but should be p - {name}", scale * p),
        (Slip.TARGET, f"the target {name} is added instead of subtracted", scale * (p + target)),
        (Slip.TARGET, f"the target {name} is subtracted from the logits instead of from p", scale * (logits - target)),
    ]


def _cross_entropy(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the error if the leaf is the logits of a cross-entropy."""
    logits = evidence.own
    if logits is None or len(evidence.shape) < 2:
        return
    classes = evidence.shape[-1]
    p = softmax_of(logits, -1)
    for name, target, labels in _targets(evidence):
        for scale in _multipliers(evidence):
            right = scale * (p - target)
            shifted = f"the target {name} is shifted by one: each row uses that of the row"
            smoothed = f"the target {name} is smoothed by"
            variants = [
                *_wrong_targets(scale, p, target, logits, name),
                (Slip.ROW_SHIFT, f"{shifted} before", scale * (p - np.roll(target, 1, axis=0))),
                (Slip.ROW_SHIFT, f"{shifted} after", scale * (p - np.roll(target, -1, axis=0))),
                (Slip.TARGET, f"{smoothed} 0.1 in one pass only", scale * (p - (0.9 * target + 0.1 / classes))),
                (Slip.TARGET, f"{smoothed} 0.05 in one pass only", scale * (p - 0.95 * target - 0.05 / classes)),
                (Slip.TARGET, f"the target {name} is subtracted twice", scale * (p - 2 * target)),
                (
                    Slip.SOFTMAX_SUM,
                    "the softmax is differentiated once too often: there is an extra factor p (1 - p)",
                    right * p * (1 - p),
                ),
            ]
            yield from _variants(evidence, right, variants)
            if labels is not None and evidence.matches_claimed(right[evidence.index]):
                yield from _epsilon(evidence, np.take_along_axis(p, labels[..., None], -1), name)


def _epsilon_without_labels(evidence: Evidence, probabilities: Softmax) -> Iterator[Diagnosis]:
    """Yields an eps in the log where the labels are not known: the only negative element of a row is the label's."""
    if probabilities.axis != len(evidence.shape) - 1 or len(evidence.shape) < 2:
        return
    if evidence.dout.size != 1 or not ((evidence.whole < 0).sum(axis=-1) == 1).all():
        return
    if evidence.whole.size > MOST_LOGITS:
        return
    label = evidence.whole.argmin(axis=-1)[..., None]
    source, function = probabilities.source, probabilities.function
    p = softmax_of(source, -1) if function is softmax_of_rows else function(source)
    p_label = np.take_along_axis(p, label, -1)
    lowest = np.take_along_axis(evidence.whole, label, -1)
    scale = evidence.slope(lowest.ravel(), (p_label - 1).ravel())
    gap = np.abs(evidence.whole - scale * (p - (np.arange(evidence.shape[-1]) == label)))
    if gap.max() <= 1e-5 * np.abs(evidence.whole).max():
        yield from _epsilon(evidence, p_label, "the label")


def _epsilon(evidence: Evidence, p_label: Array, name: str) -> Iterator[Diagnosis]:
    """Yields an eps in forward, log(p + eps): the true gradient of each row is p / (p + eps) times the claimed one.

    `p_label` is the probability of each row's label, and `name` the name of the labels.
    """
    p = evidence.at(p_label)
    error, clear = evidence.claimed - evidence.true, np.abs(evidence.true) > 10 * evidence.tolerance
    if not clear.any():
        return
    eps = evidence.slope(error, np.where(clear, evidence.true / p, 0.0))
    rounded = float(f"{eps:.1g}") if eps > 0 else 0.0
    if not 1e-16 < rounded < 0.2:
        return
    if abs(rounded - eps) > 0.05 * eps:
        rounded = float(f"{eps:.2g}")
    yield from evidence.test(
        Slip.EPSILON,
        f"eps = {rounded:g} is only in forward, as in log(p + {rounded:g}), where p is the probability of {name}: "
        "p - t is not the derivative of that, so forward and backward do not match",
        evidence.claimed * p / (p + eps),
        lambda: evidence.whole * p_label / (p_label + eps),
        parameters=1,
    )


def _binary(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a wrong target if the leaf is the logits of a binary cross-entropy."""
    if evidence.own is None or evidence.dout.size not in (1, evidence.whole.size):
        return
    p = sigmoid(evidence.own)
    dout = evidence.dout.reshape(()) if evidence.dout.size == 1 else evidence.dout.reshape(evidence.shape)
    for name, target, _ in _targets(evidence):
        for count in (evidence.whole.size, evidence.shape[0], 1):
            scale = dout / count
            variants = _wrong_targets(scale, p, target, evidence.own, name)
            yield from _variants(evidence, scale * (p - target), variants)
