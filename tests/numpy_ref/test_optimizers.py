"""Compares the NumPy optimizers with those of optax, step by step, and with the book's where they differ."""

import jax
import numpy as np
import optax
import pytest
from conftest import a_dataset, hand_built, random_params, sampled

import jaxnet
import numpy_ref
from numpy_ref import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop, clip_by_global_norm

STEPS = 200
# Each of the 200 steps has a rounding error of a few eps = 2e-16, which an adaptive rule divides by the size of a
# gradient. The measured difference is 4e-15.
TOLERANCE = 1e-10


@pytest.fixture
def data(rng, x64):
    data = a_dataset(rng)
    return data._replace(x_train=data.x_train.astype(np.float64), x_test=data.x_test.astype(np.float64))


@pytest.fixture
def net():
    return jaxnet.two_layer_net(12, 8, 5)


@pytest.fixture
def batches():
    return np.random.default_rng(7).integers(0, 60, (STEPS, 10))


def largest_difference(tree, other):
    return max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


def global_norm(grads):
    return np.linalg.norm(np.concatenate([g.ravel() for g in jax.tree.leaves(grads)]))


def test_numpy_and_jax_have_the_same_names_and_default_rates():
    by_hand = {name: make().learning_rate for name, make in numpy_ref.OPTIMIZERS.items()}
    assert by_hand == {name: optimizer.learning_rate for name, optimizer in jaxnet.OPTIMIZERS.items()}


PAIRS = {
    **{name: (make, optimizer.make(optimizer.learning_rate)) for (name, optimizer), make in zip(
        jaxnet.OPTIMIZERS.items(), numpy_ref.OPTIMIZERS.values(), strict=True)},
    "sgd, 0.3": (lambda: SGD(0.3), optax.sgd(0.3)),
    "momentum, 0.5": (lambda: Momentum(0.02, momentum=0.5), optax.sgd(0.02, momentum=0.5)),
    "nesterov, 0.5": (lambda: Nesterov(0.02, momentum=0.5), optax.sgd(0.02, momentum=0.5, nesterov=True)),
    "adagrad, from 0": (
        lambda: AdaGrad(0.1, initial_accumulator=0, eps=1e-3), optax.adagrad(0.1, initial_accumulator_value=0, eps=1e-3)
    ),
    "rmsprop, 0.7": (lambda: RMSprop(0.01, decay_rate=0.7, eps=1e-3), optax.rmsprop(0.01, decay=0.7, eps=1e-3)),
    "adam, 0.8": (lambda: Adam(0.01, beta1=0.8, beta2=0.9, eps=1e-3), optax.adam(0.01, b1=0.8, b2=0.9, eps=1e-3)),
    "adamw, 0.1": (lambda: AdamW(0.01, weight_decay=0.1), optax.adamw(0.01, weight_decay=0.1)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "clip_norm"),
    sampled([(name, None) for name in PAIRS], every=2)
    + sampled([(name, c) for name in jaxnet.OPTIMIZERS for c in (0.5, 1e3)], every=8),
)
def test_200_steps_equal_those_of_optax(name, clip_norm, net, data, batches):
    """Trains two networks with the same analytic gradients, each with its own optimizer."""
    make, theirs = PAIRS[name]
    if clip_norm:
        theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs)
    network, optax_network = hand_built(net, random_params(net)), hand_built(net, random_params(net))
    ours, state, update = make(), theirs.init(optax_network.params), jax.jit(theirs.update)
    norms, losses = [], []
    for batch in batches:
        loss, grads = network.value_and_gradient(data.x_train[batch], data.t_train[batch])
        norms.append(global_norm(grads))
        losses.append(loss)
        ours.update(network.params, clip_by_global_norm(grads, clip_norm) if clip_norm else grads)
        updates, state = update(
            optax_network.gradient(data.x_train[batch], data.t_train[batch]), state, optax_network.params
        )
        jax.tree.map(lambda W, dW: np.add(W, dW, out=W), optax_network.params, jax.device_get(updates))
    assert largest_difference(network.params, optax_network.params) < TOLERANCE
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])  # training makes progress
    if clip_norm:
        assert (max(norms) > clip_norm) == (clip_norm == 0.5)


