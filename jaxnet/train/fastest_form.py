"""Chooses the form of the products of a run by measuring it: which one is fastest depends on the processor."""

import numpy as np

from jaxnet.train.compiled_run import CompiledRun
from jaxnet.train.matmul_layout import Form, possible_forms
from jaxnet.train.run_plan import RunPlan

FIRST_STEPS = 10
LONG_RUN = 20.0  # seconds of steps, from which it is worth measuring in which form they are fastest
MEASURED_SECONDS = 0.1  # for each of the rounds of a form
ROUNDS = 5
WORTHWHILE = 0.9  # of the time in the usual form


def fastest_form(plan: RunPlan) -> Form | None:
    """Measures in which form this device makes the steps of a run fastest, if the run is long enough to gain from it.

    The first steps of the run are made in the form of the plan, as a rule the usual one, which takes the time that they
    would take anyway. If all its steps would take less than 20 s, nothing more is done. Otherwise the other forms are
    compiled and measured too, which takes a second or two for each. The state after these steps is dropped. A run in
    another form has other bits, so pass the same form to `fit` with `resume`.

    Args:
        plan: The run, as `plan_run` returns it for the arguments of `fit`, on one device.

    Returns:
        A form that is at least a tenth faster than that of the plan, to be passed to `fit`, or None if there is none.

    Example:
        >>> data, net = jaxnet.data.digits(), jaxnet.two_layer_net(64, 50, 10)
        >>> params = net.init(jax.random.key(0), "he")
        >>> batches = jaxnet.RandomBatches(jax.random.key(1), len(data.x_train), batch_size=100, steps=20)
        >>> form = jaxnet.fastest_form(jaxnet.plan_run(net, params, data, batches))
        >>> _, history = jaxnet.fit(net, params, data, batches, form=form)
    """
    usual = CompiledRun(plan, plan.samples(None))
    seconds = usual.seconds_per_step(plan.first, min(FIRST_STEPS, plan.max_steps))
    if seconds * usual.steps < LONG_RUN:
        return None
    forms = [form for form in possible_forms(usual.config.net) if form != usual.config.form]
    candidates = [usual, *map(usual.in_form, forms)]
    steps = max(1, min(plan.max_steps, int(MEASURED_SECONDS / seconds)))
    rounds = [[each.seconds_per_step(plan.first, steps) for each in candidates] for _ in range(ROUNDS)]
    times = np.asarray(rounds)  # (rounds, candidates)
    # Noise makes one minimum small, or the ratios of a few rounds, but hardly both.
    ratios = np.maximum(times.min(axis=0) / times.min(axis=0)[0], np.median(times / times[:, :1], axis=0))
    fastest = int(ratios.argmin())
    return candidates[fastest].config.form if ratios[fastest] < WORTHWHILE else None
