"""Recognizes layers whose first forward pass creates their parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.adapter import Subject, run_forward
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.parameters import arrays_by_place
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place
from jaxnet.crosscheck.inspect.trees import Array, is_inexact


def creates_parameters(subject: Subject, created: set[str]) -> bool:
    """Returns whether the first forward pass creates parameters.

    Parameters keep their bits in a second forward pass at other inputs, and either backward stores a gradient for
    them, or their values do not depend on the inputs. An array that depends on the first inputs and keeps its values
    is state instead, which the second call reveals.

    Args:
        subject: The code and its inputs.
        created: The places of the arrays that the first forward pass created.
    """
    if not created:
        return False
    adapter, inputs = subject.copy(), subject.inputs
    own = [array for array in arrays_by_place(adapter.owner).values() if isinstance(array, np.ndarray)]
    outputs = Outputs()
    douts = outputs.unpack(np.ones_like(run_forward(adapter, inputs, "forward", outputs)))
    before: dict[str, tuple[Any, Any]] = {
        name: (array, np.array(array)) for name, array in arrays_by_place(adapter.owner).items() if name in created
    }
    try:
        run_forward(adapter, different_inputs(inputs), "forward")
    except SubjectError:
        run_forward(adapter, inputs, "forward")
    after: dict[str, Any] = arrays_by_place(adapter.owner)
    lasting = {
        name: copied
        for name, (array, copied) in before.items()
        if after.get(name) is array
        and np.array_equal(copied, after[name], equal_nan=True)
        and not any(_has_same_values(copied, other) for other in own)
    }
    return bool(lasting) and _are_parameters(lasting, subject, douts)


def _has_same_values(array: Array, other: Array) -> bool:
    """Returns whether an array has the values of another in any order, as a copy or a transpose of weights does."""
    return array.size == other.size > 1 and np.array_equal(np.sort(array, axis=None), np.sort(other, axis=None))


def _are_parameters(lasting: Mapping[str, Array], subject: Subject, douts: tuple[Array, ...]) -> bool:
    """Returns whether any of the created arrays gets a gradient, or does not depend on the inputs."""
    adapter = subject.copy_after_forward(subject.inputs)
    gradients = {id(g) for g in gradients_by_place(adapter.owner).values()}
    created = {name for name, array in arrays_by_place(adapter.owner).items() if id(array) not in gradients}
    try:
        adapter.backward(*(dout.copy() for dout in douts))
    except Exception:
        return False
    if any(is_inexact(gradients_by_place(adapter.owner).get(name)) for name in lasting):
        return True
    try:
        other = subject.copy_after_forward(different_inputs(subject.inputs))
    except SubjectError:
        return False
    arrays = arrays_by_place(other.owner)
    same = {n for n in lasting if n in arrays and np.array_equal(lasting[n], arrays[n], equal_nan=True)}
    return bool(same & created)
