"""Finds the line of a user's code that computes a gradient."""

import ast
import inspect
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxnet.crosscheck.applied_functions import applied_functions
from jaxnet.crosscheck.decide import Verdict
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name

if TYPE_CHECKING:
    from jaxnet.crosscheck.report import Report

BACKWARDS = (
    "backward", "backward_pass", "backprop", "gradient", "grad", "vjp", "derivative", "bwd", "jacobian", "loss",
)  # fmt: skip
FORMS = (*GRADIENT_NAMES, "g{}", "{}_gradient")  # names of a gradient in code that need not be read by them
PREPARING = ("_", "zero", "reset", "init")  # the first letters of methods that set gradients to nothing
MOST_LINES = 4  # that a sentence lists


class SourceLine(NamedTuple):
    """A line of a file, and what stands there."""

    file: Path
    line: int
    code: str = ""

    def __str__(self) -> str:
        """Returns FILE:LINE, with the file relative to the working folder if it is below; a cell has no file."""
        if not self.file.is_file():
            return f"line {self.line} of a notebook cell"
        return f"{relative(self.file, Path.cwd())}:{self.line}"


def gradient_line(subject: Any, gradient: Any = None, leaf: str = "") -> SourceLine | None:
    """Returns the line of the code that computes a gradient, or None if it is not written in Python.

    Args:
        subject: A layer, a network, a pair of functions or a function, as in `check`.
        gradient: The function that returns the gradient of `subject`, if it is another one.
        leaf: The leaf whose gradient is meant. If nothing is assigned to a name such as `self.dW` or `grads["W"]`, the
            line is that of its update, `self.W -= ...`, of the only `return`, or else the first one of the function.
    """
    owner = getattr(subject, "__self__", subject)  # the class of a torch.autograd.Function, whose apply is the subject
    methods = [getattr(owner, name) for name in BACKWARDS if callable(getattr(owner, name, None))]
    if all(method.__name__ == "loss" for method in methods):  # a model that trains itself
        methods = [*_training_methods(owner, leaf), *methods]
    last = _gradient_of_tuple(subject, leaf) if isinstance(subject, tuple) else ()
    if not (gradient or last or methods) and len(functions := applied_functions(subject)) == 1:
        methods = [functions[0].backward]
    for candidate in (gradient, *last, *methods, getattr(subject, "forward", None), subject, type(subject)):
        if candidate is None or (isinstance(candidate, type) and candidate.__module__ == "builtins"):
            continue
        try:
            unwrapped = inspect.unwrap(candidate)
            file = inspect.getsourcefile(unwrapped)
            lines, line = inspect.getsourcelines(unwrapped)
        except (TypeError, OSError, ValueError):
            continue
        if file:
            is_gradient = candidate in (gradient, *last, *methods)
            below = gradient_within("".join(lines), leaf) if is_gradient else 0
            return SourceLine(Path(file).resolve(), max(line, 1) + below, lines[below].strip())
    return None


def _gradient_of_tuple(parts: tuple[Any, ...], leaf: str) -> list[Any]:
    """Returns what may compute the gradient in `(forward, backward)`, in `(net, cost)`, or in three parts with a cost.

    A function in which the gradient is assigned is the first, then the methods of a network, then the last part.
    """
    functions = [part for part in parts if inspect.isroutine(part) and any(_assignments(_source(part), leaf))]
    networks = [part for part in parts if not callable(part) or hasattr(part, "forward")]
    names = [name for name in BACKWARDS if name != "loss"]
    methods = [getattr(part, name) for part in networks for name in names if callable(getattr(part, name, None))]
    return [*functions, *methods, *parts[-1:]]


def _source(function: Any) -> str:
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError, ValueError):
        return ""


