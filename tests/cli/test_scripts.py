"""Tests of the scripts as a user runs them: output, files, refused options and exit status."""

import csv
import errno
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tyro
from conftest import AS_A_USER, exhaustive, mostly_slow

import jaxnet
import numpy_ref
from jaxnet.cli import train
from jaxnet.cli.train import options as train_options
from jaxnet.cli.train import setup as train_setup
from jaxnet.data import text
from jaxnet.train import run_folder
from jaxnet.train.checkpoints import CheckpointError, Checkpoints
from jaxnet.train.matmul_layout import FORMS

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run_script(monkeypatch, script, *arguments):
    """Runs `python scripts/NAME ARGUMENTS` in this process, and returns its exit status."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as `python scripts/NAME` does
    try:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    except SystemExit as stopped:
        message = stopped.code if isinstance(stopped.code, str) else ""
        print(message, end="\n" if message else "", file=sys.stderr)  # as the interpreter does at exit
        return 1 if message else int(stopped.code or 0)
    return 0


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `python scripts/NAME ARGUMENTS` in this process, which has imported and compiled most of it already."""
    return lambda *command: Result(run_script(monkeypatch, *command), *capsys.readouterr())


@pytest.fixture(
    scope="module",
    params=[pytest.param("in this process", marks=pytest.mark.slow), exhaustive("on a new machine")],
)
def default_run(request, tmp_path_factory):
    """Returns the result of the default run and its folder."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    if request.param == "on a new machine":
        command = [sys.executable, ROOT / "scripts" / "train.py", "--output", str(output)]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, env=AS_A_USER), output
    printed, errors, handler = StringIO(), StringIO(), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(errors):
        status = run_script(patch, "train.py", "--output", str(output))
    signal.signal(signal.SIGINT, handler)
    return Result(status, printed.getvalue(), errors.getvalue()), output


@pytest.mark.slow
def test_the_default_run_reports_at_least_96_percent(default_run):
    done, output = default_run
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "summary.json").read_text())
    assert summary["test_accuracy"] >= 0.96
    assert summary["dataset"] == "digits"
    assert summary["steps"] == 2000
    assert summary["seed"] == 0
    assert summary["train_accuracy"] >= summary["test_accuracy"]
    assert summary["steps_per_second"] == pytest.approx(2000 / summary["seconds"], rel=0.01)
    assert f"test accuracy {summary['test_accuracy']:.2%}" in done.stdout
    assert done.stdout.index("PASS  64-50-10") < done.stdout.index("Training on")


def test_progress_is_plain_lines_without_a_terminal(default_run):
    done, _ = default_run
    steps = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("step ")]
    assert {*range(200, 2001, 200)} <= {*steps}  # a slow machine prints one after some seconds, too
    assert steps == sorted({*steps})
    assert "\x1b" not in done.stdout + done.stderr


def test_the_folder_contains_the_documented_files(default_run):
    _, output = default_run
    assert {path.name for path in output.iterdir()} - {"checkpoints"} == {  # of runs of more than ten seconds
        "first_layer_weights.png", "history.csv", "learning_curves.png",
        "mistakes.png", "network.json", "parameters.npz", "summary.json",
    }  # fmt: skip
    for path in output.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_saved_parameters_reach_the_reported_accuracy(default_run):
    _, output = default_run
    with np.load(output / "parameters.npz") as leaves:
        params = {f"Affine{i}": {leaf: leaves[f"Affine{i}.{leaf}"] for leaf in ("W", "b")} for i in (1, 2)}
    network = numpy_ref.TwoLayerNet(64, 50, 10, params=params)
    data = jaxnet.data.digits()
    summary = json.loads((output / "summary.json").read_text())
    assert network.accuracy(data.x_test, data.t_test) == pytest.approx(summary["test_accuracy"], abs=1e-6)


def test_the_last_row_of_the_history_agrees_with_the_summary(default_run):
    _, output = default_run
    with (output / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((output / "summary.json").read_text())
    assert len(rows) == 2001
    assert float(rows[-1]["test_accuracy"]) == pytest.approx(summary["test_accuracy"])
    assert float(rows[-1]["loss"]) == pytest.approx(summary["final_loss"])


CHANGES = {
    "two-layer": [
        "--hidden 20", "--activation tanh", "--batch-norm", "--dropout 0.2", "--init-std he", "--optimizer adam",
        "--learning-rate 0.05", "--schedule cosine", "--clip-norm 0.01", "--weight-decay 0.01", "--batch-size 50",
        "--steps 21", "--seed 3", "--dataset mnist",
    ],
    "transformer": ["--context 9", "--width 12", "--blocks 1", "--dropout 0", "--text other.txt"],
}  # fmt: skip
BASE_OPTIONS = {
    "two-layer": "--steps 20",
    "transformer": "--context 8 --width 8 --steps 2 --batch-size 2 --text some.txt",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("network", CHANGES)
def test_every_option_changes_the_trained_parameters(run, tmp_path, monkeypatch, network):
    """Runs that differ in one option have different parameters, except for --eval-every."""
    monkeypatch.chdir(tmp_path)
    Path("some.txt").write_text("the quick brown fox jumps over the lazy dog, " * 20)
    Path("other.txt").write_text("the quick brown dog jumps over the lazy fox, " * 20)
    parameters = {}
    for i, option in enumerate(["", "--eval-every 7", *CHANGES[network]]):
        if "mnist" in option and "JAXNET_DATA" not in os.environ:
            continue
        done = run("train.py", *f"--network {network} {BASE_OPTIONS[network]} {option} --output run{i}".split())
        assert done.returncode == 0, (option, done.stderr)
        parameters[option] = (Path(f"run{i}") / "parameters.npz").read_bytes()
    assert parameters.pop("--eval-every 7") == parameters[""]
    assert len(set(parameters.values())) == len(parameters)


@pytest.mark.slow
def test_the_summary_records_the_options(run, tmp_path):
    options = (
        "--hidden 20 10 --activation tanh --init-std xavier --optimizer adam --learning-rate 0.005 --batch-size 50"
    )
    done = run("train.py", *f"{options} --steps 130 --eval-every 60 --seed 3 --output {tmp_path / 'run'}".split())
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["network"] == "64-20-10-10"
    assert summary["options"]["learning_rate"] == 0.005
    assert summary["options"]["optimizer"] == "adam"
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        assert leaves["Affine2.W"].shape == (20, 10)
    with (tmp_path / "run" / "history.csv").open() as file:
        evaluated = [int(row["step"]) for row in csv.DictReader(file) if row["test_accuracy"]]
    assert evaluated == [0, 60, 120, 130]


def read_parameters(folder, net):
    return run_folder.read_parameters(folder / "parameters.npz", net)


@pytest.mark.slow
def test_a_deep_network_is_saved_with_its_running_statistics_key_and_step(run, tmp_path):
    options = "--network deep --hidden 12 9 --batch-norm --dropout 0.1 --weight-decay 1e-3 --schedule cosine --steps 40"
    done = run("train.py", *options.split(), "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "PASS  64-12-9-10" in done.stdout
    assert "Cross-check on 9 training images" in done.stdout
    net, data = jaxnet.multi_layer_net(64, [12, 9], 10, batch_norm=True, dropout=0.1), jaxnet.data.digits()
    params, state, key, step = read_parameters(tmp_path / "run", net)
    assert step == 40
    assert key.shape == ()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    accuracy = jaxnet.accuracy(net.infer(params, state, data.x_test), data.t_test)
    assert float(accuracy) == pytest.approx(summary["test_accuracy"], abs=1e-6)
    assert summary["options"]["optimizer"] == "adam"


@pytest.mark.slow
def test_a_convolutional_network_is_trained_on_images(run, tmp_path):
    options = f"--network simple-conv --steps 3 --batch-size 4 --eval-every 3 --output {tmp_path / 'run'}"
    done = run("train.py", *options.split())
    assert done.returncode == 0, done.stderr
    assert "PASS  simple-conv" in done.stdout
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        assert leaves["Convolution1.W"].shape == (30, 1, 5, 5)
        assert leaves["step"] == 3
    assert (tmp_path / "run" / "first_layer_weights.png").exists()
    assert (tmp_path / "run" / "mistakes.png").exists()


def test_the_deep_convolutional_network_is_built_for_its_images():
    """Does not train it: that takes minutes, and tests/nn/test_deep_networks.py trains a smaller one."""
    options = train_options.resolve(train_options.Options(network="deep-conv"))
    data, vocabulary = train_setup.load_data(options)
    assert data.x_train.shape == (1442, 1, 8, 8)
    name, net = train_setup.build_network(options, data, vocabulary)
    params = jax.eval_shape(lambda key: net.init(key, "he"), jax.random.key(0))
    assert name == "deep-conv"
    assert params["Convolution1"]["W"].shape == (16, 1, 3, 3)
    assert jax.eval_shape(net.infer, params, net.state, data.x_test).shape == (355, 10)


@pytest.mark.slow
def test_the_transformer_learns_a_text_and_writes_a_sample(run, tmp_path):
    (tmp_path / "mine.txt").write_text("abcabcabd\n" * 60)
    options = "--network transformer --context 8 --width 8 --blocks 1 --steps 150 --eval-every 50 --temperature 0.5"
    options += f" --dropout 0 --learning-rate 0.02 --text {tmp_path / 'mine.txt'} --output {tmp_path / 'run'}"
    done = run("train.py", *options.split())
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"held-out text: {summary['test_loss']:.3f} nats" in done.stdout
    assert summary["test_loss"] < 0.5  # a random text of five characters has 1.6
    written = (tmp_path / "run" / "sample.txt").read_text()
    assert written in done.stdout
    assert written.count("abc") > 40
    net = jaxnet.transformer(5, 8, 8, 4, 1)
    params, state, _, step = read_parameters(tmp_path / "run", net)
    assert step == 150
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        vocabulary = str(leaves["vocabulary"])
    assert vocabulary == "\nabcd"
    data = text.windows("abcabcabd\n" * 60, vocabulary, 8)
    loss = jaxnet.softmax_cross_entropy(net.infer(params, state, data.x_test), data.t_test)
    assert float(loss) == pytest.approx(summary["test_loss"], abs=1e-5)


@pytest.mark.slow
def test_a_convolutional_network_with_a_wrong_backward_pass_is_not_trained(run, tmp_path, monkeypatch):
    right = numpy_ref.Convolution.backward

    def wrong(self, dout):
        dx = right(self, dout)
        self.dW = self.dW * 1.001
        return dx

    monkeypatch.setattr(numpy_ref.Convolution, "backward", wrong)
    done = run("train.py", "--network", "simple-conv", "--steps", "3", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "Convolution1.W" in done.stdout
    assert "Training on" not in done.stdout


@pytest.mark.slow
def test_chapter_6_draws_all_figures(run, tmp_path):
    done = run("chapter6.py", "--steps", "10", "--hidden", "9", "8", "--output", str(tmp_path / "pictures"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar without a terminal
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "activations_relu.png", "activations_sigmoid.png", "activations_tanh.png", "batch_norm.png",
        "optimizer_paths.png", "optimizers.png", "overfitting.png",
    }  # fmt: skip
    again = run("chapter6.py", "--output", str(tmp_path / "pictures"))
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.slow
def test_a_sweep_writes_a_map_and_a_row_for_each_run(run, tmp_path):
    options = "--learning-rates 0.01 0.5 1e30 --init-stds 0.1 0.5 --seeds 2 --hidden 8 --steps 60"
    done = run("sweep.py", *options.split(), "--output", str(tmp_path / "sweep"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 runs of 60 steps at once")
    assert "best: learning rate 0.5" in done.stdout
    assert re.search(r"the best, on the test data: accuracy \d\d.\d\d%", done.stdout)
    assert done.stderr == ""  # no progress bar without a terminal
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["learning_rate"]), float(row["init_std"]), row["seed"]) for row in rows[:3]] == [
        (0.01, 0.1, "0"), (0.01, 0.1, "1"), (0.01, 0.5, "0"),
    ]  # fmt: skip
    assert [row["diverged"] for row in rows[:8]] == ["False"] * 8
    diverged = [row["diverged"] == "True" for row in rows]
    assert 0 < sum(diverged) <= 4  # at 1e30, a network whose ReLUs all die at once stays finite
    assert f"{sum(diverged)} of 12 diverged" in done.stdout
    assert [row["validation_accuracy"] == "" for row in rows] == diverged
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    lost = run("sweep.py", *f"--learning-rates 1e30 --init-stds 1 --steps 5 --output {tmp_path / 'lost'}".split())
    assert "all 1 runs diverged; choose lower learning rates" in str(lost)
    assert lost.returncode == 1
    assert (tmp_path / "lost" / "sweep.png").exists()
    refused = run("sweep.py", "--learning-rates", "-1", "--output", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("sweep.py: learning_rates[0]: -1")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_diverging_run_stops_and_saves_its_history(run, tmp_path):
    done = run("train.py", "--learning-rate", "1e30", "--steps", "50", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert re.match("train.py: training diverged: the output of Affine2 is (nan|infinite) at step 2", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "learning rate" in summary["diverged"]
    assert 0 < summary["steps"] < 50
    with (tmp_path / "run" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == summary["steps"] + 1


@pytest.mark.slow
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(run, tmp_path):
    options = ["--steps", "1000", "--eval-every", "20", "--optimizer", "momentum", "--checkpoint-seconds", "0"]
    whole = run("train.py", *options, "--output", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    stopped = tmp_path / "stopped"
    command = [sys.executable, ROOT / "scripts" / "train.py", *options, "--output", stopped]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("step "):
            pass
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "stopped and saved after step" in stderr
    assert f"--resume {stopped}" in stderr
    assert {path.name for path in stopped.iterdir()} == {"checkpoints", "options.json"}
    refused = run("train.py", "--output", str(stopped))
    assert refused.returncode == 2
    assert "use --resume" in refused.stderr

    resume = [sys.executable, ROOT / "scripts" / "train.py", "--resume", stopped]
    flags = os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"}
    refused = subprocess.run(resume, capture_output=True, text=True, env=flags, timeout=100)
    assert refused.returncode == 2
    message = r"XLA_FLAGS was .*, is --xla_cpu_max_isa=AVX; --resume-anyway continues with other bits\n"
    assert re.fullmatch(rf"train.py: {re.escape(str(stopped))}/checkpoints/\d+: {message}", refused.stderr)
    shutil.copytree(stopped, tmp_path / "copy")
    resume = [*resume[:-1], tmp_path / "copy", "--resume-anyway"]
    other = subprocess.run(resume, capture_output=True, text=True, env=flags, timeout=100)
    assert other.returncode == 0, other.stderr
    assert re.search(r"XLA_FLAGS was .*, is --xla_cpu_max_isa=AVX; continuing with other bits\n", other.stdout)

    done = run("train.py", "--resume", str(stopped))
    assert done.returncode == 0, done.stderr
    assert re.search(rf"Resuming {re.escape(str(stopped))} after step \d+ of 1,000, loss \d\.\d{{4}}", done.stdout)
    assert not (stopped / "options.json").exists()
    with np.load(tmp_path / "whole" / "parameters.npz") as a, np.load(stopped / "parameters.npz") as b:
        assert all(a[leaf].tobytes() == b[leaf].tobytes() for leaf in a.files)
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (stopped / "history.csv").read_bytes()
    again = run("train.py", "--resume", str(stopped))
    assert again.returncode == 2
    assert "is a complete run of 1000 steps" in again.stderr
    assert again.stderr.endswith("start another run with --optimizer momentum --eval-every 20 --steps STEPS\n")


@pytest.mark.slow
def test_two_processes_train_the_same_parameters_as_one(run, tmp_path):
    options = ["--steps", "60", "--eval-every", "20"]
    single = run("train.py", *options, "--output", str(tmp_path / "single"))
    assert single.returncode == 0, single.stderr
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        ROOT / "scripts" / "train.py",
        *options,
        "--output",
        tmp_path / "two",
        "--processes",
        "2",
    ]
    first, second = (
        subprocess.Popen(
            [*command, "--coordinator", f"localhost:{port}", "--process", str(process)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in (0, 1)
    )  # fmt: skip
    output, other_output = (process.communicate(timeout=200)[0] for process in (first, second))
    assert (first.returncode, second.returncode) == (0, 0), output + other_output
    assert "test accuracy" in output
    assert "step" not in other_output
    with np.load(tmp_path / "single" / "parameters.npz") as a, np.load(tmp_path / "two" / "parameters.npz") as b:
        for leaf in a.files:  # float32 sums are taken in another order
            np.testing.assert_allclose(b[leaf], a[leaf], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_both_processes_exit_at_once_if_the_first_refuses_the_folder(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "scripts" / "train.py", "--output", tmp_path, "--processes", "2"]
    both = [
        subprocess.Popen(
            [*command, "--coordinator", f"localhost:{port}", "--process", str(process)],
            stderr=subprocess.PIPE, text=True,
        )
        for process in (0, 1)
    ]  # fmt: skip
    first, second = (process.communicate(timeout=25)[1] for process in both)  # JAX itself would wait for 30 seconds
    assert [process.returncode for process in both] == [2, 2], first + second
    assert "exists already" in first
    assert "a check failed in the first process" in second


@pytest.mark.slow
def test_training_continues_if_no_checkpoint_can_be_saved(run, tmp_path, monkeypatch):
    def full(self, progress):
        raise CheckpointError("checkpoints: no checkpoint could be saved (no space left)")

    monkeypatch.setattr(Checkpoints, "offer", full)
    done = run("train.py", "--steps", "50", "--output", str(tmp_path / "run"))
    assert done.returncode == 3
    assert done.stdout.count("no space left") == 1  # reported at the first failure only
    assert "no space left" in done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"hidden": 50}, "hidden is 50"),
        ({"hidden": None}, "hidden is None"),
        ({"dataset": "cifar"}, "dataset is 'cifar'"),
        ({"batch_norm": 1}, "batch_norm is 1"),
        ({"width": 64}, "width is 64"),
        ({"optimizer": ...}, "optimizer is missing"),
        ({"network": None}, "network is None"),
        ({"seed": 10**30}, "seed: 1000000000000000000000000000000, expected"),
    ],
)
def test_damaged_options_of_a_run_are_refused_by_name(run, default_run, tmp_path, change, message):
    _, output = default_run
    options = json.loads((output / "summary.json").read_text())["options"] | change
    (tmp_path / "unfinished").mkdir()
    recorded = {name: value for name, value in options.items() if value is not ...}
    (tmp_path / "unfinished" / "options.json").write_text(run_folder.options_text(recorded))
    refused = run("train.py", "--resume", str(tmp_path / "unfinished"))
    assert refused.returncode == 2
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


OTHER_NETWORKS = "deep", "simple-conv", "deep-conv", "transformer"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["two-layer", *map(exhaustive, OTHER_NETWORKS)])
def test_a_run_resumes_with_its_recorded_options(run, tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    Path("some.txt").write_text("the quick brown fox jumps over the lazy dog, " * 20)
    own = {"transformer": "--context 8 --width 8 --text some.txt", "deep": "--batch-norm --dropout 0.1 --hidden 9 8"}
    done = run(
        "train.py", *f"--network {network} --steps 3 --batch-size 4 {own.get(network, '')} --output whole".split()
    )
    assert done.returncode == 0, done.stderr
    Path("unfinished").mkdir()
    recorded = json.loads(Path("whole/summary.json").read_text())["options"]
    Path("unfinished/options.json").write_text(run_folder.options_text(recorded))
    again = run("train.py", "--resume", "unfinished")
    assert again.returncode == 0, again.stderr
    assert "No checkpoint: starting unfinished from step 0" in again.stdout
    assert Path("unfinished/parameters.npz").read_bytes() == Path("whole/parameters.npz").read_bytes()


@pytest.mark.slow
def test_a_measured_form_is_recorded_and_used_by_a_resumed_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used, iter_fit = [], jaxnet.iter_fit

    def recorded(*arguments, form, **options):
        used.append(str(form))
        return iter_fit(*arguments, form=form, **options)

    monkeypatch.setattr(jaxnet, "iter_fit", recorded)
    monkeypatch.setattr(jaxnet, "fastest_form", lambda *_, **__: FORMS["as-written"])
    done = run("train.py", *["--output", "whole", "--steps", "20", "--batch-size", "10"])
    assert "Products are computed in the form as-written, which is the fastest here" in done.stdout
    summary = json.loads(Path("whole/summary.json").read_text())
    options = summary["options"]
    assert options["form"] == summary["form"] == "as-written"
    Path("unfinished").mkdir()
    Path("unfinished/options.json").write_text(run_folder.options_text(options))
    monkeypatch.setattr(jaxnet, "fastest_form", lambda *_, **__: pytest.fail("measured again"))
    assert run("train.py", "--resume", "unfinished").returncode == 0
    assert used == ["as-written", "as-written"]


@pytest.mark.slow
def test_a_text_of_other_characters_with_equal_ids_is_another_run(tmp_path):
    path, described = tmp_path / "text", []
    options = train_options.resolve(
        train_options.Options(network="transformer", text=path, context=8, width=4, blocks=1, steps=2)
    )
    for content in ("abacab " * 20, "xyxzxy " * 20):
        path.write_text(content)
        described.append(train.checkpoints_of(tmp_path, train_setup.set_up(options)).identity())
    assert {name for name in described[0] if described[0][name] != described[1][name]} == {"vocabulary"}
    assert described[0]["vocabulary"].startswith("4 characters, CRC-32 ")


@pytest.mark.parametrize("part", [".", "checkpoints"])
def test_a_run_whose_folder_cannot_be_written_is_not_resumed(run, tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    Path("unfinished/checkpoints").mkdir(parents=True)
    recorded = vars(train_options.resolve(train_options.Options())).items()
    recorded = {option: value for option, value in recorded if option not in train_options.LAUNCH}
    Path("unfinished/options.json").write_text(run_folder.options_text(recorded))
    make = Path.mkdir

    def fail(path, *arguments, **named):
        if path.parent == Path("unfinished", part):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        make(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", fail)
    refused = run("train.py", "--resume", "unfinished")
    message = f"resume: {Path('unfinished', part)} cannot be written (Read-only file system); make it writable, or "
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"train.py: {message}")
    assert len(refused.stderr.splitlines()) == 1
    assert not refused.stdout


INVALID_RESUMES = {
    "nothing there": (
        "--resume nowhere",
        "resume: nowhere is not the folder of an unfinished run (there is no such folder); jaxnet show lists those",
    ),
    "an empty folder": (
        "--resume empty",
        "resume: empty is not the folder of an unfinished run (it has no options.json); jaxnet show lists those",
    ),
    "other options": (
        "--resume unfinished --steps 5 --seed 1",
        "steps, seed: a resumed run keeps the options that it was started with; leave out steps, seed, or start "
        "another run with --optimizer adam --seed 1 --hidden 20 --steps 5",
    ),
    "a longer run": (
        "--resume complete --steps 4000",
        "resume: complete is a complete run of 20 steps, whose optimizer state is not kept; to train longer, start "
        "another run with --optimizer adam --hidden 20 --steps 4000",
    ),
    "a complete run": ("--resume complete", "resume: complete is a complete run of 20 steps, whose optimizer state is"),
    "anyway, but no run": ("--resume-anyway", "resume_anyway: set without --resume; name the folder of an unfinished"),
    "another folder": ("--resume nowhere --output other", "output: a resumed run stays in its folder"),
    "no seconds": ("--checkpoint-seconds -1", "checkpoint_seconds: -1"),
}


@pytest.mark.parametrize("name", INVALID_RESUMES)
def test_an_invalid_resume_prints_one_line_and_exits_with_2(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "unfinished", "complete"):
        Path(folder).mkdir()
    written = train_options.Options(hidden=(20,), optimizer="adam", steps=20)
    recorded = vars(train_options.resolve(written)).items()
    recorded = {option: value for option, value in recorded if option not in train_options.LAUNCH}
    Path("unfinished/options.json").write_text(run_folder.options_text(recorded))
    Path("complete/summary.json").write_text(json.dumps({"steps": 20, "options": recorded}))
    options, message = INVALID_RESUMES[name]
    done = run("train.py", *options.split())
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: {message}")
    assert len(done.stderr.splitlines()) == 1


COMMANDS = [
    "", "--steps 7", "--dataset mnist", "--dataset mnist --steps 2000", "--optimizer adam --learning-rate 0.1",
    "--hidden 3 4 --batch-norm --init-std he --seed 3 --validation 0.1", "--network deep-conv --dropout 0.1",
    "--network transformer --context 8", "--network simple-conv --schedule constant --weight-decay 0.0",
]  # fmt: skip


@pytest.mark.parametrize("written", COMMANDS)
def test_the_command_line_of_recorded_options_gives_these_options_and_no_defaults(written):
    def options_of(text):
        options = vars(train_options.resolve(tyro.cli(train_options.Options, args=text.split())))
        return {name: value for name, value in options.items() if name not in train_options.LAUNCH}

    shortest = train_options.command_line(json.loads(json.dumps(options_of(written), default=str)))
    assert options_of(shortest) == options_of(written)
    assert sorted(shortest.split()) == sorted(written.split())


@pytest.mark.slow
def test_a_longer_run_begins_with_the_steps_of_a_shorter_one(run, tmp_path):
    for steps in ("20", "40"):
        options = ["--steps", steps, "--eval-every", "10", "--optimizer", "momentum", "--dropout", "0.1"]
        assert run("train.py", *options, "--output", str(tmp_path / steps)).returncode in (0, 1)
    shorter, longer = ((tmp_path / steps / "history.csv").read_text().splitlines() for steps in ("20", "40"))
    assert len(shorter) == 22
    assert longer[:22] == shorter


@pytest.mark.slow
def test_a_loss_that_rose_is_told_of_a_run_that_learned(run, tmp_path):
    """Takes steps so large that the outputs explode, although 15 % of the samples are classified, not 10 %."""
    options = ["--activation", "sigmoid", "--optimizer", "adam", "--learning-rate", "100", "--steps", "300"]
    done = run("train.py", *options, "--seed", "1", "--output", str(tmp_path / "run"))
    assert done.returncode == 0
    assert re.fullmatch(r"train.py: the loss rose from 2.35 to \S+; try a smaller --learning-rate", done.stderr.strip())


@pytest.mark.slow
def test_a_tiny_clip_norm_stops_learning(run, tmp_path):
    """Takes 100 steps of at most 0.1 * 1e-9, which change no prediction."""
    done = run("train.py", "--clip-norm", "1e-9", "--steps", "100", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert re.match(
        r"train.py: the network learned nothing: train accuracy \d+.\d\d%, no more than 10.19%", done.stderr
    )
    assert len(done.stderr.splitlines()) == 1
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[100]["train_accuracy"] == rows[0]["train_accuracy"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["options"]["clip_norm"] == 1e-9


INVALID_OPTIONS = {
    "no steps": ("--steps 0", "steps: 0, expected a whole number of at least 1"),
    "negative batch": ("--batch-size -5", "batch_size: -5"),
    "no interval": ("--eval-every 0", "eval_every: 0"),
    "no rate": ("--learning-rate 0", "learning_rate: 0"),
    "nan rate": ("--learning-rate nan", "learning_rate: nan"),
    "no clip norm": ("--clip-norm 0", "clip_norm: 0"),
    "negative scale": ("--init-std -1", "init_std: -1"),
    "unknown scale": ("--init-std big", "init_std: 'big', expected a number, he or xavier"),
    "no units": ("--hidden 50 0", "hidden: 0, expected a whole number of at least 1"),
    "negative seed": ("--seed -1", "seed: -1"),
    "large seed": ("--seed 99999999999999999999", "seed: 99999999999999999999, expected a whole number from 0 to"),
    "no device": ("--devices 0", "devices: 0, expected a whole number of at least 1"),
    "coordinator of a single process": ("--coordinator here:1", "coordinator: here:1, but there is a single process"),
    "process out of range": ("--process 3", "process: 3, expected 0 to 0"),
    "all for validation": ("--validation 1", "validation: 1.0, expected a share in [0, 1)"),
    "too little for validation": ("--validation 1e-5", "validation: 1e-05 of 1442 training samples"),
    "too many rows": ("--batch-size 2000000000", "steps, batch_size: 2000, 2000000000, expected fewer than"),
    "option of other networks": (
        "--network simple-conv --hidden 20",
        "hidden: an option of two-layer, deep, not of simple-conv",
    ),
    "dataset of a text": ("--network transformer --dataset mnist", "dataset: an option of two-layer"),
    "text of an image network": ("--text mine.txt", "text: an option of transformer, not of two-layer"),
    "no temperature": ("--network transformer --temperature 0", "temperature: 0"),
    "no text": ("--network transformer --text nowhere.txt", "nowhere.txt: cannot be read"),
    "no context": ("--network transformer --context 0", "context: 0"),
    "no width": ("--network transformer --width 6", "width: 6, expected a multiple of 4"),
    "dropout of 1": ("--dropout 1", "dropout: 1.0, expected a probability in [0, 1)"),
    "negative weight decay": ("--weight-decay -1", "weight_decay: -1.0, expected a finite number >= 0"),
}


@pytest.mark.parametrize("name", INVALID_OPTIONS)
def test_an_option_out_of_range_prints_one_line_and_exits_with_2(run, name, tmp_path):
    options, message = INVALID_OPTIONS[name]
    done = run("train.py", *options.split(), "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--dataset cifar", "--optimizer sdg", "--steps many", "--no-such-option 3"])
def test_an_unknown_option_exits_with_2(run, option):
    done = run("train.py", *option.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_existing_output_is_refused_and_left_unchanged(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = run("train.py", "--output", str(tmp_path))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.slow
def test_a_network_with_a_wrong_gradient_is_reported_and_not_trained(run, tmp_path, monkeypatch):
    def averaged(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.mean(axis=0)
        return dout @ self.W.T

    monkeypatch.setattr(numpy_ref.Affine, "backward", averaged)
    done = run("train.py", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "the gradients disagree" in done.stderr
    assert "Affine1.b" in done.stdout
    assert "the backward is not the derivative of its own forward" in " ".join(done.stdout.split())
    assert "the batch size" in done.stdout
    assert "Training on" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_mnist_without_files_or_internet_suggests_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNET_DATA", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the discard port, where no server listens
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    done = run("train.py", "--dataset", "mnist", "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--dataset digits" in done.stderr
    assert str(tmp_path / "mnist") in done.stderr


@pytest.mark.exhaustive  # the first notebook of docs/ trains it too
@pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA does not say where the MNIST files are")
def test_the_notebooks_run_reaches_its_accuracy(run, tmp_path):
    done = run("train.py", "--dataset", "mnist", "--eval-every", "2500", "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 10_000
    assert summary["test_accuracy"] >= 0.965


@pytest.mark.slow
def test_the_crosscheck_passes_all_networks_and_layers(run):
    done = run("crosscheck.py")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "784-50-10 in the book's order",
        "784-50-10 in the notebook's order",
        "a deep net, with BatchNorm and Dropout",
        "the simple convolutional net",
        "the deep convolutional net",
        "the transformer",
        *set(numpy_ref.networks.LAYERS) - {"BatchNorm"},
        "BatchNorm of vectors",
        "BatchNorm of images",
        "Residual",
        "SoftmaxWithLoss",
        "MeanSquaredError",
    ):
        assert f"PASS  {name}" in done.stdout


@pytest.mark.slow
def test_the_crosscheck_fails_the_notebook_and_explains_why(run):
    done = run("crosscheck.py", "--network", "notebook")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  the notebook as written")
    for leaf in ("Affine1.W", "Affine1.b", "Affine2.W", "Affine2.b"):
        assert f"{leaf}[" in done.stdout
    sentences = " ".join(done.stdout.split())
    assert "backward ignores dout" in sentences
    assert "overwrites dout" in sentences
    assert "they are different functions" in sentences
    assert "softmax runs over the whole batch" in sentences
    assert max(map(len, done.stdout.splitlines())) <= 80


USER_CODE = """
import time
import jax.numpy as jnp
import numpy as np

