"""Checks a network as a whole and its layers one by one, so that a wrong one accuses nobody else.

A wrong backward passes wrong gradients on to every layer before it. Judged alone, at the input that the network gives
it and a gradient from above that owes nothing to the others, each layer answers for itself.
"""

from dataclasses import replace

from jaxnet.crosscheck.decide import WRONG, Cause, Verdict
from jaxnet.crosscheck.examine import Options, examine
from jaxnet.crosscheck.inspect import Checkable, CheckableNetwork
from jaxnet.crosscheck.meter import metered
from jaxnet.crosscheck.report import Leaf, Report

NETWORK_SAMPLES = 24  # elements of a network's wrong leaf that are derived: its layers, alone, show more


def examine_layers(title: str, network: CheckableNetwork, reference: Checkable | None, options: Options) -> Report:
    """Returns the report of the whole, with one of each layer, and with the cause of a wrong leaf where it belongs."""
    with metered(title, options.max_seconds) as meter:
        whole = examine(title, network, reference, replace(options, samples=NETWORK_SAMPLES))
        alone = replace(options, expected=None)
        layers = tuple(examine(name, layer, None, alone) for name, layer, _ in network.layers())
        if not layers:
            return whole
        wrong = [layer.subject for layer in layers if layer.verdict is Verdict.FAIL]
        owners = network.owners()
        leaves = tuple(_attributed(leaf, owners.get(leaf.name), layers, wrong) for leaf in whole.leaves)
        return replace(whole, leaves=leaves, layers=layers, calls=meter.calls, seconds=meter.seconds)


def _attributed(leaf: Leaf, owner: tuple[str, str] | None, layers: tuple[Report, ...], wrong: list[str]) -> Leaf:
    """Returns a wrong leaf with its cause: its own layer, one that hands it a wrong gradient, or how they are joined."""
    if leaf.cause not in WRONG or owner is None:
        return leaf
    own = {other.name: other for layer in layers if layer.subject == owner[0] for other in layer.leaves}.get(owner[1])
    if own is None or own.verdict is not Verdict.PASS:
        return replace(leaf, diagnosis=own.diagnosis or leaf.diagnosis) if own else leaf
    if not wrong and any(layer.verdict is not Verdict.PASS for layer in layers):
        return leaf
    if not wrong:
        return replace(leaf, cause=Cause.PUT_TOGETHER_WRONGLY)
    detail = f"{owner[0]} is right, and is handed a wrong gradient by {wrong[-1]}"
    return replace(leaf, cause=Cause.HANDED_WRONG, detail=detail, diagnosis="")
