"""The compiled programs of one run, and what Python does with them: steps, evaluations, and the replay of a fault."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Float

from jaxnet.train.compiled_steps import compiled_in, count_correct, run_steps
from jaxnet.train.device_data import to_floats
from jaxnet.train.divergence import DivergedError, diverged_error, nonfinite_finder
from jaxnet.train.history import History
from jaxnet.train.matmul_layout import Form, usual_form
from jaxnet.train.run_plan import RunPlan
from jaxnet.train.sample_sources import DeviceSamples, HostSamples, Part
from jaxnet.train.step import TrainState


class CompiledRun:
    """The two compiled programs of a run, one for its steps and one that evaluates, with the samples that they read."""

    def __init__(self, plan: RunPlan, samples: DeviceSamples | HostSamples) -> None:
        config, params = plan.config, plan.first.params
        self.plan, self.config, self.samples = plan, config, samples
        self.hyperparameters = config.devices.replicate(plan.hyperparameters)
        self.steps, self.max_steps, self.dtype = len(plan.batches), plan.max_steps, plan.dtype
        self._is_compiled = False
        self._run = compiled_in(config.form, run_steps, "config", "max_steps")
        evaluation = usual_form(config.net, params, samples.rows_at_a_time)
        compiled = compiled_in(evaluation, count_correct, "net", "devices", "layout")
        self._count_correct = partial(compiled, config.net, devices=config.devices, layout=evaluation.layout)

    def in_form(self, form: Form) -> "CompiledRun":
        """Returns the programs whose steps are computed in another form."""
        return CompiledRun(self.plan._replace(config=self.config._replace(form=form)), self.samples)

    def seconds_per_step(self, state: TrainState, steps: int) -> float:
        """Measures so many steps after a state, once they are compiled."""
        if not self._is_compiled:
            self.advance(state, int(state.step) + steps)
            self._is_compiled = True
        started = time.perf_counter()
        self.advance(state, int(state.step) + steps)
        return (time.perf_counter() - started) / steps

    def advance(self, state: TrainState, stop: int) -> tuple[TrainState, Float[np.ndarray, " K"], bool]:
        """Makes the steps from `state.step` up to but not including `stop`.

        Returns:
            The state after the last step, the losses, and whether the state is finite.
        """
        done, losses, finite = int(state.step), [], True
        for data, end in self.samples.of_steps(done, stop):
            arguments = self.config, self.hyperparameters, state, data, end
            state, some_losses, some_finite = self._run(*arguments, max_steps=self.max_steps)
            losses.append(np.asarray(some_losses)[: end - done])
            done, finite = end, finite and bool(some_finite)
        return state, np.concatenate(losses), finite

    def evaluate(self, state: TrainState) -> tuple[float, float]:
        """Returns the accuracies of this state, in [0, 1], on the training and the test samples."""

        def accuracy(parts: Iterator[Part]) -> float:
            total = np.zeros(2, np.int64)
            for x, t, rows in parts:
                total += np.array(self._count_correct(state.params, state.net_state, x, t, rows))
            return float(total[0] / total[1])

        train, test = map(accuracy, self.samples.evaluated())
        return train, test

    def replay(self, state: TrainState, history: History) -> DivergedError:
        """Repeats the steps after `state` one by one, to the first with a non-finite value, and returns the error."""
        objective, optimizer = self.config.build(self.hyperparameters)
        first_nonfinite = nonfinite_finder(objective, optimizer)
        last = next(iter(np.flatnonzero(~np.isfinite(history.loss))), len(history.loss) - 1)  # a fault shows by then
        while True:
            x, t = self.samples.of_step(int(state.step))
            what = first_nonfinite(state, to_floats(x, self.dtype), t)
            if what is None and state.step == last:  # the compiled loop rounds differently
                what = f"the loss is {history.loss[last]}"
            if what is not None:
                rate = self.hyperparameters.learning_rate
                return diverged_error(what, history, state, None if rate is None else float(rate))
            state, _, _ = self.advance(state, int(state.step) + 1)
