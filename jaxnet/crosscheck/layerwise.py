"""Checks a network as a whole and its layers one by one, so that a wrong one accuses nobody else.

A wrong backward passes wrong gradients on to every layer before it. Judged alone, at the input that the network gives
it and a gradient from above that owes nothing to the others, each layer answers for itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from jaxnet.crosscheck.context import Options
from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.examine import examine
from jaxnet.crosscheck.explain.evidence import Slip
from jaxnet.crosscheck.inspect import Array, Checkable, CheckableLayer, CheckableNetwork, SubjectError, chain
from jaxnet.crosscheck.measure.findings import Behaviour
from jaxnet.crosscheck.meter import metered
from jaxnet.crosscheck.report import Leaf, Report

NETWORK_SAMPLES = 24  # elements of a network's wrong leaf that are derived: its layers, alone, show more


class Judged(NamedTuple):
    """A layer, the gradient from above that the network gives it, and its report."""

    layer: CheckableLayer
    dout: Array | None
    report: Report


def examine_layers(title: str, network: CheckableNetwork, reference: Checkable | None, options: Options) -> Report:
    """Returns the report of the whole, with one of each layer, and with the cause of a wrong leaf where it belongs."""
    with metered(title, options.max_seconds) as meter:
        whole = examine(title, network, reference, replace(options, samples=NETWORK_SAMPLES))
        alone = replace(options, expected=None)
        judged = [_judged(name, layer, dout, alone) for name, layer, dout in network.layers()]
        layers = _together(judged, alone)
        if whole.verdict is Verdict.PASS:
            layers = tuple(_excused(layer) for layer in layers)
        owners = network.owners()
        leaves = tuple(_attributed(leaf, owners.get(leaf.name), layers) for leaf in whole.leaves)
        return replace(whole, leaves=leaves, layers=layers, calls=meter.calls, seconds=meter.seconds)


def _judged(name: str, layer: CheckableLayer, dout: Array | None, options: Options) -> Judged:
    """Checks a layer alone; one that ignores `dout`, as a last layer may, with the only one that it is given."""
    report = examine(name, layer, None, options)
    if dout is not None and Behaviour.IGNORES_DOUT in report.faults:
        report = examine(name, layer, None, replace(options, dout=dout))
    return Judged(layer, dout, report)


def _together(judged: Sequence[Judged], options: Options) -> tuple[Report, ...]:
    """Returns the layers' reports, with one for two neighbours that are wrong alone and right together.

    A softmax may leave its derivative to the loss that follows, which then has the simple one of both.
    """
    reports: list[Report] = []
    previous: Judged | None = None
    for current in judged:
        wrong = current.report.verdict is Verdict.FAIL
        if wrong and previous is not None and previous.report.verdict is Verdict.FAIL:
            both = _chained(previous, current, options)
            if both is not None:
                reports[-1] = both
                previous = None
                continue
        reports.append(current.report)
        previous = current
    return tuple(reports)


def _excused(report: Report) -> Report:
    """Returns a layer that only overwrites its `dout` with a warning: in a network that is right nobody needed it."""
    if report.verdict is not Verdict.FAIL or set(report.faults) != {Behaviour.OVERWRITES_DOUT}:
        return report
    excused = replace(report, behaviour=(), faults=(), warnings=(*report.warnings, *report.behaviour))
    return report if excused.verdict is Verdict.FAIL else excused


def _chained(first: Judged, second: Judged, options: Options) -> Report | None:
    """Returns the report of two layers as one, if it passes."""
    title = f"{first.report.subject} and {second.report.subject}"
    dout = second.dout if Behaviour.IGNORES_DOUT in second.report.faults or second.report.warnings else None
    try:
        both = chain(first.layer, second.layer)
        report = examine(title, both, None, options)
        if report.verdict is not Verdict.PASS and dout is not None:
            report = examine(title, both, None, replace(options, dout=dout))
    except SubjectError:  # they do not follow each other
        return None
    if report.verdict is not Verdict.PASS:
        return None
    return replace(report, notes=(*report.notes, "each of the two is wrong alone, and they are right together"))


def _attributed(leaf: Leaf, owner: tuple[str, str] | None, layers: tuple[Report, ...]) -> Leaf:
    """Returns a wrong leaf with its cause: its own layer, a later one, or how the layers are joined."""
    if leaf.cause not in WRONG_CAUSES or owner is None:
        return leaf
    places = [i for i, layer in enumerate(layers) if layer.subject == owner[0]]
    own = {other.name: other for i in places for other in layers[i].leaves}.get(owner[1])
    if own is None or own.verdict is not Verdict.PASS:
        return replace(leaf, slip=own.slip or leaf.slip, diagnosis=own.diagnosis or leaf.diagnosis) if own else leaf
    later = [layer for layer in layers[places[-1] + 1 :] if layer.verdict is Verdict.FAIL]
    if later:
        culprit = later[-1]
        apart = any(other.slip is Slip.EPSILON for other in culprit.leaves)
        detail = (
            f"{owner[0]} is right; forward and backward of {culprit.subject} do not belong together"
            if apart
            else f"{owner[0]} is right, and is handed a wrong gradient by {culprit.subject}"
        )
        return replace(leaf, cause=Cause.HANDED_WRONG, detail=detail, slip=None, diagnosis="")
    if all(layer.verdict is Verdict.PASS for layer in layers):
        return replace(leaf, cause=Cause.PUT_TOGETHER_WRONGLY)
    return leaf
