"""Finds networks that compute their gradients while they train: in `fit(X, y)` or `train_step(X, y, lr)`."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxnet.crosscheck.adapters.methods import FORWARD, FORWARD_LIKE
from jaxnet.crosscheck.adapters.networks.training_methods import LABELS, ONCE, TRAINING
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES
from jaxnet.crosscheck.inspect.signatures import positional

LABEL_FORMS = "'5<3' (5 integers below 3) or 'py:np.eye(3)[rng.integers(3, size=5)]' (one-hot rows)"


class Training(NamedTuple):
    """A method that trains, and the names of its samples and labels."""

    method: str
    samples: str
    labels: str


def training_of(kind: type) -> Training | None:
    """Returns the first method of a class that trains on samples and labels; None if there is none, or no forward pass.

    Args:
        kind: The class. One with a method `backward` is not one that trains itself.
    """
    methods = dict(_methods(kind))
    if "backward" in methods or not any(name in FORWARD or FORWARD_LIKE.fullmatch(name) for name in methods):
        return None
    for name, method in methods.items():
        if TRAINING.fullmatch(name):
            data = [
                parameter.name
                for parameter in positional(method)[1:]
                if parameter.default is parameter.empty
                and not any(known.fullmatch(parameter.name) for known in (RATES, COUNTS, ONCE))
            ]
            if len(data) == 2 and LABELS.fullmatch(data[1]):
                return Training(name, *data)
    return None


def labels_lacking(subject: Any, number: int) -> str:
    """Returns what is wrong with the inputs of a network that trains itself, and how to write labels; empty for others.

    Args:
        subject: What the target names.
        number: The number of inputs that were passed.
    """
    training = training_of(subject) if isinstance(subject, type) else None
    if training is None:
        return ""
    method, samples, labels = training
    if number < 2:
        return f"{method} takes {samples}, {labels}: {labels} is missing; add labels to --inputs, such as {LABEL_FORMS}"
    return f"by no known cost is a gradient of {method} right at these {samples}, {labels}; labels are {LABEL_FORMS}"


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    for base in reversed(kind.__mro__):
        yield from ((name, value) for name, value in vars(base).items() if inspect.isfunction(value))