class Affine:
    def __init__(self, W, b, wrong=0):
        self.W, self.b, self.wrong = W, b, wrong

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T * (1 + self.wrong)

def reference(params, x):
    return x @ params["W"] + params["b"]

def forward(x, w):
    return x * w, (x, w)

def backward(dout, cache):
    return dout * cache[1], dout * cache[0]

class Lookup:
    def __init__(self, W):
        self.W = W

    def forward(self, ids):
        self.ids = ids
        return self.W[ids]

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        np.add.at(self.dW, self.ids, dout)

def sine(x):
    return jnp.sin(x)

def stretch(x, by=1, shift=0):
    assert (by, shift) == (1, 3), (by, shift)
    return x * by + shift, by

def unstretch(dout, by):
    return dout * by

def scaled(x, factor):
    return x * factor, factor

def unscaled(dout, factor):
    return {"x": dout * factor * 1.0001}

class Slow(Affine):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)
"""


@pytest.fixture
def user_code(tmp_path):
    (tmp_path / "mine.py").write_text(USER_CODE)
    return str(tmp_path / "mine.py")


CHECKED = {
    "a class": (":Affine --init 4x3 3 --inputs 5x4", 0, "PASS  Affine"),
    "with a reference": (
        ":Affine --init 4x3 3 --inputs 5x4 --reference USER_CODE:reference --verbose",
        0,
        "W: analytic - autodiff: error",
    ),
    "by name, wrong": (":Affine --init b=3 W=4x3 wrong=0.5 --inputs 5x4", 1, "times 1.5"),
    "a pair": (":forward,backward --inputs 5x4 5x4", 0, "PASS  forward,backward"),
    "inputs by name": (":stretch,unstretch --inputs shift=3 x=5x4", 0, "PASS  stretch,unstretch"),
    "integers": (":Lookup --init 6x3 --inputs 2x5<6", 0, "PASS  Lookup"),
    "single precision": (
        ":Affine --init 4x3 3 --inputs 5x4 --dtype float32 --verbose",
        0,
        "W: float32 - float64: error",
    ),
    "single precision, in short": (
        ":Affine --init 4x3 3 --inputs 5x4 --float32 --verbose",
        0,
        "W: float32 - float64: error",
    ),
    "a JAX function": (":sine --inputs 3x4", 0, "PASS  sine"),
    "inconclusive": (":sine --inputs 3x4 --resolution 1e-15", 3, "INCONCLUSIVE  sine"),
    "without a gradient": (":scaled,unscaled --inputs 5x4 5x4 --accuracy 1e-3", 3, "pass --constants factor"),
    "a constant": (
        ":scaled,unscaled --inputs 5x4 5x4 --accuracy 1e-3 --constants factor",
        0,
        "PASS  scaled,unscaled",
    ),
    "wrong by 1e-4": (":scaled,unscaled --inputs 5x4 5x4 --constants factor", 1, "FAIL  scaled,unscaled"),
    "costs": (":Affine --init 4x3 3 --inputs 5x4 --verbose", 0, "forward passes,"),
    "out of time": (":Slow --init 4x3 3 --inputs 5x4 --max-seconds 0.2", 3, "max_seconds ran out"),
}


@pytest.mark.parametrize("name", mostly_slow(CHECKED, 2))
def test_user_code_is_checked_from_the_shell(run, user_code, name):
    options, status, text = CHECKED[name]
    first, *rest = options.replace("USER_CODE", user_code).split()
    done = run("crosscheck.py", user_code + first, *rest)
    assert done.returncode == status, done.stderr
    assert text in done.stdout


@pytest.mark.slow
def test_a_check_writes_json_and_a_png(run, user_code, tmp_path):
    np.savez(tmp_path / "weights.npz", W=np.arange(6.0).reshape(3, 2), b=np.ones(2))
    options = "--json --plot", str(tmp_path / "v.png"), "--inputs 5x3 --init", str(tmp_path / "weights.npz")
    done = run("crosscheck.py", f"{user_code}:Affine", *" ".join(options).split())
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["reports"]
    assert [leaf["name"] for leaf in report["leaves"]] == ["W", "b", "x"]
    for leaf in report["leaves"]:
        assert (leaf["verdict"], leaf["cause"], leaf["derived_by"]) == ("PASS", "AGREES", "analytic")
        assert 0 <= leaf["relative_error"] <= leaf["relative_tolerance"] < 1e-7
        assert leaf["compared"] == leaf["size"]
        assert set(leaf["gaps"]) == {"analytic - numerical"}
    assert report["verdict"] == "PASS"
    assert report["calls"] > 50
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


NOISY_CODE = """
import os, sys
import numpy as np

