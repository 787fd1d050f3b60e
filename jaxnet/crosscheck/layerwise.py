"""Checks a network as a whole, and each layer separately, to find the layer that is wrong.

A wrong backward pass causes wrong gradients in every earlier layer. So each layer is also checked by itself, at the
input it has in the network and with a random upstream gradient.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from jaxnet.crosscheck.context import Options
from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.examine import examine
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.inspect.chain import chain
from jaxnet.crosscheck.inspect.checkable import Array, Checkable
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.layer import CheckableLayer
from jaxnet.crosscheck.inspect.network import CheckableNetwork
from jaxnet.crosscheck.measure.findings import Behaviour
from jaxnet.crosscheck.meter import metered
from jaxnet.crosscheck.report import Leaf, Report

# Elements of a network's wrong leaf whose derivatives are computed: few, because the layer's own check shows more.
NETWORK_SAMPLES = 24


class CheckedLayer(NamedTuple):
    """A layer, its upstream gradient in the network, and its report."""

    layer: CheckableLayer
    dout: Array | None
    report: Report


def examine_layers(title: str, network: CheckableNetwork, reference: Checkable | None, options: Options) -> Report:
    """Returns the report of the network, with a report of each layer and the causes of wrong leaves."""
    with metered(title, options.max_seconds) as meter:
        whole = examine(title, network, reference, replace(options, samples=NETWORK_SAMPLES))
        layer_options = replace(options, expected=None)
        checked = [_check_layer(name, layer, dout, layer_options) for name, layer, dout in network.layers()]
        layers = _merge_neighbours(checked, layer_options)
        if whole.verdict is Verdict.PASS:
            layers = tuple(_tolerate_overwritten_dout(layer) for layer in layers)
        owners = network.owners()
        leaves = tuple(_attribute(leaf, owners.get(leaf.name), layers) for leaf in whole.leaves)
        return replace(whole, leaves=leaves, layers=layers, calls=meter.calls, seconds=meter.seconds)


def _check_layer(name: str, layer: CheckableLayer, dout: Array | None, options: Options) -> CheckedLayer:
    """Checks a layer by itself. A layer that ignores `dout`, as a last layer may, is checked with the network's."""
    report = examine(name, layer, None, options)
    if dout is not None and Behaviour.IGNORES_DOUT in report.faults:
        report = examine(name, layer, None, replace(options, dout=dout))
    return CheckedLayer(layer, dout, report)


def _merge_neighbours(checked: Sequence[CheckedLayer], options: Options) -> tuple[Report, ...]:
    """Returns the layers' reports, with a single one for two neighbours that fail separately and pass together.

    A softmax may leave its derivative to the following loss, whose backward pass is then that of both.
    """
    reports: list[Report] = []
    previous: CheckedLayer | None = None
    for current in checked:
        wrong = current.report.verdict is Verdict.FAIL
        if wrong and previous is not None and previous.report.verdict is Verdict.FAIL:
            both = _check_pair(previous, current, options)
            if both is not None:
                reports[-1] = both
                previous = None
                continue
        reports.append(current.report)
        previous = current
    return tuple(reports)


def _tolerate_overwritten_dout(report: Report) -> Report:
    """Returns the report with a warning instead of a FAIL if the layer's only fault is that it overwrites `dout`.

    If the network passes, no other layer needs that `dout`.
    """
    if report.verdict is not Verdict.FAIL or set(report.faults) != {Behaviour.OVERWRITES_DOUT}:
        return report
    tolerated = replace(report, behaviour=(), faults=(), warnings=(*report.warnings, *report.behaviour))
    return report if tolerated.verdict is Verdict.FAIL else tolerated


def _check_pair(first: CheckedLayer, second: CheckedLayer, options: Options) -> Report | None:
    """Returns the report of two layers as one, if it passes."""
    title = f"{first.report.subject} and {second.report.subject}"
    dout = second.dout if Behaviour.IGNORES_DOUT in second.report.faults or second.report.warnings else None
    try:
        both = chain(first.layer, second.layer)
        report = examine(title, both, None, options)
        if report.verdict is not Verdict.PASS and dout is not None:
            report = examine(title, both, None, replace(options, dout=dout))
    except SubjectError:  # the second layer does not take the output of the first
        return None
    if report.verdict is not Verdict.PASS:
        return None
    return replace(
        report, notes=(*report.notes, "each of the two layers is wrong on its own, but together they are right")
    )


def _attribute(leaf: Leaf, owner: tuple[str, str] | None, layers: tuple[Report, ...]) -> Leaf:
    """Returns a wrong leaf with its cause: its own layer, a later one, or how the layers are joined."""
    if leaf.cause not in WRONG_CAUSES or owner is None:
        return leaf
    places = [i for i, layer in enumerate(layers) if layer.subject == owner[0]]
    own = {other.name: other for i in places for other in layers[i].leaves}.get(owner[1])
    if own is None or own.verdict is not Verdict.PASS:
        return replace(leaf, slip=own.slip or leaf.slip, diagnosis=own.diagnosis or leaf.diagnosis) if own else leaf
    later = [layer for layer in layers[places[-1] + 1 :] if layer.verdict is Verdict.FAIL]
    if later:
        wrong_layer = later[-1]
        inconsistent = any(other.slip is Slip.EPSILON for other in wrong_layer.leaves)
        detail = (
            f"{owner[0]} is right; forward and backward of {wrong_layer.subject} do not match"
            if inconsistent
            else f"{owner[0]} is right, but receives a wrong gradient from {wrong_layer.subject}"
        )
        return replace(leaf, cause=Cause.RECEIVES_WRONG_DOUT, detail=detail, slip=None, diagnosis="")
    if all(layer.verdict is Verdict.PASS for layer in layers):
        return replace(leaf, cause=Cause.LAYERS_JOINED_WRONGLY)
    return leaf