def _training_methods(owner: Any, leaf: str) -> list[Any]:
    """Returns the methods of an object in which the gradient of a leaf is assigned, then those that update the leaf."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for kind in type(owner).__mro__ if leaf else ():
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and name not in found and not name.startswith(PREPARING):
                found[name] = _assignments(_source(method), leaf)
    ranked = [name for name, (gradients, _) in found.items() if gradients]
    ranked += [name for name, (gradients, updates) in found.items() if updates and not gradients]
    return [getattr(owner, name) for name in ranked]


def gradient_within(source: str, leaf: str) -> int:
    r"""Returns how far below the first line of a function the gradient of a leaf is computed.

    That is where it is last assigned, or else where the leaf is updated, or else the only `return` of the function; 0
    if there are several.

    Examples:
        >>> gradient_within("def backward(self, dout):\n    self.db = dout\n    self.dW = 2 * dout\n", "W")
        2
        >>> gradient_within("def train(self, x):\n    d = self.p(x)\n    self.W -= x.T @ d\n    return d\n", "W")
        2
        >>> gradient_within("def backward(dout, x):\n    # twice\n    return 2 * dout\n", "x")
        2
    """
    gradients, updates = _assignments(source, leaf)
    if gradients or updates:
        return max(gradients or updates)
    nodes = ast.walk(_parsed(source))
    returns = [node.lineno - 1 for node in nodes if isinstance(node, ast.Return) and node.value is not None]
    return returns[0] if len(returns) == 1 else 0


def _assignments(source: str, leaf: str) -> tuple[list[int], list[int]]:
    """Returns how far below the first line of a function the gradient of a leaf is assigned, and the leaf updated."""
    gradients, updates = [], []
    names = {form.format(base_name(leaf)) for form in FORMS}
    for node in ast.walk(_parsed(source)) if leaf else ():
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                if _names(part, names, base_name(leaf)):
                    gradients.append(node.lineno - 1)
                elif isinstance(node, ast.AugAssign) and _is_attribute(part, base_name(leaf)):
                    updates.append(node.lineno - 1)
    return gradients, updates


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(textwrap.dedent(source))
    except SyntaxError:  # a lambda within a longer statement
        return ast.Module([], [])


def _is_attribute(target: ast.expr, name: str) -> bool:
    """Returns whether a target is `self.NAME`, or elements of it."""
    target = target.value if isinstance(target, ast.Subscript) else target
    return isinstance(target, ast.Attribute) and target.attr == name


def _names(target: ast.expr, gradients: Collection[str], leaf: str) -> bool:
    """Returns whether a target is the gradient: `dW`, `self.dW`, `self.W.grad`, `grads["W"]`, or an element of one."""
    if isinstance(target, ast.Attribute):
        is_of_object = target.attr == "grad" and isinstance(target.value, ast.Attribute) and target.value.attr == leaf
        return target.attr in gradients or is_of_object
    if isinstance(target, ast.Subscript):
        key = target.slice.value if isinstance(target.slice, ast.Constant) else None
        return key in (leaf, *gradients) or _names(target.value, gradients, leaf)
    return isinstance(target, ast.Name) and target.id in gradients


def lines_of_wrong_gradients(report: "Report", subject: Any, gradient: Any = None) -> dict[str, SourceLine]:
    """Returns the line of the gradient of each leaf that fails in a report, as `gradient_line` finds it.

    If no single leaf fails, the only name is "". A PASS has no lines.
    """
    if report.verdict is Verdict.PASS:
        return {}
    parts = [report, *report.points]
    wrong = dict.fromkeys(leaf.name for part in parts for leaf in part.leaves if leaf.verdict is Verdict.FAIL)
    lines = {name: gradient_line(subject, gradient, name) for name in wrong or [""]}
    return {name: line for name, line in lines.items() if line is not None}


def computed_at(lines: Mapping[str, SourceLine]) -> str:
    """Returns the sentence that says where gradients are computed, each by its leaf if they are at several lines.

    Args:
        lines: The line of each leaf, at least one.

    Examples:
        >>> computed_at({"W": SourceLine(Path("cell"), 7), "b": SourceLine(Path("cell"), 8)})
        'the gradient is computed at line 7 of a notebook cell for W, line 8 of a notebook cell for b'
    """
    places = [(str(line), name) for name, line in lines.items()]
    if len({place for place, _ in places}) == 1:
        return f"the gradient is computed at {places[0][0]}"
    listed = [f"{place} for {name}" for place, name in places[:MOST_LINES]] + ["..."] * (len(places) > MOST_LINES)
    return f"the gradient is computed at {', '.join(listed)}"


def relative(file: Path, folder: Path) -> str:
    """Returns a file relative to a folder, if it is below."""
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
