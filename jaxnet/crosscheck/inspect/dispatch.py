"""Recognizes layers, networks, pairs of functions and functions, and returns each as a Checkable."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NoReturn

from jaxnet.crosscheck.adapters import Style, adapt, methods
from jaxnet.crosscheck.adapters.functions import (
    captured_parameters,
    derivatives,
    fused_losses,
    loss_and_gradients,
    loss_objects,
    returned_order,
    sample_jacobians,
)
from jaxnet.crosscheck.adapters.layers import (
    gradient_lists,
    later_gradients,
    plain_numbers,
    resets,
    stored_inputs,
    unnamed_gradients,
    unread_arguments,
)
from jaxnet.crosscheck.adapters.networks import outside_costs, parameter_lists, passes_by_role, whole_networks
from jaxnet.crosscheck.adapters.optimizers import held_optimizers, updates
from jaxnet.crosscheck.adapters.style import called
from jaxnet.crosscheck.adapters.tensors import scalar_engines, tensor_attributes
from jaxnet.crosscheck.frameworks.array_protocol import foreign_array, on_numpy_arrays, with_numpy_arrays
from jaxnet.crosscheck.frameworks.choose import engine_for
from jaxnet.crosscheck.frameworks.program import FrameworkProgram
from jaxnet.crosscheck.frameworks.scipy_problems import Problem, as_problem
from jaxnet.crosscheck.inspect.arguments import IMAG, REAL
from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.inspect.complex_parts import in_parts
from jaxnet.crosscheck.inspect.errors import CostError, MissingInputError, SubjectError, counted
from jaxnet.crosscheck.inspect.flax_module import functional_form, is_nnx_module
from jaxnet.crosscheck.inspect.function import inspect_forward_mode, inspect_function, name_of
from jaxnet.crosscheck.inspect.global_state import include_generators_of
from jaxnet.crosscheck.inspect.held_parameters import proposal_for_cost
from jaxnet.crosscheck.inspect.jacobians import as_product
from jaxnet.crosscheck.inspect.layer import inspect_layer
from jaxnet.crosscheck.inspect.network import inspect_network
from jaxnet.crosscheck.inspect.optional_jax import single_precision
from jaxnet.crosscheck.inspect.other_frameworks import other_framework, reject_foreign_function, reject_other_framework
from jaxnet.crosscheck.inspect.pair import as_pair, inspect_pair
from jaxnet.crosscheck.inspect.partners import derived_instead, has_partner
from jaxnet.crosscheck.inspect.random_inputs import draw_inputs, is_shape
from jaxnet.crosscheck.inspect.signatures import forward_pass_of, in_order_of, missing_arguments, wrong_call
from jaxnet.crosscheck.inspect.single_precision import SinglePrecision, has_no_double
from jaxnet.crosscheck.inspect.torch_function import CheckableTorch, forward_of, is_torch
from jaxnet.crosscheck.inspect.torch_layer import is_tensor_layer, layer_in_numpy
from jaxnet.crosscheck.inspect.torch_tensors import arrays_from, in_numpy


def to_checkable(thing: Any, inputs: tuple[Any, ...], seed: int) -> Checkable:
    """Returns a network, a layer, a pair of functions or a function as a Checkable, the first that fits.

    Args:
        thing: The object or function to check.
        inputs: Its inputs. A tuple of positive integers is a shape, and an array of that shape is drawn.
        seed: The seed of the inputs that are drawn.

    Raises:
        SubjectError: If none fits, or it cannot be run.
    """
    include_generators_of(thing)
    if is_nnx_module(thing):  # which a trial call would change
        return function_to_checkable(thing, inputs, seed)
    if (problem := as_problem(thing)) is not None:
        return _problem_to_checkable(problem, inputs, seed)
    if _is_function(thing, inputs):
        style = captured_parameters.adapt(Style(thing, inputs))
        style = style or loss_and_gradients.adapt_if_plausible(Style(thing, inputs))
        # JAX may derive the function too, but then the derivative that was written by hand would not be checked
        style = style or derivatives.adapt(_drawn_style(thing, inputs, seed))
        if style is None and not isinstance(thing, FunctionType) and methods.names_of(thing)[1]:
            own = adapt(thing, _drawn(thing, inputs, seed))
            style = own if own.thing is not thing else None
        if style is not None:
            return _styled(style, seed)
    if _is_object_of_tensors(thing) and (functions := _functions_of_tensors(thing, inputs)) is not None:
        # PyTorch derives its call too, and the gradient that was written by hand would not be checked
        return in_any_style(_as_it_is, tuple(map(in_numpy, functions)), arrays_from(inputs), seed)
    return in_any_style(_as_it_is, thing, inputs, seed)


def _problem_to_checkable(problem: Problem, inputs: tuple[Any, ...], seed: int) -> Checkable:
    if problem.jac is None:
        checkable = to_checkable(problem.fun, inputs, seed)
    else:
        checkable = function_to_checkable(problem.fun, inputs, seed, problem.jac)
    if problem.second is not None:
        checkable.second_derivative = lambda dout: function_to_checkable(
            problem.gradient(dout), tuple(checkable.leaves.values()), seed, problem.derivative_of_gradient(dout)
        )
    return checkable


def in_any_style(
    make: Callable[[Any, tuple[Any, ...], int], Checkable], thing: Any, inputs: tuple[Any, ...], seed: int
) -> Checkable:
    """Returns code as a Checkable; if it cannot be taken as it is, in the style that an adapter recognizes.

    Args:
        make: The function that takes it as it is.
        thing: The object or function to check.
        inputs: Its inputs.
        seed: The seed of the inputs that are drawn.

    Raises:
        SubjectError: If it cannot be taken in any style; the error in the recognized style, if there is one.
    """
    if _is_of_arrays(thing, inputs) and (style := resets.adapt(_drawn_style(thing, inputs, seed))) is not None:
        with_resets = in_any_style(make, style.thing, inputs, seed)
        with_resets.notes = (*with_resets.notes, style.note)
        return with_resets
    if _is_of_arrays(thing, inputs) and (style := methods.adapt_beside_update(Style(thing, inputs))) is not None:
        beside_update = in_any_style(make, style.thing, inputs, seed)
        beside_update.notes = (*beside_update.notes, style.note)
        return beside_update
    if _is_of_arrays(thing, inputs) and (style := outside_costs.adapt(_drawn_style(thing, inputs, seed))) is not None:
        return _styled(style, seed)
    if _is_of_arrays(thing, inputs) and (style := _style_that_looks_plain(thing, inputs, seed)) is not None:
        return _styled(style, seed)
    try:
        checkable = make(thing, inputs, seed)
        if not checkable.fault:
            return checkable
    except SubjectError as error:
        checkable, first = None, error
    if _is_of_arrays(thing, inputs):
        try:
            drawn = tuple(i for i, value in enumerate(inputs) if is_shape(value))
            if (style := adapt(thing, _drawn(thing, inputs, seed), drawn)).thing is not thing:
                return _styled(style, seed)
        except SubjectError as error:
            first = error  # which speaks of the methods and functions that were recognized
    elif (functions := _functions_of_tensors(thing, inputs)) is not None:
        on_arrays = tuple(map(in_numpy, functions)), arrays_from(inputs)  # in a style of functions of arrays
        with suppress(SubjectError):
            return in_any_style(make, *on_arrays, seed)
    if checkable is None:
        _refuse(thing, inputs, first)
    return checkable


def _refuse(thing: Any, inputs: tuple[Any, ...], error: SubjectError) -> NoReturn:
    """Raises an error, or one that says more: that backward starts from a cost, or which inputs forward lacks."""
    if not isinstance(error, CostError) and (proposal := proposal_for_cost(thing, *methods.names_of(thing))):
        raise SubjectError(proposal) from error
    with naming_missing_inputs(thing, inputs):
        raise error
    raise error


def _functions_of_tensors(thing: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Returns two functions of tensors, or two such methods of an object, as `energy` and `forces`; None for others."""
    if not is_torch(thing, inputs):
        return None
    if isinstance(thing, tuple | list):
        return (thing[0], thing[1]) if len(thing) == 2 else None
    is_plain = (_is_object_of_tensors(thing) or not callable(thing)) and not hasattr(thing, "forward") and inputs
    functions = derivatives.two_functions(thing, inputs) if is_plain else None
    shape = getattr(called(functions[1], *inputs), "shape", None) if functions else None
    return functions if shape is not None and shape == getattr(inputs[0], "shape", None) else None