@pytest.mark.parametrize(
    ("name", "clip_norm"),
    sampled([(name, None) for name in jaxnet.OPTIMIZERS], every=3)
    + sampled([("adam", 0.5), ("sgd", 1e3), ("sgd", 0.5)], every=3),
)
def test_numpy_and_jax_loops_have_one_trajectory(name, clip_norm, net, data, batches):
    params = random_params(net)
    network = hand_built(net, params)
    by_hand = numpy_ref.train(network, *data, batches, optimizer=name, clip_norm=clip_norm)
    state, compiled = jaxnet.fit(net, params, data, batches, optimizer=name, clip_norm=clip_norm)
    assert largest_difference(network.params, jax.device_get(state.params)) < TOLERANCE
    np.testing.assert_allclose(compiled.loss, by_hand.loss, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(compiled.test_accuracy, by_hand.test_accuracy, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_both_loops_use_the_given_learning_rate(net, data, batches):
    params = random_params(net)
    network = hand_built(net, params)
    numpy_ref.train(network, *data, batches, 0.003, optimizer="adam")
    state, _ = jaxnet.fit(net, params, data, batches, learning_rate=0.003, optimizer="adam")
    at_default_rate, _ = jaxnet.fit(net, params, data, batches, optimizer="adam")
    assert largest_difference(network.params, jax.device_get(state.params)) < TOLERANCE
    assert largest_difference(network.params, jax.device_get(at_default_rate.params)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.5, 1e3])
def test_clipping_scales_the_whole_gradient_or_returns_it_unchanged(clip_norm, net, data):
    grads = hand_built(net, random_params(net)).gradient(data.x_train, data.t_train)
    norm = global_norm(grads)
    before = jax.tree.map(np.copy, grads)
    clipped = clip_by_global_norm(grads, clip_norm)
    theirs, _ = optax.clip_by_global_norm(clip_norm).update(grads, optax.EmptyState())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), clipped, jax.device_get(theirs))
    jax.tree.map(np.testing.assert_array_equal, grads, before)
    if norm < clip_norm:
        jax.tree.map(np.testing.assert_array_equal, clipped, grads)
    else:
        assert global_norm(clipped) == pytest.approx(clip_norm, rel=1e-14)
        ratios = np.concatenate([(a / b)[b != 0] for a, b in zip(*map(jax.tree.leaves, (clipped, grads)), strict=True)])
        np.testing.assert_allclose(ratios, clip_norm / norm, rtol=1e-14)


def test_a_gradient_of_zero_is_clipped_to_zero():
    assert clip_by_global_norm({"Affine1": {"W": np.zeros(2)}}, 1.0)["Affine1"]["W"].tolist() == [0, 0]


# The book's rules (section 6.1 and common/optimizer.py in its repository), from W = 0 along given gradients. Their
# keyword arguments are the quantities in which they differ from optax.


def book_momentum(gradients, lr):
    W = v = 0
    for g in gradients:
        v = 0.9 * v - lr * g
        W = W + v
        yield W


def book_nesterov(gradients, lr, u_first=True):
    W = u = 0
    for g in gradients:
        old, u = u, 0.9 * u - lr * g
        W = W + 0.9 * 0.9 * (u if u_first else old) - (1 + 0.9) * lr * g
        yield W


def book_adagrad(gradients, lr, h=0.0, eps=1e-7):
    W = 0
    for g in gradients:
        h = h + g * g
        W = W - lr * g / (np.sqrt(h) + eps)
        yield W


def book_rmsprop(gradients, lr, decay_rate=0.99, eps=1e-7):
    W = h = 0
    for g in gradients:
        h = decay_rate * h + (1 - decay_rate) * g * g
        W = W - lr * g / (np.sqrt(h) + eps)
        yield W


def book_adam(gradients, lr, eps=lambda t: 1e-7):
    W = m = v = 0
    for t, g in enumerate(gradients, start=1):
        lr_t = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        m = m + (1 - 0.9) * (g - m)
        v = v + (1 - 0.999) * (g**2 - v)
        W = W - lr_t * m / (np.sqrt(v) + eps(t))
        yield W


