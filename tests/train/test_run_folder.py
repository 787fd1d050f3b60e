"""The folder of a run is written completely or not at all."""

import csv
import json
import os

import jax
import numpy as np
import pytest
from conftest import a_dataset, random_params

import jaxnet
from jaxnet import History
from jaxnet.nn.summary import param_shapes
from jaxnet.train import run_folder

HISTORY = History(
    np.array([2.5, 2.0, 1.5]), np.array([0, 2, 3]), np.array([0.1, 0.5, 0.7]), np.array([0.125, 0.5, 0.625])
)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "run"
    with run_folder.new_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.name for file in path.parent.iterdir()] == ["run"]


def test_a_block_that_raises_leaves_nothing(tmp_path):
    def fails():
        with run_folder.new_folder(tmp_path / "run") as folder:
            (folder / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    with run_folder.new_folder(tmp_path / "run"):  # empty: nothing to lose
        pass
    (tmp_path / "run" / "a").write_text("a")
    with pytest.raises(ValueError, match="exists already"), run_folder.new_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "a").read_text() == "a"


def test_a_folder_that_cannot_be_made_is_refused_before_the_block(tmp_path):
    (tmp_path / "file").write_text("a")
    with (
        pytest.raises(ValueError, match=r"output: .*cannot be written"),
        run_folder.new_folder(tmp_path / "file" / "run"),
    ):
        pytest.fail("the block ran")


def test_runs_of_the_same_second_do_not_share_a_folder(tmp_path, monkeypatch):
    class Frozen(run_folder.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "datetime", Frozen)
    with run_folder.reserved("digits") as first, run_folder.reserved("digits") as second:
        assert (str(first), str(second)) == ("runs/digits-20260102-030405", "runs/digits-20260102-030405-2")
        run_folder.write_options(first, {})
        with pytest.raises(ValueError, match="exists already"):
            run_folder.write_options(first, {})
    assert first.is_dir()
    assert not second.exists()  # nothing was written


def test_a_folder_that_another_run_took_meanwhile_is_not_overwritten(tmp_path):
    def took_too_long():
        with run_folder.new_folder(tmp_path / "run") as folder:
            (folder / "a").write_text("mine")
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "a").write_text("theirs")

    with pytest.raises(OSError, match="not empty"):
        took_too_long()
    assert (tmp_path / "run" / "a").read_text() == "theirs"


def test_options_that_cannot_be_written_leave_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "options_text", full)
    with pytest.raises(ValueError, match=r"output: .*run cannot be written \(No space left on device\); make room"):
        run_folder.write_options(tmp_path / "run", {})
    assert list(tmp_path.iterdir()) == []


def test_results_replace_incomplete_ones_and_recreate_a_removed_folder(tmp_path):
    incomplete = tmp_path / "run" / ".results-killed"
    incomplete.mkdir(parents=True)
    with run_folder.results(tmp_path / "run") as folder:
        (folder / "summary.json").write_text("{}")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["summary.json"]
    with run_folder.results(tmp_path / "removed") as folder:
        (folder / "summary.json").write_text("{}")
    assert [path.name for path in (tmp_path / "removed").iterdir()] == ["summary.json"]


def test_the_history_has_a_row_for_each_step(tmp_path):
    run_folder.write_history(tmp_path / "history.csv", HISTORY)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["step", "loss", "train_accuracy", "test_accuracy"],
        ["0", "", "0.1", "0.125"],
        ["1", "2.5", "", ""],
        ["2", "2.0", "0.5", "0.5"],
        ["3", "1.5", "0.7", "0.625"],
    ]


def trained_state(net):
    """Returns a state after 7 steps: the running statistics are no longer the initial ones."""
    data, batches = a_dataset(np.random.default_rng(0)), jaxnet.draw_batches(jax.random.key(0), 60, 10, 7)
    return jaxnet.fit(net, random_params(net, dtype=np.float32), data, batches, key=jax.random.key(5))[0]


NET = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.1)


@pytest.mark.slow
def test_parameters_are_read_by_name_with_statistics_key_and_step(tmp_path):
    state = trained_state(NET)
    run_folder.write_parameters(tmp_path / "parameters.npz", state, vocabulary="añb")
    with np.load(tmp_path / "parameters.npz", allow_pickle=False) as read:
        assert set(read) == {
            "Affine1.W", "Affine1.b", "BatchNorm1.gamma", "BatchNorm1.beta", "BatchNorm1.mean", "BatchNorm1.var",
            "Affine2.W", "Affine2.b", "key", "step", "vocabulary",
        }  # fmt: skip
        np.testing.assert_array_equal(read["Affine1.W"], state.params["Affine1"]["W"])
        assert read["Affine1.W"].dtype == np.float32
        assert str(read["vocabulary"]) == "añb"
    saved = run_folder.read_parameters(tmp_path / "parameters.npz", NET)
    for ours, theirs in ((saved.params, state.params), (saved.net_state, state.net_state)):
        jax.tree.map(np.testing.assert_array_equal, ours, jax.device_get(theirs))
    assert saved.step == 7
    assert saved.key == jax.random.key(5)
    assert not (saved.net_state["BatchNorm1"]["mean"] == NET.state["BatchNorm1"]["mean"]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (jaxnet.multi_layer_net(12, [9], 5, batch_norm=True), r"Affine1.W is \(12, 8\), expected shape \(12, 9\)"),
        (jaxnet.multi_layer_net(12, [8, 5], 5, batch_norm=True), "BatchNorm2.gamma is missing|Affine3.W is missing"),
    ],
)
def test_parameters_of_another_network_are_refused(tmp_path, other, message):
    run_folder.write_parameters(tmp_path / "parameters.npz", trained_state(NET))
    with pytest.raises(ValueError, match=message):
        run_folder.read_parameters(tmp_path / "parameters.npz", other)


