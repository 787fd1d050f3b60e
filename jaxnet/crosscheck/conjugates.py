"""Finds complex gradients that are wrong because a conjugate is missing or superfluous.

If a gradient is right under one convention, conj(backward(conj(dout))) is right under the other. So if this makes a
wrong gradient right, the mistake is a conjugate. That covers dout * f'(z) for dout * conj(f'(z)) and the
other way round, and a wrong sign of all derivatives by imaginary parts.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxnet.crosscheck.context import Context
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.inspect.arguments import IMAG, REAL
from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.other_points import Point
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.report import Leaf


def name_conjugates(context: Context, leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with a diagnosis for wrong gradients that a conjugate makes right."""
    wrong = {leaf.name for leaf in leaves if leaf.cause is Cause.ANALYTIC_WRONG and leaf.point is Point.GIVEN}
    convention = context.checkable.convention
    is_imaginary = context.checkable.imaginary_outputs(context.output)
    groups = [group for group in _groups(context.checkable, is_imaginary is not None) if wrong & {*group}]
    if convention is None or not groups:
        return leaves
    analytic = context.analytic
    dout = (
        analytic.cast_dout if is_imaginary is None else np.where(is_imaginary, -analytic.cast_dout, analytic.cast_dout)
    )
    try:
        gradients = context.differentiated.backward(copies(analytic.at), dout)
    except OutOfTime:
        raise
    except Exception:  # the user's code rejects this dout
        return leaves
    explained: dict[str, str] = {}
    for group in groups:
        conjugated = analytic
        for name in group:
            sign = -1 if len(group) > 1 and name.endswith(IMAG) else 1
            conjugated = conjugated.with_gradient(name, sign * np.asarray(gradients[name]))
        outcomes = [context.outcome(name, Derivations(conjugated)) for name in group]
        if all(outcome.verdict is Verdict.PASS for outcome in outcomes):
            explained |= dict.fromkeys(group, report_lines.conjugate(convention, is_real=len(group) == 1))
    return [
        replace(leaf, slip=Slip.CONJUGATE, diagnosis=explained[leaf.name])
        if leaf.name in wrong & explained.keys()
        else leaf
        for leaf in leaves
    ]


def _groups(checkable: Checkable, has_complex_output: bool) -> Iterator[tuple[str, ...]]:
    """Yields the parts of each complex array, and each real leaf if the output is complex."""
    parts = {name + part for name in checkable.complex_leaves for part in (REAL, IMAG)}
    yield from ((name + REAL, name + IMAG) for name in checkable.complex_leaves)
    yield from ((name,) for name in checkable.leaves if has_complex_output and name not in parts)