def walk(optimizer, gradients, start=0.0):
    params = {"Affine1": {"W": np.full_like(gradients[0], start)}}
    for g in gradients:
        optimizer.update(params, {"Affine1": {"W": g}})
        yield params["Affine1"]["W"].copy()


@pytest.mark.parametrize(
    ("ours", "book", "dW", "our_step", "book_step"),
    [
        (Momentum, book_momentum, 0.01, 0.01, 0.01),
        (Nesterov, book_nesterov, 1.0, 1.9, 2.71),
        (AdaGrad, book_adagrad, 0.01, 0.0316, 1.0),
        (AdaGrad, book_adagrad, 10.0, 0.9995, 1.0),
        (RMSprop, book_rmsprop, 1.0, 3.16, 10.0),
        (RMSprop, book_rmsprop, 1e-5, 0.1, 9.09),
        (Adam, book_adam, 1.0, 1.0, 1.0),
        (Adam, book_adam, 1e-6, 0.990, 0.240),
    ],
)
def test_the_first_step_has_the_documented_size_in_numpy_ref_and_in_the_book(ours, book, dW, our_step, book_step):
    """Measures the first step in units of the learning rate, for one element with the gradient dW."""
    (W,) = walk(ours(learning_rate=0.5), [np.array([dW])])
    (book_W,) = book([dW], 0.5)
    assert -W[0] / 0.5 == pytest.approx(our_step, rel=5e-3)
    assert -book_W / 0.5 == pytest.approx(book_step, rel=5e-3)


TINY = 1e-300


@pytest.mark.parametrize(
    ("ours", "book", "optax_options"),
    [
        (lambda: Momentum(0.5), book_momentum, {}),
        (lambda: Nesterov(0.5), book_nesterov, {"u_first": False}),
        (lambda: AdaGrad(0.5, eps=TINY), book_adagrad, {"h": 0.1, "eps": 0}),
        (lambda: RMSprop(0.5, eps=TINY), book_rmsprop, {"decay_rate": 0.9, "eps": 0}),
        (lambda: Adam(0.5), book_adam, {"eps": lambda t: 1e-8 * np.sqrt(1 - 0.999**t)}),
    ],
    ids=["momentum", "nesterov", "adagrad", "rmsprop", "adam"],
)
def test_the_book_differs_from_optax_in_the_documented_options_only(ours, book, optax_options, rng):
    """Compares 200 steps along gradients of sizes 1e-8 to 1, with the book's own options and with those of optax."""
    gradients = rng.standard_normal((STEPS, 9)) * 10.0 ** np.arange(-8, 1)
    steps = np.array(list(walk(ours(), gradients)))
    np.testing.assert_allclose(np.array(list(book(gradients, 0.5, **optax_options))), steps, rtol=1e-10, atol=1e-18)
    if optax_options:
        assert np.abs(np.array(list(book(gradients, 0.5))) - steps).max() > 0.1


def test_a_new_rate_applies_to_the_whole_velocity_and_in_the_book_to_new_gradients_only():
    def book(rates, W=0.0, v=0.0):
        for lr in rates:
            v = 0.9 * v - lr * 1.0
            W = W + v
            yield W

    optimizer, params, ours = Momentum(), {"Affine1": {"W": np.zeros(1)}}, []
    for rate in (1.0, 0.1):
        optimizer.learning_rate = rate
        optimizer.update(params, {"Affine1": {"W": np.ones(1)}})
        ours.append(params["Affine1"]["W"][0])
    first, second = book((1.0, 0.1))
    assert ours == pytest.approx([-1.0, -1.19])
    assert [first, second] == pytest.approx([-1.0, -2.0])
    theirs = optax.inject_hyperparams(optax.sgd)(1.0, momentum=0.9)
    W, state = np.zeros(1, np.float32), theirs.init(np.zeros(1, np.float32))
    for rate in (1.0, 0.1):
        state.hyperparams["learning_rate"] = np.float32(rate)
        updates, state = theirs.update(np.ones(1, np.float32), state, W)
        W = W + updates
    assert W[0] == pytest.approx(-1.19)


