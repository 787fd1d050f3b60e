"""Tests that results print in a line or two, and stay the trees that JAX transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet
from jaxnet.data import Dataset
from jaxnet.train.history import History, Progress
from jaxnet.train.run_folder import SavedParameters
from jaxnet.train.step import TrainState
from jaxnet.train.sweep import Sweep

NET = jaxnet.two_layer_net(300, 50, 10)
PARAMS = {"Affine1": {"W": np.ones((300, 50)), "b": np.ones(50)}, "Affine2": {"W": np.ones((50, 10)), "b": np.ones(10)}}
STATE = TrainState(PARAMS, {}, ({"mu": PARAMS}, jnp.int32(3)), jax.random.key(0), jnp.int32(20))
HISTORY = History(np.linspace(2, 0.25, 2000), np.array([0, 2000]), np.array([0.1, 0.875]), np.array([0.1, 0.75]))
EMPTY = History(*[np.zeros(0)] * 4)
DATA = Dataset(np.zeros((9, 300), np.float32), np.zeros(9, np.int32), np.zeros((2, 300)), np.zeros(2, np.int32))
STATE_TEXT = (
    "TrainState(params=4 arrays of 15,560 numbers, net_state=no arrays, "
    "opt_state=5 arrays of 15,561 numbers, key=key<fry>[], step=20)"
)
HISTORY_TEXT = "History(2,000 steps, 2 evaluations, loss 0.2500, train accuracy 87.50%, test accuracy 75.00%)"
TEXTS = {
    "state": (STATE, STATE_TEXT),
    "history": (HISTORY, HISTORY_TEXT),
    "history without steps": (EMPTY, "History(0 steps, 0 evaluations)"),
    "progress": (Progress(STATE, HISTORY), f"Progress(state={STATE_TEXT}, history={HISTORY_TEXT})"),
    "data": (
        DATA, "Dataset(x_train=float32[9, 300], t_train=int32[9], x_test=float64[2, 300], t_test=int32[2])",
    ),
    "sweep": (
        Sweep(*[np.zeros(2)] * 3, np.zeros((2, 2, 2, 9)), *[np.zeros((2, 2, 2))] * 3),
        "Sweep(learning_rate=float64[2], init_std=float64[2], seed=float64[2], loss=float64[2, 2, 2, 9], "
        "train_accuracy=float64[2, 2, 2], test_accuracy=float64[2, 2, 2], diverged=float64[2, 2, 2])",
    ),
    "saved parameters": (
        SavedParameters({"b": np.zeros(2)}, {}, jax.random.key(0), 7),
        "SavedParameters(params=1 array of 2 numbers, net_state=no arrays, key=key<fry>[], step=7)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_result_prints_what_it_has_and_no_arrays(name):
    value, expected = TEXTS[name]
    assert repr(value) == str(value) == expected


def test_a_state_and_a_history_print_while_jax_traces_and_come_back_unchanged():
    texts = []

    @jax.jit
    def identity(progress):
        texts.append(repr(progress))
        return progress

    returned = identity(Progress(STATE, HISTORY))
    assert "opt_state=5 arrays of 15,561 numbers" in texts[0]
    assert "history=History(loss=float32[2000], eval_step=int32[2]" in texts[0]
    assert jax.tree.structure(returned) == jax.tree.structure(Progress(STATE, HISTORY))
    assert repr(returned.state) == STATE_TEXT


def test_a_state_whose_arrays_were_given_away_still_prints():
    state = STATE._replace(step=jnp.int32(20))
    state.step.delete()
    assert repr(state) == STATE_TEXT.replace("step=20", "step=deleted")
