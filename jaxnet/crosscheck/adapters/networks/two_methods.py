"""Adapts models of two methods: `loss(X, y)` returns a value, and `grad(X, y)` the gradients of the model's own arrays.

`grad` runs its own forward pass. If it returns arrays of the shapes of the inputs, it is not such a method.
"""

import operator
import re
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.methods import in_snake_case
from jaxnet.crosscheck.adapters.networks.found_costs import agreements
from jaxnet.crosscheck.adapters.networks.outside_costs import Network, Reading, as_function, read
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import walk
from jaxnet.crosscheck.inspect.trees import is_float

VALUE = re.compile(r"_?(\w+_)?(loss|cost|error|objective|j)(_?(fn|func|function))?")
GRADIENT = re.compile(r"_?(\w+_)?(grads?|gradients?|prime|deriv\w*|backprop\w*|bptt)(_\w+)?")


class _Model(Network):
    """A model as a network whose passes are these two methods."""

    def run(self, replaced: Mapping[int, Any], x: Any, t: Any) -> tuple[Any, dict[str, Any], Any]:
        """Returns a copy of the model, its inputs, and the value."""
        net = duplicate(self.net, replaced)
        total = getattr(duplicate(net), self.passes[0])(x, t)
        return net, {"x": x, "t": t}, np.asarray(total, float).sum()

    def run_back(self, net: Any, values: Mapping[str, Any], rate: float = 1.0) -> Any:  # noqa: ARG002
        """Returns what the method of the gradients returns."""
        return getattr(net, self.passes[1])(values["x"], values["t"])


def adapt(style: Style) -> Style | None:
    """Turns such a model into a function of its arrays and its inputs, with the gradient by the arrays."""
    model: Any = style.thing
    if isinstance(model, FunctionType | MethodType | type | tuple | list) or len(style.inputs) != 2:
        return None
    if hasattr(model, "params"):  # by which a network is read
        return None
    methods = [name for name in dir(type(model)) if not name.startswith("__") and has_method(model, name)]
    methods = [name for name in methods if len(required_parameters_of(getattr(model, name))) == 2]
    values = [name for name in methods if VALUE.fullmatch(in_snake_case(name))]
    gradients = [name for name in methods if GRADIENT.fullmatch(in_snake_case(name)) and name not in values]
    if not values or len(gradients) != 1 or not _are_of_arrays(model, gradients[0], style.inputs):
        return None
    readings = _readings(model, values, gradients[0], style.inputs)
    best = max(readings, key=lambda reading: _agreeing(reading, style.inputs), default=None)
    return None if best is None else as_function(style, best)


def _agreeing(reading: Reading, inputs: tuple[Any, ...]) -> int:
    """Returns the number of arrays whose gradient is that of the value, as far as a few directions show."""
    found = called(lambda: agreements(reading, inputs))
    return sum(found) if isinstance(found, list) else 0


def _are_of_arrays(model: Any, gradient: str, inputs: tuple[Any, ...]) -> bool:
    """Returns whether a method returns arrays of the shapes of arrays of the model, and not those of the inputs."""
    shapes = {np.shape(part) for _, part in walk(model) if isinstance(part, np.ndarray) and is_float(part)}
    if not shapes:
        return False
    returned = called(getattr(duplicate(model), gradient), *inputs)
    parts = [part for _, part in walk(returned) if isinstance(part, np.ndarray) and is_float(part)]
    found = {np.shape(part) for part in ([returned] if is_float(returned) else parts)}
    of_inputs = {np.shape(x) for x in inputs if is_float(x)}
    return bool(found) and found <= shapes and not found <= of_inputs


def _readings(model: Any, values: list[str], gradient: str, inputs: tuple[Any, ...]) -> Iterator[Reading]:
    """Yields the model with each method that returns a number, given the inputs or lists of which they are the only."""
    for name in values:
        own = getattr(type(model), name)
        labels = required_parameters_of(getattr(model, name))[1]

        def of_a_list(self: Any, x: Any, t: Any, own: Any = own) -> Any:
            return own(self, [x], [t])

        for thing in (model, with_methods(model, {name: of_a_list})):
            value = called(getattr(duplicate(thing), name), *inputs)
            if isinstance(value, float | np.floating) or (is_float(value) and np.ndim(value) == 0):
                cost = operator.attrgetter(name)
                network = _Model(thing, (name, gradient), cost, [], ("", labels), labels, of_samples=False)
                reading = called(lambda network=network: read(network, inputs))
                if isinstance(reading, Reading):
                    yield reading
                break
