"""Finds out whether a computation of JAX has a rule for its derivative that somebody else than JAX wrote."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from jaxnet.crosscheck.inspect.jax_errors import is_inside_jax

MACHINERY = ("custom_derivatives.py", "partial_eval.py", "linear_util.py")  # of JAX, around rules of anybody
DEPTH = 4  # of the closures that JAX wraps around a rule


def has_own_rule(jaxpr: Any) -> bool:
    """Returns whether a computation calls a `custom_vjp`, a `custom_jvp` or the like that is not defined in JAX.

    `jax.nn.relu` and others have rules as well, which are not meant. A rule whose origin is unknown counts.

    Args:
        jaxpr: The `jax.extend.core.Jaxpr` of the computation.
    """
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("custom_", "linear_call")) and not _is_of_jax(equation.params):
            return True
        if any(map(has_own_rule, _inner(equation.params))):
            return True
    return False


def _is_of_jax(params: dict[str, Any]) -> bool:
    """Returns whether JAX wrote the function and its rule, for which JAX has a file each when it traces."""
    rule = params.get("bwd", params.get("jvp_jaxpr_fun"))
    call = params.get("call_jaxpr")
    if rule is None or call is None:
        return False
    of_rule = {rule.debug_info.func_filename or "", *_files_of(rule)}
    written = [file for file in of_rule if not file.endswith(MACHINERY)]
    return bool(written) and all(map(is_inside_jax, [*written, call.jaxpr.debug_info.func_filename or ""]))


def _files_of(function: Any, depth: int = DEPTH) -> Iterator[str]:
    """Yields the files of a function and of those in its closure: `defjvps` wraps the rules that it is given."""
    function = getattr(function, "f", getattr(function, "func", function))
    if (code := getattr(function, "__code__", None)) is None:
        return
    yield code.co_filename
    for cell in (function.__closure__ or ()) if depth else ():
        with suppress(ValueError):  # the cell is empty
            content = cell.cell_contents
            for part in content if isinstance(content, tuple | list) else (content,):
                yield from _files_of(part, depth - 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the computations among the parameters of an operation, such as the body of a loop or the branches."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part