def test_decay_in_adamw_differs_from_decay_in_the_loss():
    """Measures the first step of W = 1 without a data gradient: ηλ = 1e-4 η in AdamW, but η for any λ in Adam."""
    (adamw,) = walk(AdamW(0.5), [np.zeros(1)], start=1.0)
    (adam,) = walk(Adam(0.5), [np.full(1, 1e-4 * 1.0)], start=1.0)
    assert (1 - adamw[0]) / 0.5 == pytest.approx(1e-4)
    assert (1 - adam[0]) / 0.5 == pytest.approx(1, rel=2e-4)


def test_the_books_clipping_is_off_by_less_than_a_millionth():
    grads = {"Affine1": {"W": np.array([2.0, 0.0]), "b": np.zeros(2)}}
    assert clip_by_global_norm(grads, 1.0)["Affine1"]["W"][0] == 1.0
    assert 2.0 * min(1.0 / (2.0 + 1e-6), 1) == pytest.approx(0.9999995, abs=1e-12)


@pytest.mark.parametrize("name", numpy_ref.OPTIMIZERS)
def test_parameters_are_updated_in_place_in_their_dtype_and_gradients_are_not_changed(name, rng):
    params = {"Affine1": {"W": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}}
    arrays = dict(params["Affine1"])
    grads = jax.tree.map(lambda W: rng.standard_normal(W.shape).astype(np.float32), params)
    before = jax.tree.map(np.copy, grads)
    optimizer = numpy_ref.make_optimizer(name)
    for _ in range(2):
        optimizer.update(params, clip_by_global_norm(grads, 0.1))
    for leaf, W in arrays.items():
        assert params["Affine1"][leaf] is W
        assert W.dtype == np.float32
        assert (before["Affine1"][leaf] == grads["Affine1"][leaf]).all()
        assert ((W < 1) == (grads["Affine1"][leaf] > 0)).all()  # against the gradient
    assert optimizer.steps == 2
    assert set(optimizer.state) == {"Affine1.W", "Affine1.b"}
    state_arrays = [a for arrays in optimizer.state.values() for a in arrays]
    assert all(a.dtype == np.float32 for a in state_arrays)
    assert clip_by_global_norm(grads, 0.1)["Affine1"]["W"].dtype == np.float32


def test_an_optimizer_continues_with_its_state(net, data, batches):
    whole, halves = hand_built(net, random_params(net)), hand_built(net, random_params(net))
    numpy_ref.train(whole, *data, batches, optimizer="adam")
    optimizer = Adam()
    for part in (batches[:100], batches[100:]):
        numpy_ref.train(halves, *data, part, optimizer=optimizer)
    jax.tree.map(np.testing.assert_array_equal, whole.params, halves.params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0), "learning_rate: 0, expected a finite number > 0"),
        (lambda: SGD(float("nan")), "learning_rate: nan"),
        (lambda: Adam(float("inf")), "learning_rate: inf"),
        (lambda: Momentum(momentum=1), r"momentum: 1, expected a number in \[0, 1\)"),
        (lambda: Nesterov(momentum=-0.1), "momentum: -0.1"),
        (lambda: AdaGrad(eps=0), "eps: 0, expected a finite number > 0"),
        (lambda: AdaGrad(initial_accumulator=-1), "initial_accumulator: -1, expected a finite number >= 0"),
        (lambda: RMSprop(decay_rate=1.5), "decay_rate: 1.5"),
        (lambda: Adam(beta1=1), "beta1: 1"),
        (lambda: Adam(beta2=float("nan")), "beta2: nan"),
        (lambda: AdamW(weight_decay=-1e-4), "weight_decay: -0.0001, expected a finite number >= 0"),
        (lambda: numpy_ref.make_optimizer("adam", -1), "learning_rate: -1"),
        (lambda: numpy_ref.make_optimizer("Adam"), "optimizer: 'Adam', expected one of sgd, momentum, .*, adamw"),
        (lambda: clip_by_global_norm({}, 0), "clip_norm: 0, expected a finite number > 0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("params", "grads", "message"),
    [
        ({"A": {"W": np.ones(2)}}, {"A": {"b": np.ones(2)}}, r"grads: holds A\.b, expected the leaves .* A\.W"),
        ({"A": {"W": np.ones(2)}}, {"B": {"W": np.ones(2)}}, r"grads: holds B\.W, expected the leaves .* A\.W"),
        ({"A": {"W": np.ones(2)}}, {"A": {"W": np.ones((2, 2))}}, r"grads: A\.W has shape \(2, 2\), expected \(2,\)"),
        ({"A": {"W": [1.0, 1.0]}}, {"A": {"W": np.ones(2)}}, r"params: A\.W is not a writable NumPy array"),
        ({"A": {"W": read_only(np.ones(2))}}, {"A": {"W": np.ones(2)}}, r"params: A\.W is not a writable NumPy array"),
    ],
)
def test_mismatched_trees_are_refused_by_name(params, grads, message):
    optimizer = Adam()
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, grads)
    assert optimizer.steps == 0
    assert optimizer.state == {}


