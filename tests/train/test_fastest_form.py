"""Tests which form of products is chosen by measuring, and that a run is computed in the form that it is given."""

import jax
import numpy as np
import pytest
from conftest import a_dataset

import jaxnet
from jaxnet.train import fastest_form as module
from jaxnet.train.compiled_run import CompiledRun
from jaxnet.train.matmul_layout import FORMS, Form, Layout, possible_forms


@pytest.fixture
def arguments(rng):
    data, net = a_dataset(rng), jaxnet.two_layer_net(12, 7, 5)
    batches = jaxnet.RandomBatches(jax.random.key(1), len(data.x_train), batch_size=10, steps=30)
    return net, net.init(jax.random.key(0), 0.1), data, batches


@pytest.fixture
def measured(monkeypatch):
    """Returns the seconds of a step by form, which take the place of measurements, and a list of what was read."""
    seconds, read = {}, []

    def seconds_per_step(run, _state, _steps):
        read.append(run.config.form)
        return seconds[run.config.form]

    monkeypatch.setattr(CompiledRun, "seconds_per_step", seconds_per_step)
    return seconds, read


TRANSPOSED, AS_WRITTEN, BY_EIGEN = Form(Layout.TRANSPOSED), Form(), Form(uses_eigen=True)  # the first is the usual one


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param((10, 8, 9), AS_WRITTEN, marks=pytest.mark.slow),
        pytest.param((10, 9.5, 8.9), BY_EIGEN, marks=pytest.mark.slow),
        pytest.param((10, 9.1, 12), None, marks=pytest.mark.slow),
        pytest.param((10, 11, 12), None, marks=pytest.mark.slow),
    ],
)
def test_another_form_is_chosen_if_it_is_a_tenth_faster(arguments, measured, seconds, expected):
    measured[0].update(zip((TRANSPOSED, AS_WRITTEN, BY_EIGEN), seconds, strict=True))
    assert jaxnet.fastest_form(jaxnet.plan_run(*arguments)) == expected
    assert set(measured[1]) == set(possible_forms(arguments[0]))


def test_a_form_that_is_faster_in_a_single_round_is_not_chosen(arguments, measured, monkeypatch):
    calls = iter([10, *[8, 8, 8], *[10, 10, 10] * 4])  # the first steps, then the rounds of all forms
    monkeypatch.setattr(CompiledRun, "seconds_per_step", lambda *_: next(calls))
    assert jaxnet.fastest_form(jaxnet.plan_run(*arguments)) is None
    calls = iter([10, 10, 5, 10, *[10, 10, 10] * 4])
    assert jaxnet.fastest_form(jaxnet.plan_run(*arguments)) is None


def test_a_short_run_measures_the_usual_form_alone(arguments, measured):
    measured[0][TRANSPOSED] = 0.9 * module.LONG_RUN / 30
    assert jaxnet.fastest_form(jaxnet.plan_run(*arguments)) is None
    assert measured[1] == [TRANSPOSED]


def test_what_is_measured_are_the_steps_of_the_run_which_start_where_it_does(arguments, monkeypatch):
    monkeypatch.setattr(module, "LONG_RUN", 0.0)
    monkeypatch.setattr(module, "MEASURED_SECONDS", 1e-9)
    stops, advance = [], CompiledRun.advance

    def counted(run, state, stop):
        stops.append((run.config.form, int(state.step), stop))
        return advance(run, state, stop)

    monkeypatch.setattr(CompiledRun, "advance", counted)
    jaxnet.fastest_form(jaxnet.plan_run(*arguments, eval_every=20))
    usual = [stop for form, start, stop in stops if form == TRANSPOSED and start == 0]
    assert usual == [10, 10, *[1] * module.ROUNDS]  # compiled, the first steps, the rounds
    assert {form for form, *_ in stops} == set(possible_forms(arguments[0]))


def test_a_run_has_the_same_results_in_every_form_up_to_rounding(arguments):
    net, params, data, batches = arguments
    runs = [jaxnet.fit(net, params, data, batches, form=form) for form in possible_forms(net)]
    for run in runs[1:]:
        np.testing.assert_allclose(run.history.loss, runs[0].history.loss, rtol=1e-5)


@pytest.mark.parametrize("form", ["for-cpu", None, 3], ids=str)
def test_only_possible_forms_are_accepted(arguments, form):
    form = FORMS.get(form, form)
    if form is None:
        assert len(jaxnet.fit(*arguments, form=form).history.loss) == 30
    else:
        with pytest.raises(ValueError, match=f"form: {form}, expected one in which this device can compute the net"):
            jaxnet.fit(*arguments, form=form)