def _is_object_of_tensors(thing: Any) -> bool:
    """Returns whether this is a callable object of a plain class: no function, and of no class of PyTorch."""
    kinds = (FunctionType, MethodType, BuiltinFunctionType, tuple, list, type)
    is_own = all(kind.__module__.partition(".")[0] not in ("torch", "functools") for kind in type(thing).__mro__)
    return callable(thing) and not isinstance(thing, kinds) and is_own


def _style_that_looks_plain(thing: Any, inputs: tuple[Any, ...], seed: int) -> Style | None:
    """Returns code in a style that can be run as it is, but would be read as another one."""
    drawn = _drawn_style(thing, inputs, seed)
    fused_losses.reject(drawn)
    return (
        passes_by_role.adapt_autoencoder(drawn)  # whose updates would look like those of a layer
        or updates.adapt_own_rate(drawn)  # whose own arrays would look like buffers
        or updates.adapt_later_update(drawn)  # whose gradients would look as if they were missing
        or later_gradients.adapt(drawn)  # likewise
        or unnamed_gradients.adapt(drawn)  # likewise
        or held_optimizers.adapt(drawn)  # likewise
        or loss_objects.adapt_labels_alone(Style(thing, inputs))
        or derivatives.adapt_backward_of_input(drawn)
        or sample_jacobians.adapt(drawn)  # whose derivative would look as if it took an upstream gradient
        or returned_order.adapt(drawn)
        or unread_arguments.adapt_unread_dout(drawn)  # which would look as if it ignored dout
        or gradient_lists.adapt(drawn)  # whose parameters would look as if they had no gradient
        or parameter_lists.adapt(drawn)  # likewise
        or stored_inputs.adapt(drawn)  # whose backward would look as if it forgot the gradient of its input
        or outside_costs.adapt_reconstruction(drawn)  # whose samples would look like an upstream gradient
        or whole_networks.adapt(drawn)  # whose input would look as if its gradient were forgotten
        or scalar_engines.adapt(Style(thing, inputs))  # JAX would derive numbers beside the objects alone
    )


