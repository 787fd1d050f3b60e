"""Adapts layers of tensors whose gradients are attributes of the tensors: `self.inp.g = self.out.g @ self.w.t()`.

Backward takes no argument. It reads the upstream gradient from the tensor that forward returned, and stores the
gradients of inputs and parameters in an attribute of the same name of theirs.
"""

import functools
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, has_method, of_class, parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.torch_tensors import is_float_tensor, is_tensor, torch_module

NOTE = "gradients are read from the attribute {} of the tensors"


def adapt(style: Style) -> Style | None:
    """Lets backward take the upstream gradient, return those of the inputs, and store those of the parameters."""
    layer: Any = style.thing
    if not has_method(layer, "backward") or parameters_of(layer.backward):
        return None
    if isinstance(layer, torch_module().nn.Module):
        return None
    for forward in ("__call__", "forward"):  # a __call__ that calls forward may keep its output for backward
        if has_method(layer, forward):
            attribute, takes_dout = _attribute_of(layer, forward, style.inputs)
            if attribute:
                methods = _methods(type(layer), forward, attribute, takes_dout)
                return style._replace(thing=with_methods(layer, methods), note=NOTE.format(attribute))
    return None


def _attribute_of(layer: Any, forward: str, inputs: tuple[Any, ...]) -> tuple[str, bool]:
    """Returns the name of the attribute that holds gradients, and whether backward reads that of the output.

    The name is "" if backward stores no gradient of an input in an attribute.
    """
    trial, copies = duplicate(layer), duplicate(inputs)
    try:
        y = getattr(trial, forward)(*copies)
    except Exception:
        return "", False
    if not is_float_tensor(y):
        return "", False
    attribute = ""
    try:
        trial.backward()
    except AttributeError as error:
        if error.obj is not y or not error.name:
            return "", False
        attribute = error.name
        setattr(y, attribute, torch_module().ones_like(y))
        try:
            trial.backward()
        except Exception:
            return "", False
    except Exception:
        return "", False
    stored = {name for x in copies if is_tensor(x) for name, value in vars(x).items() if is_float_tensor(value)}
    if attribute:
        return (attribute, True) if attribute in stored else ("", False)
    return (stored.pop(), False) if len(stored) == 1 and y.numel() == 1 else ("", False)


def _methods(kind: Any, forward: str, attribute: str, takes_dout: bool) -> dict[str, Any]:
    """Returns the two passes of a layer; each runs as the class's own, whose __call__ may call its forward."""
    original = getattr(kind, forward)
    named = original if positional(original)[1:] else getattr(kind, "forward", original)  # not __call__(self, *args)

    @functools.wraps(named)
    def run_forward(self: Any, *inputs: Any) -> Any:
        with of_class(self, kind):
            self._passed, self._returned = inputs, original(self, *inputs)
        return self._returned

    def gradients(self: Any) -> tuple[Any, ...]:
        with of_class(self, kind):
            self.backward()
        for name, value in list(vars(self).items()):
            passed = any(value is x for x in self._passed) or value is self._returned
            if is_tensor(value) and not passed and hasattr(value, attribute):
                setattr(self, f"d{name}", getattr(value, attribute))
        return tuple(getattr(x, attribute, None) for x in self._passed)

    def backward_of_dout(self: Any, dout: Any) -> tuple[Any, ...]:
        setattr(self._returned, attribute, dout)
        return gradients(self)

    return {"forward": run_forward, "backward": backward_of_dout if takes_dout else gradients}
