"""A network's layers one by one, so that a wrong one accuses nobody else.

A wrong backward passes wrong gradients on to every layer before it. Judged alone, at the input that the network gives
it and a gradient from above that owes nothing to the others, each layer answers for itself.
"""

from dataclasses import replace

from jaxnet.crosscheck.examine import judge
from jaxnet.crosscheck.inspect import CheckableNetwork
from jaxnet.crosscheck.report import Leaf, Report

TOGETHER = "each layer is right on its own, so they are put together wrongly: an order, a factor, a layer left out"


def judge_layers(whole: Report, network: CheckableNetwork, *, seed: int, resolution: float | None) -> Report:
    """The report of the whole, with one of each layer, and with blame laid where it belongs."""
    layers = tuple(judge(name, layer, None, seed=seed, resolution=resolution) for name, layer, _ in network.layers())
    if not layers:
        return whole
    wrong = [layer.subject for layer in layers if layer.verdict == "FAIL"]
    owners = network.owners()
    leaves = tuple(_blamed(leaf, owners.get(leaf.name), layers, wrong) for leaf in whole.leaves)
    return replace(whole, leaves=leaves, layers=layers)


def _blamed(leaf: Leaf, owner: tuple[str, str] | None, layers: tuple[Report, ...], wrong: list[str]) -> Leaf:
    """A failing leaf whose own layer computes it rightly was handed a wrong gradient, or belongs to no layer."""
    if leaf.verdict != "FAIL" or not leaf.blame.startswith("hand is wrong") or owner is None:
        return leaf
    own = {one.name: one for layer in layers if layer.subject == owner[0] for one in layer.leaves}.get(owner[1])
    if own is None or own.verdict != "PASS":
        return replace(leaf, diagnosis=own.diagnosis or leaf.diagnosis) if own else leaf
    if not wrong and any(layer.verdict != "PASS" for layer in layers):
        return leaf
    if not wrong:
        return replace(leaf, blame=f"hand is wrong: {TOGETHER}")
    return replace(leaf, blame=f"{owner[0]} is right, and is handed a wrong gradient by {wrong[-1]}", diagnosis="")