@contextmanager
def naming_missing_inputs(thing: Any, inputs: tuple[Any, ...]) -> Iterator[None]:
    """Turns an error of the block into one that names the inputs that the forward pass of `thing` lacks, if it does.

    Args:
        thing: The object, function or pair of functions that is checked in the block.
        inputs: Its inputs.

    Raises:
        MissingInputError: If the block raises a SubjectError, and there are fewer inputs than required.
    """
    try:
        yield
    except MissingInputError:
        raise
    except SubjectError as error:
        forward = forward_pass_of(thing)
        if isinstance(thing, type) or not (missing := missing_arguments(forward, inputs, {})):
            raise
        name = f"{type(thing).__name__}.forward" if hasattr(thing, "forward") else name_of(forward)
        raise MissingInputError(f"{name} {wrong_call(forward, inputs, {})}", missing) from error


def _is_function(thing: Any, inputs: tuple[Any, ...]) -> bool:
    if isinstance(thing, tuple | list | type) or hasattr(thing, "backward") or hasattr(thing, "params"):
        return False
    return callable(thing) and _is_of_arrays(thing, inputs)


def _drawn(thing: Any, inputs: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Returns the inputs with arrays in place of shapes, if they can be drawn before the code is read."""
    try:
        return draw_inputs(None, inputs, thing, seed)
    except Exception:
        return inputs


def _drawn_style(thing: Any, inputs: tuple[Any, ...], seed: int) -> Style:
    return Style(thing, _drawn(thing, inputs, seed))


def _is_of_arrays(thing: Any, inputs: tuple[Any, ...]) -> bool:
    return not is_torch(thing, inputs) and other_framework(thing, inputs) is None


def _styled(style: Style, seed: int) -> Checkable:
    if style.gradient is None:
        checkable = _as_it_is(style.thing, style.inputs, seed)
    else:
        checkable = function_to_checkable(style.thing, style.inputs, seed, style.gradient, style.takes_dout)
    if style.note:
        checkable.notes = (*checkable.notes, style.note)
    checkable.constants = {*checkable.constants, *style.data} - {*style.lacking}
    return checkable


def _as_it_is(thing: Any, inputs: tuple[Any, ...], seed: int) -> Checkable:
    is_several = isinstance(thing, tuple | list)
    if not is_several and is_torch(thing, inputs):
        if (style := tensor_attributes.adapt(Style(thing, inputs))) is not None:
            checkable = layer_to_checkable(style.thing, inputs, seed)
            checkable.notes = (*checkable.notes, style.note)
            return checkable
        if (style := methods.adapt(Style(thing, inputs))) is not None:
            thing = style.thing
    if not is_several and is_torch(thing, inputs):
        if not is_tensor_layer(thing):
            return function_to_checkable(thing, inputs, seed)
        return in_any_style(layer_to_checkable, *layer_in_numpy(thing, inputs), seed)
    is_layer = hasattr(thing, "backward")  # a layer may store its last `loss` beside its `params`
    if hasattr(thing, "loss") and (hasattr(thing, "gradient") or (hasattr(thing, "params") and not is_layer)):
        return network_to_checkable(thing, inputs, seed)
    if is_several or is_layer:
        return layer_to_checkable(thing, inputs, seed)
    return function_to_checkable(thing, inputs, seed)


def network_to_checkable(thing: Any, inputs: tuple[Any, ...], _seed: int = 0) -> Checkable:
    """Returns a network as a Checkable; arguments as for `to_checkable`."""
    if len(inputs) < 2:
        name, count = type(thing).__name__, counted(len(inputs), "input")
        raise SubjectError(f"{name}: {count}, expected at least two for a network: samples, labels")
    return inspect_network(thing, *inputs)


def layer_to_checkable(thing: Any, inputs: tuple[Any, ...], seed: int) -> Checkable:
    """Returns an object with both passes, or a pair of functions, as a Checkable; arguments as for `to_checkable`."""
    pair = as_pair(thing)
    if is_torch(thing, inputs):
        if pair is not None:
            pair, inputs = (in_numpy(pair[0]), in_numpy(pair[1])), arrays_from(inputs)
        elif is_tensor_layer(thing):
            thing, inputs = layer_in_numpy(thing, inputs)
        else:
            return CheckableTorch(thing, draw_inputs(forward_of(thing), inputs, None, seed))
    inputs = draw_inputs(pair[0] if pair else getattr(thing, "forward", None), inputs, thing, seed)
    return in_parts(inspect_layer(thing, inputs) if pair is None else inspect_pair(pair, inputs))


def function_to_checkable(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    seed: int,
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
) -> Checkable:
    """Returns a function and its gradient as a Checkable.

    Args:
        f: The function.
        args: Its arguments.
        seed: The seed of the inputs that are drawn.
        gradient: The gradient. Defaults to the one that JAX or PyTorch derives.
        takes_dout: Whether `gradient` takes the upstream gradient. Defaults to what its signature says.
    """
    reject_foreign_function("f", f)
    reject_foreign_function("gradient", gradient)
    if gradient is None and is_nnx_module(f):
        call, params = functional_form(f)
        checkable = function_to_checkable(call, (params, *args), seed)
        checkable.leaves = {n: leaf for n, leaf in checkable.leaves.items() if not n.startswith("state.")}
        return checkable
    if is_torch(f, args):
        if gradient is None:
            return _noting_partner(CheckableTorch(f, draw_inputs(forward_of(f), args, None, seed)), f)
        f, gradient, args = in_numpy(f), in_numpy(gradient), arrays_from(args)
    elif gradient is None:
        if (engine := engine_for(f, args)) is not None:
            return _noting_partner(FrameworkProgram(engine, f, draw_inputs(f, args, None, seed)), f)
        reject_other_framework(f, args)
    elif (example := foreign_array(args)) is not None:
        f, gradient = on_numpy_arrays(f, example), on_numpy_arrays(gradient, example)
        args = with_numpy_arrays(args, example)
    args = draw_inputs(f, args, None, seed)
    gradient = in_order_of(f, gradient, len(args)) if callable(gradient) else gradient
    if gradient is not None and plain_numbers.rejects_arrays(f, args):
        f, gradient = (plain_numbers.with_plain_numbers(function, f, args) for function in (f, gradient))
    product = as_product(f, args, gradient) if gradient is not None and takes_dout is None else None
    if product is None:
        return _in_either_precision(lambda: in_parts(inspect_function(f, args, gradient, takes_dout)), args)
    gradient, takes_dout, note = product
    checkable = _in_either_precision(lambda: in_parts(inspect_function(f, args, gradient, takes_dout)), args)
    checkable.notes = (*checkable.notes, note) if note else checkable.notes
    return checkable


def _noting_partner(checkable: Checkable, f: Callable[..., Any]) -> Checkable:
    """Adds the note that the hand-written gradient beside a function was not checked, if there is one."""
    if has_partner(checkable.name, f):
        checkable.notes = (*checkable.notes, derived_instead(checkable.name, f, checkable.derived_by))
    return checkable


def forward_mode_to_checkable(f: Callable[..., Any], args: tuple[Any, ...], seed: int) -> Checkable:
    """Returns a function of JAX and the gradient by forward mode as a Checkable; arguments as above."""
    if is_torch(f, args):
        raise SubjectError("mode: 'forward' is for functions of JAX; PyTorch's is compared with reverse mode anyway")
    if (engine := engine_for(f, args)) is not None:
        raise SubjectError(
            f"mode: 'forward' is for functions of JAX; that of {engine.name} is compared with reverse mode anyway"
        )
    reject_other_framework(f, args)
    args = draw_inputs(f, args, None, seed)
    return _in_either_precision(lambda: inspect_forward_mode(f, args), args)


def declare_constants(checkable: Checkable, constants: Collection[str]) -> None:
    """Adds names to the arrays that need no gradient.

    Args:
        checkable: The code that is checked.
        constants: The names.

    Raises:
        SubjectError: If no array has one of the names.
    """
    known = checkable.array_names()
    for name in constants if not checkable.fault else ():
        if name not in known:
            listed = ", ".join([*checkable.leaves, *checkable.others])
            raise SubjectError(f"constants: no array is called {name!r}, expected names among {listed}")
    parts = {name + part for name in constants for part in (REAL, IMAG)} & checkable.others.keys()
    checkable.constants = {*checkable.constants, *constants, *parts}


def expect_transforms(checkable: Checkable, transforms: Collection[str]) -> None:
    """Raises a SubjectError if code has no transformation of one of the names."""
    for name in transforms:
        if name not in checkable.transforms:
            known = (
                ", ".join(map(repr, checkable.transforms)) or "none, since neither JAX nor PyTorch differentiates it"
            )
            raise SubjectError(f"transforms: {name!r} for {checkable.name}, expected names among {known}")


def _in_either_precision(make: Callable[[], Checkable], args: tuple[Any, ...]) -> Checkable:
    """Makes a checkable in JAX's 64-bit mode; if its code fails there and takes no float64, in 32-bit mode."""
    try:
        checkable = make()
        if not checkable.fault or not has_no_double(args):
            return checkable
    except SubjectError:
        if not has_no_double(args):
            raise
    with single_precision():
        return SinglePrecision(make())