def test_options_are_read_as_they_were_written_and_not_with_one_other_digit(tmp_path):
    options = {"seed": 10, "hidden": [50], "learning_rate": 0.5, "network": "two-layer"}
    run_folder.write_options(tmp_path / "run", options)
    path = tmp_path / "run" / "options.json"
    assert run_folder.read_options(tmp_path / "run") == options
    written = path.read_text()
    for change in (("10", "11"), ("50", "51"), ("0.5", "0.4"), ('"seed"', '"seek"')):
        assert written.count(change[0]) >= 1
        path.write_text(written.replace(*change, 1))
        with pytest.raises(ValueError, match=r"options.json is damaged: its digest is another; start another run"):
            run_folder.read_options(tmp_path / "run")


DAMAGED = {
    "Affine1.W is <U3, expected finite floats": {"Affine1.W": np.full((12, 8), "1.0")},
    "Affine1.W is complex128, expected finite floats": {"Affine1.W": np.ones((12, 8), complex)},
    "Affine1.W is bool, expected finite floats": {"Affine1.W": np.ones((12, 8), bool)},
    "Affine1.W is float32, some not finite, expected": {"Affine1.W": np.full((12, 8), np.nan, np.float32)},
    "BatchNorm1.var is float64, some not finite": {"BatchNorm1.var": np.full(8, np.inf)},
    "step is -3, expected a whole number of at least 0": {"step": np.array(-3)},
    "step is 1.5, expected a whole number": {"step": np.array(1.5)},
    r"step is \[1, 2\], expected a whole number": {"step": np.array([1, 2])},
    r"key: uint32 of shape \(3,\), expected a key": {"key": np.zeros(3, np.uint32)},
    r"key: float64 of shape \(2,\), expected a key": {"key": np.zeros(2)},
}


@pytest.mark.parametrize("message", DAMAGED)
def test_parameters_that_no_run_wrote_are_refused_by_name(tmp_path, message):
    leaves = {name: np.zeros(shape, np.float32) for name, shape in param_shapes(NET).items()}
    statistics = {"BatchNorm1.mean": np.zeros(8, np.float32), "BatchNorm1.var": np.ones(8, np.float32)}
    good = leaves | statistics | {"key": np.zeros(2, np.uint32), "step": np.array(7)}
    np.savez(tmp_path / "parameters.npz", **good)
    assert run_folder.read_parameters(tmp_path / "parameters.npz", NET).step == 7
    np.savez(tmp_path / "parameters.npz", **good | DAMAGED[message])
    with pytest.raises(ValueError, match=f"parameters.npz: {message}"):
        run_folder.read_parameters(tmp_path / "parameters.npz", NET)


def test_parameters_of_another_byte_order_are_converted(tmp_path):
    state = jaxnet.init_train_state(NET, "sgd", random_params(NET, dtype=np.float32), jax.random.key(5))
    run_folder.write_parameters(tmp_path / "parameters.npz", state)
    leaves = dict(np.load(tmp_path / "parameters.npz"))
    leaves["Affine1.W"] = leaves["Affine1.W"].astype(">f4")
    np.savez(tmp_path / "parameters.npz", **leaves)
    saved = run_folder.read_parameters(tmp_path / "parameters.npz", NET)
    assert saved.params["Affine1"]["W"].dtype.isnative
    np.testing.assert_array_equal(saved.params["Affine1"]["W"], state.params["Affine1"]["W"])


def test_the_summary_is_json(tmp_path):
    run_folder.write_summary(tmp_path / "summary.json", {"steps": 3, "diverged": None})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"steps": 3, "diverged": None}


@pytest.mark.parametrize(
    ("entry", "value"),
    [("steps", "9"), ("steps", -1), ("train_accuracy", float("nan")), ("test_accuracy", 10**400), ("dataset", []),
     ("options", []), ("seconds", float("inf")), ("diverged", {})],
)  # fmt: skip
def test_an_entry_of_a_summary_that_no_run_wrote_is_refused_by_name(tmp_path, entry, value):
    run_folder.write_summary(tmp_path / "summary.json", {"dataset": "digits", entry: value})
    with pytest.raises(ValueError, match=f"summary.json: {entry} is .*, expected .*; train again"):
        run_folder.read_summary(tmp_path / "summary.json")


def test_a_history_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "history.csv")
    with pytest.raises(ValueError, match="not a regular file"):
        run_folder.read_history(tmp_path / "history.csv")
