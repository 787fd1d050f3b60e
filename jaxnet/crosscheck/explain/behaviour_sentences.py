"""Puts findings on the behaviour of a layer into one sentence each."""

import math

from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

NO_SEED = (
    "two forward passes at the same inputs differ, as if they used random numbers without a seed: "
    "keep the generator in the layer, draw from np.random, or fix the mask"
)
DOUT = {
    Behaviour.NOT_CONTIGUOUS_DOUT: "that is not contiguous (every second element of a wider array)",
    Behaviour.FORTRAN_DOUT: "in Fortran order (a transposed array)",
    Behaviour.NEGATIVE_STRIDE_DOUT: "with negative strides (a reversed array)",
    Behaviour.STRIDE_0_DOUT: "with stride 0 (np.broadcast_to of a number)",
    Behaviour.READ_ONLY_DOUT: "that is read-only",
}
INPUTS = {
    Behaviour.NOT_CONTIGUOUS_INPUT: "that are not contiguous (every second element of a wider array)",
    Behaviour.FORTRAN_INPUT: "in Fortran order (transposed arrays)",
    Behaviour.NEGATIVE_STRIDE_INPUT: "with negative strides (reversed arrays)",
    Behaviour.STRIDE_0_INPUT: "with stride 0 (np.broadcast_to of a number)",
    Behaviour.READ_ONLY_INPUT: "that are read-only",
    Behaviour.INPUT_AS_PASSED: "in the memory order in which you passed them",
}
# Templates with the fields of a finding: {leaf}, {size}, {detail}.
SENTENCES = {
    Behaviour.OVERWRITES_DOUT: "backward overwrites dout, its argument: write to a copy",
    Behaviour.FORWARD_OVERWRITES: "forward overwrites {leaf}: write to a copy",
    Behaviour.BACKWARD_OVERWRITES: "backward overwrites {leaf}: write to a copy, or update parameters elsewhere",
    Behaviour.REPLACES_PARAMETER: (
        "backward replaces {leaf} with new arrays, as the update W = W - lr * dW does, so the next forward uses other "
        "values: update the parameters outside of backward"
    ),
    Behaviour.REUSES_OUTPUT: "forward returns the same memory in every call: the next call overwrites the output",
    Behaviour.REUSES_GRADIENT: "backward returns d{leaf} in the same memory in every call: the next call overwrites it",
    Behaviour.LENDS_CACHE: (
        "forward returns an array that backward reads later: writing to the output changes the gradient"
    ),
    Behaviour.ADDS_UP: "backward adds to the existing d{leaf}: reset it before each backward, or it accumulates",
    Behaviour.RUNS_ONCE: "backward can run only once after each forward: a second backward raises {detail}",
    Behaviour.SECOND_BACKWARD_DIFFERS: (
        "a second backward after the same forward returns another gradient: d{leaf} differs by {size:.2g}"
    ),
    Behaviour.SHARED_BY_CLASS: "backward uses values of another instance's call: its cache is shared by the class",
    Behaviour.STALE_BACKWARD: (
        "backward uses values of an earlier call: after an in-place update of {detail}, as by an optimizer, "
        "d{leaf} is not that of a new instance"
    ),
    Behaviour.WRONG_AFTER_STEP: (
        "d{leaf} is right at first, but wrong after an in-place update of {detail}, as by an optimizer: "
        "does the layer keep a value from an earlier call or from construction, such as a transpose?"
    ),
    Behaviour.WRONG_IN_LATER_CALL: (
        "d{leaf} is right at these inputs, but wrong in a later call at inputs a thousandth away: does backward keep "
        "values of an earlier call?"
    ),
    Behaviour.STALE_FORWARD: (
        "forward uses values of an earlier call: the output stays the same after an in-place update of {leaf}"
    ),
    Behaviour.NOT_REPEATABLE: NO_SEED,
    Behaviour.DRAWS_AGAIN: (
        "two backward passes at the same inputs differ by {size:.2g} in d{leaf}, although the forward passes agree: "
        "backward draws its own random numbers or reads uninitialized memory"
    ),
    Behaviour.ROUNDS_DIFFERENTLY: (
        "results differ between calls by a relative {size:.1g}, as sums in another order do: this is allowed"
    ),
    Behaviour.OTHER_VALUE: (
        "the value returned under differentiation is not the value of the function: "
        "the rule's forward (fwd) computes another function than the primal"
    ),
    Behaviour.IGNORES_DOUT: "backward ignores dout: d{leaf} is the same for {size:g} * dout, so multiply by dout",
    Behaviour.NOT_LINEAR: "backward is not linear in dout: {size:g} * dout does not give {size:g} * d{leaf}",
    Behaviour.FORWARD_MODE_WRONG: ("forward mode is wrong: along a direction of {leaf}, <dout, J v> is {detail}"),
    Behaviour.FORWARD_MODE_RIGHT: (
        "forward mode agrees with the difference quotient along {leaf}: only reverse mode is wrong"
    ),
    Behaviour.FORWARD_MODE_RAISES: "forward mode raises {detail}",
    Behaviour.MODES_DIFFER: (
        "forward and reverse mode differ by a relative {size:.1e} along {leaf}, more than rounding explains: <u, J v> "
        "is not <J^T u, v>, so one of them is wrong by less than difference quotients resolve"
    ),
    Behaviour.PARTIAL_DIFFERS: (
        "d{leaf} is another one if only {detail} needs a gradient: it differs by {size:.2g} from the one that is "
        "computed with those of the other arguments"
    ),
    Behaviour.PARTIAL_RAISES: "if only {leaf} needs a gradient, backward raises {detail}",
    Behaviour.UNDEFINED_DIFFERS: (
        "d{leaf} differs by {size:.2g} from the one for upstream gradients of zeros, {detail}"
    ),
    Behaviour.UNDEFINED_RAISES: "backward raises {detail}",
    Behaviour.TRANSFORM_VALUE: "under {detail} the output is another one: it differs by {size:.2g}",
    Behaviour.TRANSFORM_GRADIENT: "under {detail} d{leaf} is another one: it differs by {size:.2g}",
    Behaviour.TRANSFORM_RAISES: "it cannot run under {detail}",
    Behaviour.HESSIAN_NOT_SYMMETRIC: (
        "the second derivative is not symmetric: <u, H v> differs from <v, H u> by a relative {size:.1e}"
    ),
    Behaviour.FORWARD_OUT_OF_RANGE: "forward is not finite in the dtype of its inputs: {detail}",
    Behaviour.NO_GRADIENT: "backward returns None for {leaf}, expected {detail}",
    Behaviour.LACKS_LEAF: "the gradient has no {leaf}, expected {detail}",
    Behaviour.NOT_FLOATING: "the gradient for {leaf} is {detail}",
    Behaviour.WRONG_SHAPE: "the gradient for {leaf} has shape {detail}",
    Behaviour.ONLY_BROADCASTS: "the gradient for {leaf} has shape {detail}: it only broadcasts to the leaf",
    Behaviour.NOT_FINITE: "the gradient for {leaf} is {detail}, where the forward pass is finite",
    Behaviour.OTHER_DTYPE: "the gradient for {leaf} is {detail}",
    Behaviour.ONE_BATCH_SIZE: (
        "after a larger batch, a batch of the original size raises {detail}: the layer supports only one batch size"
    ),
}


