"""Tests the compiled training loop: against the NumPy loop, its compilations, its errors, and refused arguments."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import a_dataset, hand_built, noise_of, random_params, slow

import jaxnet
import numpy_ref
from jaxnet.train import compiled_steps, device_data
from jaxnet.train.matmul_layout import Form

STEPS = 500


@pytest.fixture
def data(rng):
    return a_dataset(rng)


@pytest.fixture
def net():
    return jaxnet.two_layer_net(12, 8, 5)


def batches_for(data, steps, batch_size=10, key=7):
    return jaxnet.draw_batches(jax.random.key(key), len(data.x_train), batch_size, steps)


def both_trajectories(net, params, data, batches, dtype):
    data = data._replace(x_train=data.x_train.astype(dtype), x_test=data.x_test.astype(dtype))
    network = hand_built(net, params)
    by_hand = numpy_ref.train(network, *data, np.asarray(batches), 0.1, eval_every=50)
    state, compiled = jaxnet.fit(net, params, data, batches, learning_rate=0.1, eval_every=50)
    return network.params, by_hand, jax.device_get(state.params), compiled


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("make", [slow(jaxnet.two_layer_net), jaxnet.notebook_net], ids=["book", "notebook"])
def test_500_steps_in_numpy_and_compiled_are_one_trajectory_in_float64(make, data, x64):
    """A step has a rounding error of a few eps = 2e-16. Training does not amplify it, as the next test measures, so the
    error of 500 steps stays below 1e-12, which is three digits below the bound."""
    net = make(12, 8, 5)
    params = random_params(net)
    hand_params, by_hand, params, compiled = both_trajectories(net, params, data, batches_for(data, STEPS), np.float64)
    assert compiled.loss.dtype == np.float64
    assert by_hand.loss[-1] < 0.5 * by_hand.loss[0]
    np.testing.assert_allclose(compiled.loss, by_hand.loss, rtol=0, atol=1e-9)
    assert largest_difference(params, hand_params) < 1e-9
    for name in ("eval_step", "train_accuracy", "test_accuracy"):
        np.testing.assert_allclose(getattr(compiled, name), getattr(by_hand, name), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_500_steps_in_float32_drift_by_their_rounding_errors(net, data, x64):
    """A float64 run whose start is moved by one float32 unit roundoff measures the growth of one rounding error. A
    float32 run has such an error at every step, so it drifts, and at most 500 times as far."""
    params, batches = random_params(net, dtype=np.float32), batches_for(data, STEPS)
    double = jax.tree.map(np.float64, params)
    exact, by_hand, _, _ = both_trajectories(net, double, data, batches, np.float64)
    nudged, one_error, _, _ = both_trajectories(
        net, jax.tree.map(lambda a: a * (1 + float(np.finfo(np.float32).eps) / 2), double), data, batches, np.float64
    )
    _, _, rounded, compiled = both_trajectories(net, params, data, batches, np.float32)
    assert compiled.loss.dtype == np.float32
    drift = np.abs(compiled.loss - by_hand.loss).max()
    assert 1e-9 < drift < STEPS * np.abs(one_error.loss - by_hand.loss).max() < 1e-2
    assert largest_difference(rounded, exact) < STEPS * largest_difference(nudged, exact) < 1e-2


@pytest.mark.slow
def test_a_difference_in_one_batch_changes_the_trajectory(net, data, x64):
    params, batches = random_params(net), np.array(batches_for(data, STEPS))
    other = batches.copy()
    other[250] = (other[250] + 1) % len(data.x_train)
    _, by_hand, _, _ = both_trajectories(net, params, data, batches, np.float64)
    _, _, _, compiled = both_trajectories(net, params, data, other, np.float64)
    assert np.abs(compiled.loss - by_hand.loss)[:250].max() < 1e-9 < np.abs(compiled.loss - by_hand.loss)[250:].max()


@pytest.fixture
def compiled_programs():
    """Returns a function that returns the number of programs compiled so far."""
    count = Counter()

    def listen(event, duration, **_):
        count[event] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: count["/jax/core/compile/backend_compile_duration"]


def test_runs_of_one_shape_compile_once(rng, data, compiled_programs):
    net, batches = jaxnet.two_layer_net(12, 9, 5), batches_for(data, 40)
    params, other = random_params(net, dtype=np.float32), random_params(net, 5, np.float32)
    before = compiled_programs()
    jaxnet.fit(net, params, data, batches, eval_every=10)
    first = compiled_programs() - before
    assert first >= 1
    again = jaxnet.two_layer_net(12, 9, 5)  # a second network with the same description
    jaxnet.fit(again, other, a_dataset(rng), batches_for(data, 40, key=1), eval_every=10, learning_rate=0.02)
    assert compiled_programs() - before == first
    jaxnet.fit(net, params, data, batches, eval_every=20)
    assert compiled_programs() - before > first  # another interval is another program, so the count can rise


@pytest.mark.slow
def test_another_clip_norm_does_not_compile_another_program(data, compiled_programs):
    net, batches = jaxnet.two_layer_net(12, 11, 5), batches_for(data, 40)
    params = random_params(net, dtype=np.float32)
    jaxnet.fit(net, params, data, batches, clip_norm=1.0)
    before = compiled_programs()
    jaxnet.fit(net, params, data, batches, clip_norm=0.1, learning_rate=0.02)
    assert compiled_programs() == before
    jaxnet.fit(net, params, data, batches)
    assert compiled_programs() > before  # without clip_norm it is another program, so the count can rise


@pytest.mark.slow
def test_evaluations_do_not_add_programs(data, compiled_programs):
    net = jaxnet.two_layer_net(12, 10, 5)
    params = random_params(net, dtype=np.float32)
    counts = []
    for steps in (20, 80):
        before = compiled_programs()
        jaxnet.fit(net, params, data, batches_for(data, steps), eval_every=10)
        counts.append(compiled_programs() - before)
    assert counts[1] <= counts[0]


def test_the_same_seed_gives_the_same_bits_with_and_without_a_callback(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 30)
    reports = []
    one, history = jaxnet.fit(net, params, data, batches, eval_every=10)
    two, watched = jaxnet.fit(net, params, data, batches, eval_every=10, on_evaluation=lambda *row: reports.append(row))
    jax.tree.map(np.testing.assert_array_equal, (one.params, history), (two.params, watched))
    assert [step for step, *_ in reports] == [10, 20, 30]
    np.testing.assert_array_equal(np.array(reports)[:, 1], watched.loss[9::10])
    np.testing.assert_array_equal(np.array(reports)[:, 2], watched.train_accuracy[1:])
    np.testing.assert_array_equal(np.array(reports)[:, 3], watched.test_accuracy[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "eval_every", "expected"),
    [(30, 10, [0, 10, 20, 30]), (25, 10, [0, 10, 20, 25]), (5, 10, [0, 5]), (1, 1, [0, 1])],
)
def test_evaluations_are_at_the_documented_steps(net, data, steps, eval_every, expected):
    params = random_params(net, dtype=np.float32)
    _, history = jaxnet.fit(net, params, data, batches_for(data, steps), eval_every=eval_every)
    assert history.eval_step.tolist() == expected
    assert history.loss.shape == (steps,)
    assert history.train_accuracy.shape == history.test_accuracy.shape == (len(expected),)


@pytest.mark.slow
@pytest.mark.parametrize(
    "custom", [{"optimizer": optax.sgd, "learning_rate": 0.1}, {"optimizer": optax.sgd(0.1)}], ids=["function", "optax"]
)
def test_an_optax_optimizer_equals_the_optimizer_with_its_name(net, data, custom):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 20)
    by_name = jaxnet.fit(net, params, data, batches, optimizer="sgd", clip_norm=1.0)
    by_object = jaxnet.fit(net, params, data, batches, clip_norm=1.0, **custom)
    *_, last = jaxnet.iter_fit(net, params, data, batches, clip_norm=1.0, **custom)
    for run in (by_object, last):
        jax.tree.map(np.testing.assert_array_equal, run.state.params, by_name.state.params)


@pytest.mark.slow
def test_an_optax_optimizer_is_resumed_bit_for_bit(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 20)
    whole = jaxnet.fit(net, params, data, batches, optimizer=optax.adam(1e-2))
    half = jaxnet.fit(net, params, data, batches[:10], optimizer=optax.adam(1e-2))
    resumed = jaxnet.fit(net, params, data, batches, optimizer=optax.adam(1e-2), resume=half)
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, whole.state.params)


@pytest.mark.slow
def test_the_same_optax_optimizer_compiles_once(data, compiled_programs):
    net, batches, optimizer = jaxnet.two_layer_net(12, 13, 5), batches_for(data, 20), optax.adam(1e-2)
    params = random_params(net, dtype=np.float32)
    jaxnet.fit(net, params, data, batches, optimizer=optimizer)
    before = compiled_programs()
    jaxnet.fit(net, params, data, batches, optimizer=optimizer)
    assert compiled_programs() == before
    jaxnet.fit(net, params, data, batches, optimizer=optax.adam(1e-2))
    assert compiled_programs() > before


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(optax.lbfgs(memory_size=3), marks=pytest.mark.slow),  # compiles its line search for seconds
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    ],
    ids=["lbfgs", "reduce_on_plateau"],
)
def test_optax_optimizers_that_need_the_loss_learn(net, data, optimizer):
    params = net.init(jax.random.key(0), "he")
    history = jaxnet.fit(net, params, data, batches_for(data, 50, 30), optimizer=optimizer).history
    assert history.loss[-10:].mean() < 0.7 * history.loss[:10].mean()


@pytest.mark.slow
def test_a_learning_rate_with_an_optax_optimizer_is_refused_by_name(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 3)
    for function in (jaxnet.fit, jaxnet.iter_fit):
        with pytest.raises(
            ValueError, match=r"learning_rate: 0\.1, expected none beside an optax.GradientTransformation"
        ):
            function(net, params, data, batches, optimizer=optax.adam(1e-3), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"learning_rate: None, expected a finite number > 0"):
        jaxnet.fit(net, params, data, batches, optimizer=optax.adam)


@pytest.mark.slow
def test_a_divergence_with_an_optax_optimizer_names_the_optimizer(net, data):
    with pytest.raises(jaxnet.DivergedError, match="the learning rate of the optimizer is probably too high"):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches_for(data, 300), optimizer=optax.sgd(1e25))


@pytest.mark.slow
def test_a_training_step_takes_an_optimizer_by_name(net, data):
    params, key = random_params(net, dtype=np.float32), jax.random.key(0)
    x, t = data.x_train[:4], data.t_train[:4]
    states = [
        jaxnet.train_step(net, optimizer, jaxnet.init_train_state(net, optimizer, params, key), x, t)[0]
        for optimizer in ("adam", optax.adam(1e-3))
    ]
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
    with pytest.raises(ValueError, match=r"optimizer: 'sdg', expected an optax.GradientTransformation or one of sgd, "):
        jaxnet.train_step(net, "sdg", states[0], x, t)


@pytest.mark.slow
def test_labels_may_be_one_hot(net, data, x64):
    """Allows rounding errors, because the program differs from that for class numbers."""
    params, batches = random_params(net), batches_for(data, 20)
    rows = data._replace(t_train=np.eye(5)[data.t_train], t_test=np.eye(5)[data.t_test])
    one, history = jaxnet.fit(net, params, data, batches)
    two, same = jaxnet.fit(net, params, rows, batches)
    assert largest_difference((one.params, history), (two.params, same)) < 1e-12


@pytest.mark.slow
def test_batches_are_uniform_and_determined_by_their_key():
    batches = np.asarray(jaxnet.draw_batches(jax.random.key(3), 20, 10, 4000))
    assert batches.shape == (4000, 10)
    np.testing.assert_array_equal(batches, jaxnet.draw_batches(jax.random.key(3), 20, 10, 4000))
    counts = np.bincount(batches.ravel(), minlength=20)  # binomial: 2000 +- 44
    assert abs(counts - 2000).max() < 5 * np.sqrt(40_000 / 20 * 19 / 20)
    assert (np.sort(batches, axis=1)[:, 1:] == np.sort(batches, axis=1)[:, :-1]).any()  # with replacement


@pytest.mark.slow
def test_divergence_is_reported_at_its_step_with_the_history_before_it(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 300)
    with pytest.raises(jaxnet.DivergedError, match=r"learning rate 1e\+25 is probably too high, try 0.1") as caught:
        jaxnet.fit(net, params, data, batches, learning_rate=1e25, eval_every=10)
    error = caught.value
    assert f"at step {error.step}" in str(error)
    assert 1 < error.step < 300
    assert error.history.loss.shape == (error.step - 1,)
    assert np.isfinite(error.history.loss).all()
    assert error.history.eval_step.max() < error.step


@pytest.mark.slow
def test_training_stops_soon_after_it_diverges(net, data):
    params, reports = random_params(net, dtype=np.float32), []
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(
            net, params, data, batches_for(data, 300), learning_rate=1e25, eval_every=10,
            on_evaluation=lambda step, *_: reports.append(step),
        )  # fmt: skip
    assert reports == list(range(10, caught.value.step, 10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda p: p["Affine1"]["W"].__setitem__((0, 0), np.nan), "Affine1.W is nan"),
        (lambda p: p["Affine2"]["b"].__setitem__(0, np.inf), "Affine2.b is infinite"),
        (lambda p: p["Affine1"]["W"].__imul__(np.float32(1e38)), "the output of Affine1 is "),
        (lambda p: p["Affine2"]["W"].__imul__(np.float32(1e38)), "the output of Affine2 is "),
    ],
)
def test_the_first_nonfinite_value_is_named(net, data, spoil, what):
    params = random_params(net, dtype=np.float32)
    spoil(params)
    data = data._replace(x_train=10 * data.x_train)
    with np.errstate(all="ignore"), pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, params, data, batches_for(data, 20))
    assert caught.value.what.startswith(what)
    assert caught.value.step == 1


@jax.custom_vjp
def _identity(x):
    return x


_identity.defvjp(lambda x: (x, x), lambda x, g: (jnp.where(x.max() > 0, jnp.inf, g),))


@pytest.mark.slow
def test_a_nonfinite_gradient_of_a_finite_loss_is_named_with_its_step(data):
    """The backward pass of the layer between overflows, so Affine2's gradient is finite and Affine1's is not."""
    bad = jaxnet.nn.stateless(("Bad",), lambda *_: {}, lambda _, x: _identity(x))
    net = jaxnet.nn.sequential({"Affine1": jaxnet.nn.affine(12, 8), "Bad": bad, "Affine2": jaxnet.nn.affine(8, 5)})
    params = random_params(net, dtype=np.float32)
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, params, data, batches_for(data, 20))
    assert caught.value.what in ("the gradient of Affine1.b is infinite", "the gradient of Affine1.b is nan")
    assert caught.value.step == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(caught.value.state.params))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "batch_norm", "scale", "what"),
    [
        ("adam", False, 1e25, "the optimizer's nu of Affine1."),
        ("adagrad", False, 1e25, "the optimizer's sum_of_squares of Affine1."),
        ("sgd", True, 1e19, "BatchNorm1.var, updated, is infinite"),
    ],
)
def test_an_overflow_in_optimizer_or_layer_state_is_reported(data, optimizer, batch_norm, scale, what):
    """The loss and the parameters stay finite: a leaf whose second moment is infinite is no longer trained."""
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=batch_norm)
    data = data._replace(x_train=np.float32(scale) * data.x_train)
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches_for(data, 5), optimizer=optimizer)
    assert caught.value.what.startswith(what)
    assert caught.value.step == 1
    assert "look for samples out of range" in str(caught.value)  # the learning rate is not the cause


@pytest.mark.slow
def test_a_learning_rate_that_overflows_in_the_first_step_is_reported(net, data):
    params = jax.tree.map(lambda a: np.float32(5) * a, random_params(net, dtype=np.float32))
    with pytest.raises(jaxnet.DivergedError, match=r"updated, is .* at step 1; the learning rate 1e\+38 is probably"):
        jaxnet.fit(net, params, data, batches_for(data, 20), learning_rate=1e38)


@pytest.mark.slow
def test_an_update_that_overflows_is_named_by_its_parameter(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 50)
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, params, data, batches, eval_every=20, optimizer=lambda rate: optax.chain(
            optax.sgd(rate), optax.scale_by_schedule(lambda step: jnp.where(step == 30, jnp.inf, 1.0)),
        ), learning_rate=0.1)  # fmt: skip
    assert caught.value.step == 31
    assert caught.value.what.startswith("Affine1.W, updated, is ")
    assert caught.value.state.step == 30
    assert caught.value.history.loss.shape == (30,)
    assert caught.value.history.eval_step.tolist() == [0, 20]


@pytest.mark.slow
def test_initial_parameters_that_overflow_are_reported_as_the_cause(net, data):
    params = jax.tree.map(lambda a: np.float32(1e38) * a, random_params(net, dtype=np.float32))
    with pytest.raises(
        jaxnet.DivergedError, match="at step 1; the run started that way: lower the initial standard deviation"
    ):
        jaxnet.fit(net, params, data, batches_for(data, 20))


BAD = {
    "nan pixel": (lambda d: d.x_train.__setitem__((3, 4), np.nan), {}, r"data\.x_train\[3, 4\]: nan"),
    "infinite pixel": (lambda d: d.x_test.__setitem__((0, 1), np.inf), {}, r"data\.x_test\[0, 1\]: inf"),
    "label too large": (lambda d: d.t_train.__setitem__(0, 5), {}, r"data\.t_train: runs from \d to 5.*0 to 4"),
    "label below zero": (lambda d: d.t_test.__setitem__(0, -1), {}, r"data\.t_test: runs from -1"),
    "no rate": (None, {"learning_rate": 0}, "learning_rate: 0, expected a finite number > 0"),
    "negative rate": (None, {"learning_rate": -0.1}, "learning_rate: -0.1"),
    "nan rate": (None, {"learning_rate": float("nan")}, "learning_rate: nan"),
    "no interval": (None, {"eval_every": 0}, "eval_every: 0, expected a whole number of at least 1"),
    "half an interval": (None, {"eval_every": 2.5}, "eval_every: 2.5"),
    "true as a rate": (None, {"learning_rate": True}, "learning_rate: True, expected a finite number > 0"),
    "a rate that is 0 in float32": (None, {"learning_rate": 1e-60}, "1e-60, expected a number that float32 can hold"),
    "two rates": (None, {"learning_rate": np.ones(2)}, r"learning_rate: float64 of shape \(2,\), expected a finite"),
    "true as a decay": (None, {"weight_decay": True}, "weight_decay: True, expected a finite number >= 0"),
    "no key": (None, {"key": 5}, r"key: 5, expected a key, such as jax\.random\.key\(0\)"),
    "no progress": (None, {"resume": 5}, "resume: 5, expected the progress of an earlier run"),
    "no criterion": (None, {"criterion": "mse"}, r"criterion: 'mse', expected a function of \(y, t\)"),
    "many losses": (None, {"criterion": lambda y, _t: y}, r"criterion: returns an array of shape \(10, 5\), expected"),
    "unknown optimizer": (None, {"optimizer": "sdg"}, "optimizer: 'sdg', expected one of sgd, momentum"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(net, data, name):
    spoil, arguments, message = BAD[name]
    if spoil:
        spoil(data)
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches_for(data, 10), **arguments)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (lambda d: {"x_train": d.x_train[:, :-1]}, r"x: shape \(1, 11\), expected \(N, 12\)"),
        (lambda d: {"x_train": d.x_train[:0], "t_train": d.t_train[:0]}, r"data\.x_train: .* N >= 1"),
        (lambda d: {"x_train": d.x_train[0]}, r"data\.x_train: .*shape \(12,\)"),
        (
            lambda d: {"x_train": d.x_train.astype(int)},
            "data.x_train: the network does not accept it: x: int32",
        ),
        (lambda d: {"t_train": d.t_train[:-1]}, r"data\.t_train: int32 of shape \(59,\)"),
        (lambda d: {"t_train": d.t_train.astype(float)}, r"data\.t_train: float64"),
        (lambda d: {"t_test": np.full((30, 5), 0.2)}, r"data\.t_test\[0\]: .*single 1 among zeros"),
    ],
)
def test_inconsistent_data_is_refused_by_name(net, data, replacement, message):
    data = data._replace(**replacement(data))
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int))


def test_data_that_is_not_a_dataset_is_refused(net, data):
    params, batches = random_params(net, dtype=np.float32), np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"data: tuple, expected a Dataset\(x_train, t_train, x_test, t_test\)"):
        jaxnet.fit(net, params, tuple(data), batches)
    with pytest.raises(ValueError, match=r"data\.t_test: list, expected an array"):
        jaxnet.fit(net, params, data._replace(t_test=data.t_test.tolist()), batches)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: None, r"params: Affine1\.W is missing, expected \(12, \d+\)"),
        (lambda params: params | {"Affine1": {"W": params["Affine1"]["W"]}}, r"params: Affine1\.b is missing"),
        (lambda params: params | {"Affine3": params["Affine1"]}, r"params: Affine3\.W is .*, expected no such leaf"),
        (
            lambda params: jax.tree.map(lambda a: a.astype(int), params),
            r"params: Affine1\.W is int\d+, expected floats",
        ),
        (
            lambda params: params | {"Affine2": params["Affine2"] | {"b": np.zeros(5, int)}},
            r"params: Affine2\.b is int\d+, expected floats",
        ),
        (lambda params: params | {"Affine1": params["Affine2"]}, r"params: Affine1\.W is .*, expected \(12, "),
    ],
)
def test_parameters_of_another_network_are_refused_by_name(net, data, change, message):
    params = random_params(net, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, change(params), data, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="net: dict, expected a network"):
        jaxnet.fit(params, net, data, np.zeros((2, 3), int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_train": np.full((60, 12), 1e300)},
            r"data\.x_train\[0, 0\]: 1e\+300, expected numbers that are finite in float32",
        ),
        (
            {"x_test": np.full((30, 12), 2**40)},
            r"data\.x_test: runs from 1099511627776 .*, expected 32-bit integers",
        ),
    ],
)
def test_samples_out_of_range_are_refused(net, data, change, message):
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data._replace(**change), np.zeros((2, 3), int))


def test_data_of_another_byte_order_and_a_rate_of_another_library_change_nothing(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 10)
    expected = jaxnet.fit(net, params, data, batches, learning_rate=0.125)
    swapped = jaxnet.Dataset(*(array.astype(array.dtype.newbyteorder(">")) for array in data))
    for rate in (jnp.float32(0.125), np.array(0.125), np.float16(0.125)):
        run = jaxnet.fit(net, params, swapped, batches, learning_rate=rate)
        np.testing.assert_array_equal(run.history.loss, expected.history.loss)


def test_ids_that_the_network_does_not_know_are_refused_before_training(rng):
    net, ids = jaxnet.transformer(7, 6, 8, 2, 1), rng.integers(0, 7, (20, 6))
    data = jaxnet.Dataset(np.where(ids == 3, 7, ids), ids, ids, ids)
    with pytest.raises(ValueError, match=r"data\.x_train: runs from 0 to 7, expected ids from 0 to 6"):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int))


def test_an_unknown_optimizer_is_refused(net, data):
    with pytest.raises(ValueError, match=r"optimizer: 3, expected one of sgd, .* or a function from a learning rate"):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int), optimizer=3)


def test_an_unknown_argument_is_refused_by_name(net, data):
    params = random_params(net, dtype=np.float32)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        jaxnet.fit(net, params, data, np.zeros((2, 3), int), lr=0.5)


@pytest.mark.slow
def test_resume_refuses_the_progress_of_another_run(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 20)
    run = jaxnet.fit(net, params, data, batches)
    with pytest.raises(ValueError, match="resume: the progress of another network or optimizer"):
        jaxnet.fit(net, params, data, batches, optimizer="adam", resume=run)
    narrower = jaxnet.two_layer_net(12, 3, 5)
    with pytest.raises(ValueError, match="resume: the progress of another network or optimizer"):
        jaxnet.fit(narrower, random_params(narrower, dtype=np.float32), data, batches, resume=run)
    with pytest.raises(ValueError, match="resume: a run after 20 steps, expected at most the 10 of batches"):
        jaxnet.fit(net, params, data, batches[:10], resume=run)
    shorter = run._replace(history=run.history._replace(loss=run.history.loss[:19]))
    with pytest.raises(ValueError, match="resume: a history of 19 losses, expected one for each of 20 steps"):
        jaxnet.fit(net, params, data, batches, resume=shorter)
    before_the_start = run._replace(state=run.state._replace(step=jnp.array(-5, jnp.int32)))
    with pytest.raises(ValueError, match="resume: a history of 20 losses, expected one for each of -5 steps"):
        jaxnet.fit(net, params, data, batches, resume=before_the_start)
    unequal = run._replace(history=run.history._replace(train_accuracy=run.history.train_accuracy[1:]))
    with pytest.raises(ValueError, match="resume: eval_step and the accuracies have 2, 1, 2 entries, expected as many"):
        jaxnet.fit(net, params, data, batches, resume=unequal)


@pytest.mark.slow
def test_a_resumed_run_reports_only_its_new_evaluations(net, data):
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 40).tolist()  # a list is accepted too
    steps = []
    first = jaxnet.fit(net, params, data, batches[:20], eval_every=10)
    jaxnet.fit(
        net, params, data, batches, eval_every=10, resume=first, on_evaluation=lambda step, *_: steps.append(step)
    )
    assert steps == [30, 40]


@pytest.mark.parametrize("t", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused_by_the_loss(t):
    """Their one-hot rows would be zero, and so would the loss."""
    with pytest.raises(ValueError, match="t: runs from"):
        jaxnet.softmax_cross_entropy(jnp.ones((2, 3)), jnp.asarray(t))


def test_row_numbers_of_more_than_32_bits_are_refused():
    with pytest.raises(ValueError, match="samples: 1099511627776, expected at most 2,147,483,647"):
        jaxnet.draw_batches(jax.random.key(0), np.int64(2**40), 3, 2)
    with pytest.raises(ValueError, match="key: 5, expected a key"):
        jaxnet.draw_batches(5, 10, 3, 2)


def test_more_batches_than_can_be_drawn_are_refused():
    with pytest.raises(ValueError, match="steps, batch_size: 1000, 100000000, expected fewer than 2,147,483,648"):
        jaxnet.draw_batches(jax.random.key(0), 10, 10**8, 1000)


@pytest.mark.parametrize("batches", [np.zeros((0, 3), int), np.zeros(3, int), np.full((2, 3), 60), np.ones((2, 3))])
def test_batches_of_a_wrong_shape_or_range_are_refused(net, data, batches):
    with pytest.raises(ValueError, match="batches: "):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches)


@pytest.mark.parametrize("counts", [(0, 1, 1), (10, 0, 1), (10, 1, -1), (10, 1.5, 1)])
def test_counts_below_1_are_refused_when_drawing_batches(counts):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        jaxnet.draw_batches(jax.random.key(0), *counts)


@pytest.mark.slow
def test_a_training_step_of_sgd_is_the_gradient_step(net, data, x64):
    params = random_params(net)
    x, t = jnp.asarray(data.x_train[:4], jnp.float64), jnp.asarray(data.t_train[:4])
    optimizer = optax.sgd(0.5)
    state, value = jaxnet.train_step(
        net, optimizer, jaxnet.init_train_state(net, optimizer, params, jax.random.key(0)), x, t
    )
    hand = hand_built(net, params)
    loss, grads = hand.value_and_gradient(np.asarray(x), np.asarray(t))
    np.testing.assert_allclose(value, loss, rtol=1e-14)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - 0.5 * g, atol=1e-14), state.params, params, grads
    )
    assert state.step == 1


def deep_net(dropped):
    """Returns a network with BatchNorm and Dropout, one of them inside a residual connection."""
    layers = {
        "Affine1": jaxnet.nn.affine(12, 8),
        "BatchNorm1": jaxnet.nn.batch_norm(8),
        "Relu1": jaxnet.nn.relu(),
        "Residual1": jaxnet.nn.residual({"Affine2": jaxnet.nn.affine(8, 8), "Dropout1": jaxnet.nn.dropout(0.3)}),
        "Dropout2": jaxnet.nn.dropout(0.2),
        "Affine3": jaxnet.nn.affine(8, 5),
    }
    return jaxnet.nn.sequential(layers if dropped else {n: layers[n] for n in layers if n[0] in "AB"})


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_200_steps_with_batch_norm_and_dropout_are_one_trajectory(data, x64, weight_decay):
    net, key = deep_net(True), jax.random.key(11)
    params, batches = random_params(net), batches_for(data, 200)
    data = data._replace(x_train=data.x_train.astype(float), x_test=data.x_test.astype(float))
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=weight_decay)
    noise = noise_of(net, key, data.x_train, batches)
    by_hand = numpy_ref.train(network, *data, np.asarray(batches), 0.1, eval_every=50, noise=noise)
    run, compiled = jaxnet.fit(
        net, params, data, batches, learning_rate=0.1, eval_every=50, key=key, weight_decay=weight_decay
    )  # fmt: skip
    assert by_hand.loss[-20:].mean() < 0.7 * by_hand.loss[:20].mean()
    np.testing.assert_allclose(compiled.loss, by_hand.loss, rtol=0, atol=1e-9)
    np.testing.assert_allclose(compiled.test_accuracy, by_hand.test_accuracy, rtol=0, atol=1e-12)
    assert largest_difference(run.params, network.params) < 1e-9
    assert largest_difference(run.net_state, network.state) < 1e-9
    assert set(network.state["BatchNorm1"]) == {"mean", "var"}
    resumed = numpy_ref.build_layers(net.description, run.params, run.net_state)
    logits = net.infer(run.params, run.net_state, jnp.asarray(data.x_test))
    np.testing.assert_allclose(numpy_ref.Network(resumed).predict(data.x_test), logits, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_dropout_depends_on_the_key_alone(data):
    net = deep_net(True)
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 30)
    runs = [jaxnet.fit(net, params, data, batches, key=jax.random.key(k))[1].loss for k in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()


@pytest.mark.parametrize("stopped_at", [slow(0), slow(1), 2, slow(3)])
def test_a_run_is_resumed_bit_for_bit(data, stopped_at):
    """Resumes a run of 35 steps with momentum, running statistics and Dropout from each of its evaluations."""
    net = deep_net(True)
    params, batches = random_params(net, dtype=np.float32), batches_for(data, 35)
    settings = {"optimizer": "momentum", "learning_rate": 0.01, "eval_every": 10}
    whole = jaxnet.fit(net, params, data, batches, key=jax.random.key(3), **settings)
    left = list(jaxnet.iter_fit(net, params, data, batches, key=jax.random.key(3), **settings))[stopped_at]
    assert left.state.step == 10 * stopped_at
    other = random_params(net, 9, np.float32)  # ignored in favour of those in `resume`, as is the key
    resumed = jaxnet.fit(net, other, data, batches, key=jax.random.key(4), resume=left, **settings)
    same = jax.tree.map(np.array_equal, *(run._replace(state=run.state._replace(key=0)) for run in (whole, resumed)))
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
@pytest.mark.parametrize("dropped", [True, False])
def test_random_bits_are_drawn_only_for_layers_that_need_them(data, dropped):
    """Looks for the shifts and xors of Threefry, which occur nowhere else in a training step."""
    net = deep_net(dropped)
    params = random_params(net, dtype=np.float32)
    first = jaxnet.init_train_state(net, optax.sgd(0.1), params, jax.random.key(0))
    lowered = compiled_steps.compiled_in(Form(), compiled_steps.run_steps, "config", "max_steps").lower(
        compiled_steps.StepConfig(net, optax.sgd, jaxnet.softmax_cross_entropy),
        compiled_steps.Hyperparameters(jnp.array(0.1), None, None), first,
        device_data.TrainingData(jnp.asarray(data.x_train), jnp.asarray(data.t_train), batches_for(data, 10)),
        5, max_steps=5,
    )  # fmt: skip
    program = lowered.compile().as_text()
    assert (" xor(" in program) == dropped
    assert ("shift-left(" in program) == dropped


@pytest.mark.slow
def test_a_network_with_dropout_needs_a_key(data):
    net = deep_net(True)
    with pytest.raises(ValueError, match="key: None, but the network draws random numbers"):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches_for(data, 3))
    with pytest.raises(ValueError, match="noise: no mask"):
        jaxnet.loss(net, random_params(net, dtype=np.float32), data.x_train, data.t_train)