print("imported")

class Square:
    def __init__(self):
        print("made")

    def forward(self, x):
        sys.__stdout__.write("forward\\n")
        os.system("echo forward in a subprocess")
        self.x = x
        return x**2

    def backward(self, dout):
        print("backward")
        return 2 * self.x * dout
"""


@pytest.mark.slow
def test_json_is_valid_although_the_checked_code_prints(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY_CODE)
    command = [sys.executable, ROOT / "scripts" / "crosscheck.py", f"{tmp_path / 'noisy.py'}:Square", "--inputs", "2x3"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [report["verdict"] for report in json.loads(done.stdout)["reports"]] == ["PASS"]
    for line in ("imported", "made", "forward", "forward in a subprocess", "backward"):
        assert line in done.stderr.splitlines()


INVALID_TARGETS = {
    "no such file": ("nowhere.py:Affine", "there is no file nowhere.py"),
    "no name": ("USER_CODE", "name one of these"),
    "no such name": ("USER_CODE:Afine", "no Afine in"),
    "no arguments": ("USER_CODE:Affine --inputs 3x4", "W, b are missing; pass --init W=shape:SIZES b=shape:SIZES"),
    "no value": ("USER_CODE:Affine --init 4x3 three --inputs 3x4", "'three': expected a shape"),
    "no shape": ("USER_CODE:Affine --init 4x0 3 --inputs 3x4", "a size is below 1"),
    "no weights": ("USER_CODE:Affine --init weights.npz --inputs 3x4", "weights.npz: there is no such file"),
    "no inputs": ("USER_CODE:Lookup --init 4x3", "is missing; pass --inputs"),
    "no such input": (
        "USER_CODE:stretch,unstretch --inputs 5x4 shft=3",
        "stretch takes x, by, shift, and no shft; did you mean shift?",
    ),
    "an input twice": ("USER_CODE:sine --inputs 5x4 x=3x4", "sine takes x: x is passed twice"),
    "of the networks": ("USER_CODE:sine --inputs 3 --network book", "network: applies only without FILE.py:NAME"),
    "of a target": ("--inputs 3x4", "inputs: applies only to FILE.py:NAME"),
    "of a target, by two words": ("--max-seconds 3", "max_seconds: applies only to FILE.py:NAME"),
    "no accuracy": ("USER_CODE:sine --inputs 3 --accuracy -1", "accuracy: -1.0, expected"),
    "no time": ("USER_CODE:sine --inputs 3 --max-seconds 0", "max_seconds: 0.0, expected"),
    "no folder": ("USER_CODE:sine --inputs 3 --plot nowhere/v.png", "expected a file in an existing folder"),
}


@pytest.mark.parametrize("name", INVALID_TARGETS)
def test_a_target_that_cannot_be_checked_prints_one_line_and_exits_with_2(run, user_code, name):
    options, message = INVALID_TARGETS[name]
    done = run("crosscheck.py", *options.replace("USER_CODE", user_code).split())
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


SCORED = {
    "two tables": ("--growth --kinds", 2, "", "growth, kinds, torch: pass only one"),
    "costs": ("--growth --largest 3", 0, "1,000  dW 1 % off", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORED)
def test_the_scoreboard_measures_the_cost_of_checks(run, name):
    options, status, printed, refused = SCORED[name]
    done = run("scoreboard.py", *options.split())
    assert done.returncode == status, done.stderr
    assert printed in done.stdout
    assert refused in done.stderr


@pytest.mark.slow
def test_a_fail_costs_at_most_five_times_a_pass(run, tmp_path):
    done = run("scoreboard.py", "--growth", "--largest", "4", "--output", str(tmp_path / "growth.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "growth.json").read_text())
    assert [row["verdict"] for row in rows] == ["PASS", "FAIL"] * 3
    for right, wrong in zip(rows[::2], rows[1::2], strict=True):
        assert wrong["calls"] <= 5 * right["calls"]


@pytest.mark.slow
def test_the_scoreboard_runs_the_kinds_of_input(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests")
    kinds = importlib.import_module("mutants.kinds")
    names = list(kinds.KINDS)[:4]
    monkeypatch.setattr(kinds, "KINDS", {name: kinds.KINDS[name] for name in names})
    done = run("scoreboard.py", "--kinds", "--output", str(tmp_path / "kinds.json"))
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "kinds.json").read_text())
    assert counts["of"] == len(names)
    assert counts["as expected"] + len(counts["not as expected"]) == counts["of"]
    assert f"of {len(names)} as expected" in done.stdout
