"""The cross-check: is a hand-written gradient right, where not, and who says so."""

from collections.abc import Callable
from typing import Any

from jaxnet.crosscheck.judging import judge
from jaxnet.crosscheck.report import Gap, Leaf, Report
from jaxnet.crosscheck.subjects import JaxSubject, LayerSubject, NetworkSubject, PairSubject, SubjectError

__all__ = ["Gap", "Leaf", "Report", "SubjectError", "check_layer", "check_network"]


def check_layer(
    layer: Any, *inputs: Any, reference: Callable[..., Any] | None = None, seed: int = 0, name: str | None = None
) -> Report:
    """A hand-written layer with `forward(*inputs)` and `backward(dout)`; a loss layer's `backward()` may take nothing.

    Args:
        layer: An object; its parameters are the float arrays that have a `d`-name beside them after `backward`.
        inputs: What `forward` takes. `backward` returns the gradients of the first of them.
        reference: The same function in JAX, of (params, *inputs) where the layer has parameters, else of (*inputs).
        seed: Of the directions probed and of the gradient that comes from above.
        name: What the report calls it; its class unless given.
    """
    hand = PairSubject(layer, inputs) if isinstance(layer, tuple) else LayerSubject(layer, inputs)
    theirs = JaxSubject(reference, hand) if reference is not None else None
    return judge(name or hand.name, hand, theirs, seed=seed, resolution=None)


def check_network(
    network: Any, x: Any, t: Any, *, reference: Callable[..., Any] | None = None, seed: int = 0, name: str | None = None
) -> Report:
    """A whole network: an object with `params`, a tree of dicts, `loss(x, t)` and `gradient(x, t)` in the same tree.

    Args:
        network: The object; it is copied, never changed.
        x: Samples, (N, D).
        t: Labels, as the network takes them.
        reference: The same loss in JAX, of (params, x, t).
        seed: Of the directions probed.
        name: What the report calls it; its class unless given.
    """
    hand = NetworkSubject(network, x, t)
    theirs = JaxSubject(reference, hand) if reference is not None else None
    return judge(name or hand.name, hand, theirs, seed=seed, resolution=None)
