"""Words for findings: one plain sentence each."""

from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

NO_SEED = (
    "two forward passes at the same inputs differ, as if drawn from random numbers that no seed decides: "
    "hold the generator in the layer, or draw from np.random, or fix the mask"
)
DOUT = {
    Behaviour.NOT_CONTIGUOUS_DOUT: "that is not contiguous (every second element of a wider array)",
    Behaviour.FORTRAN_DOUT: "in Fortran order (a transposed array)",
    Behaviour.NEGATIVE_STRIDE_DOUT: "with negative strides (a reversed array)",
    Behaviour.STRIDE_0_DOUT: "of stride 0 (np.broadcast_to of a number)",
    Behaviour.READ_ONLY_DOUT: "that is read-only",
}
INPUTS = {
    Behaviour.NOT_CONTIGUOUS_INPUT: "that are not contiguous (every second element of a wider array)",
    Behaviour.FORTRAN_INPUT: "in Fortran order (transposed arrays)",
    Behaviour.NEGATIVE_STRIDE_INPUT: "with negative strides (reversed arrays)",
    Behaviour.STRIDE_0_INPUT: "of stride 0 (np.broadcast_to of a number)",
    Behaviour.READ_ONLY_INPUT: "that are read-only",
    Behaviour.INPUT_AS_BROUGHT: "in the memory order in which they were brought",
}
# Each is filled from the finding: {leaf}, {size}, {detail}.
SENTENCES = {
    Behaviour.OVERWRITES_DOUT: "backward overwrites dout, the array that it is given",
    Behaviour.FORWARD_OVERWRITES: "forward overwrites {leaf}",
    Behaviour.BACKWARD_OVERWRITES: "backward overwrites {leaf}",
    Behaviour.REUSES_OUTPUT: "forward returns the same memory at every call: an output changes at the next call",
    Behaviour.REUSES_GRADIENT: (
        "backward returns d{leaf} in the same memory at every call: it changes at the next call"
    ),
    Behaviour.LENDS_CACHE: (
        "forward hands out an array that backward still reads: writing to the output changes the gradient"
    ),
    Behaviour.ADDS_UP: "backward adds to the d{leaf} that it finds: clear it before each backward, or it accumulates",
    Behaviour.RUNS_ONCE: "backward may run once after each forward: a second backward raises {detail}",
    Behaviour.SECOND_BACKWARD_DIFFERS: (
        "a second backward after the same forward gives another gradient: d{leaf} differs by {size:.2g}"
    ),
    Behaviour.SHARED_BY_CLASS: (
        "backward uses values of another instance's call: what it remembers is shared by the class"
    ),
    Behaviour.STALE_BACKWARD: (
        "backward uses values of an earlier call: after {detail} changed in place, as in an optimizer's step, "
        "d{leaf} is not that of a fresh instance"
    ),
    Behaviour.WRONG_AFTER_STEP: (
        "d{leaf} is right at first, and wrong after {detail} changed in place, as in an optimizer's step: "
        "is something kept from an earlier call or from construction, such as a transpose?"
    ),
    Behaviour.STALE_FORWARD: "forward uses values of an earlier call: it does not follow when {leaf} changes in place",
    Behaviour.NOT_REPEATABLE: NO_SEED,
    Behaviour.DRAWS_AGAIN: (
        "two backward passes at the same inputs differ by {size:.2g} in d{leaf}, though the forward passes agree: "
        "backward draws random numbers of its own, or reads memory that was never set"
    ),
    Behaviour.ROUNDS_DIFFERENTLY: (
        "results differ from call to call by a relative {size:.1g}, as sums in another order do: that much is allowed"
    ),
    Behaviour.OTHER_VALUE: (
        "the value that differentiation returns is not the function's value: the rule's forward (fwd) computes another "
        "function than the primal"
    ),
    Behaviour.IGNORES_DOUT: "backward ignores dout: d{leaf} is the same at {size:g} dout",
    Behaviour.NOT_LINEAR: "backward is not linear in dout: {size:g} dout does not give {size:g} times d{leaf}",
    Behaviour.NO_GRADIENT: "backward returns None for {leaf}, expected {detail}",
    Behaviour.LACKS_LEAF: "the gradient has no {leaf}, expected {detail}",
    Behaviour.NOT_FLOATING: "the gradient by {leaf} is {detail}",
    Behaviour.WRONG_SHAPE: "the gradient by {leaf} has shape {detail}",
    Behaviour.TRANSPOSED: "the gradient by {leaf} has shape {detail}: it is transposed",
    Behaviour.ONLY_BROADCASTS: "the gradient by {leaf} has shape {detail}, to which it only broadcasts",
    Behaviour.NOT_FINITE: "the gradient by {leaf} is {detail}, where the forward pass is finite",
    Behaviour.OTHER_DTYPE: "the gradient by {leaf} is {detail} goes in and comes out of forward",
    Behaviour.ONE_BATCH_SIZE: "after a larger batch, one of the first size raises {detail}: it keeps to one batch size",
}


def sentence(finding: Finding) -> str:
    """Returns a finding as one sentence, without a full stop.

    Examples:
        >>> sentence(Finding(Behaviour.FORWARD_OVERWRITES, Level.FAULT, "x"))
        'forward overwrites x'
    """
    if finding.kind in DOUT or finding.kind in INPUTS:
        return _of_layout(finding)
    special = {
        Behaviour.EARLIER_CALL: _of_earlier_call,
        Behaviour.LATER_CALL: _of_later_call,
        Behaviour.OTHER_BATCH_SIZE: _of_batch_size,
    }
    if finding.kind in special:
        return special[finding.kind](finding)
    return SENTENCES[finding.kind].format(leaf=finding.leaf, size=finding.size, detail=finding.detail)


def _of_layout(finding: Finding) -> str:
    of_dout = finding.kind in DOUT
    which = f"a dout {DOUT[finding.kind]}" if of_dout else f"inputs {INPUTS[finding.kind]}"
    if finding.level is Level.WARNING:
        return f"{'backward' if of_dout else 'the layer'} refuses {which}: {finding.detail}"
    if finding.detail == "forward":
        return f"forward is only right for contiguous inputs: for {which} the output differs by {finding.size:.2g}"
    right = "a contiguous dout" if of_dout else "contiguous inputs"
    return f"backward is only right for {right}: for {which} d{finding.leaf} differs by {finding.size:.2g}"


def _of_earlier_call(finding: Finding) -> str:
    what = "backward uses values of an earlier call"
    if finding.detail:
        return f"{what}: after a call at other inputs d{finding.leaf} is not the gradient"
    return f"{what}: after forward(A) and forward(B) its d{finding.leaf} is not B's"


def _of_later_call(finding: Finding) -> str:
    which = f"call {finding.size:.0f} at the same inputs"
    if finding.detail:
        return f"{which} raises {finding.detail}"
    return f"backward gives another d{finding.leaf} at {which}, where forward gives the same output"


def _of_batch_size(finding: Finding) -> str:
    if finding.detail == "forward":
        return "after a call with a larger batch, forward gives another output for the original one"
    return f"after a call with another batch size, d{finding.leaf} is not what it is without that call"