def test_jax_arrays_are_refused_because_they_are_immutable(x64):
    params = {"Affine1": {"W": jax.numpy.ones(2)}}
    with pytest.raises(ValueError, match=r"params: Affine1\.W is not a writable NumPy array"):
        SGD().update(params, {"Affine1": {"W": np.ones(2)}})


@pytest.mark.parametrize("other", [{"Affine9": {"W": np.ones(2)}}, {"Affine1": {"W": np.ones(3)}}])
def test_an_optimizer_refuses_the_parameters_of_a_second_network(other):
    optimizer = Momentum()
    optimizer.update({"Affine1": {"W": np.ones(2)}}, {"Affine1": {"W": np.ones(2)}})
    with pytest.raises(ValueError, match=r"params: Affine\d\.W is new to this optimizer"):
        optimizer.update(other, other)
    assert optimizer.steps == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "sdg"}, "optimizer: 'sdg', expected one of sgd, momentum"),
        ({"optimizer": Adam(), "learning_rate": 0.1}, "learning_rate: 0.1, given beside an optimizer"),
        ({"learning_rate": 0}, "learning_rate: 0"),
        ({"clip_norm": 0}, "clip_norm: 0, expected a finite number > 0"),
        ({"clip_norm": float("nan")}, "clip_norm: nan"),
        ({"eval_every": 0}, "eval_every: 0"),
    ],
)
def test_the_numpy_loop_refuses_invalid_options_before_it_changes_parameters(arguments, message, net, data, batches):
    network = hand_built(net, random_params(net))
    with pytest.raises(ValueError, match=message):
        numpy_ref.train(network, *data, batches, **arguments)
    jax.tree.map(np.testing.assert_array_equal, network.params, random_params(net))


@pytest.mark.parametrize("clip_norm", [0, -1, float("nan"), float("inf")])
def test_the_compiled_loop_refuses_an_invalid_clip_norm_by_name(clip_norm, net, data, batches):
    with pytest.raises(ValueError, match=f"clip_norm: {clip_norm}, expected a finite number > 0"):
        jaxnet.fit(net, random_params(net), data, batches, clip_norm=clip_norm)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_200_steps_equal_those_of_pytorch(name, rng):
    """Compares with PyTorch if it is installed. Its AdaGrad and RMSprop add eps after the root, as the book does."""
    torch = pytest.importorskip("torch")
    make = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1),
        "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
        "nesterov": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, 0.001),
        "adamw": lambda p: torch.optim.AdamW(p, 0.001, weight_decay=1e-4),
    }[name]
    gradients = rng.standard_normal((STEPS, 9)) * 10.0 ** np.arange(-8, 1)
    W = torch.ones(9, dtype=torch.float64, requires_grad=True)
    theirs = make([W])
    for g in gradients:
        W.grad = torch.from_numpy(g)
        theirs.step()
    *_, last = walk(numpy_ref.make_optimizer(name), gradients, start=1.0)
    np.testing.assert_allclose(last, W.detach().numpy(), rtol=0, atol=1e-12)