def sentence(finding: Finding) -> str:
    """Returns a finding as one sentence without a full stop.

    Examples:
        >>> sentence(Finding(Behaviour.FORWARD_OVERWRITES, Level.FAULT, "x"))
        'forward overwrites x: write to a copy'
    """
    if finding.kind in DOUT or finding.kind in INPUTS:
        return _memory_layout(finding)
    special = {
        Behaviour.EARLIER_CALL: _earlier_call,
        Behaviour.LATER_CALL: _later_call,
        Behaviour.OTHER_BATCH_SIZE: _batch_size,
    }
    if finding.kind in special:
        return special[finding.kind](finding)
    return SENTENCES[finding.kind].format(leaf=finding.leaf, size=finding.size, detail=finding.detail)


def _memory_layout(finding: Finding) -> str:
    of_dout = finding.kind in DOUT
    arrays = f"a dout {DOUT[finding.kind]}" if of_dout else f"inputs {INPUTS[finding.kind]}"
    if finding.level is Level.WARNING or math.isnan(finding.size):  # an exception, and no difference
        return f"{'backward' if of_dout else 'the layer'} does not accept {arrays}: {finding.detail}"
    if finding.detail == "forward":
        return f"forward is right only for contiguous inputs: for {arrays}, the output differs by {finding.size:.2g}"
    right = "a contiguous dout" if of_dout else "contiguous inputs"
    return f"backward is right only for {right}: for {arrays}, d{finding.leaf} differs by {finding.size:.2g}"


def _earlier_call(finding: Finding) -> str:
    fault = "backward uses values of an earlier call"
    if finding.detail:
        return f"{fault}: after a call with other inputs, d{finding.leaf} is not the gradient"
    return f"{fault}: after forward(A) and forward(B), d{finding.leaf} is not that of B"


def _later_call(finding: Finding) -> str:
    call = f"call {finding.size:.0f} with the same inputs"
    if finding.detail:
        return f"{call} raises {finding.detail}"
    return f"backward returns another d{finding.leaf} in {call}, although forward returns the same output"


def _batch_size(finding: Finding) -> str:
    if finding.detail == "forward":
        return "after a call with a larger batch, forward returns another output for the original batch"
    return f"after a call with another batch size, d{finding.leaf} differs from that without the call"
