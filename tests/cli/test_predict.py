"""Tests of `jaxnet predict`, with networks that `jaxnet train` wrote."""

import json
import re
import sys

import numpy as np
import pytest
from conftest import exhaustive
from PIL import Image

import jaxnet
from jaxnet.cli import main


@pytest.fixture(scope="module")
def jaxnet_command():
    """Returns a function that runs `jaxnet ARGUMENTS` in this process, and returns its exit status."""

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["jaxnet", *map(str, arguments)])
            with pytest.raises(SystemExit) as stopped:
                main.main()
        return stopped.value.code or 0

    return run


@pytest.fixture(scope="module")
def digits_run(jaxnet_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert jaxnet_command("train", "--steps", "500", "--output", folder) == 0
    return folder


@pytest.fixture(scope="module")
def text_run(jaxnet_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mine.txt").write_text("abcabcabd\n" * 60)
    options = "--network transformer --context 8 --width 8 --blocks 1 --steps 150 --dropout 0 --learning-rate 0.02"
    assert jaxnet_command("train", *options.split(), "--text", folder / "mine.txt", "--output", folder / "run") == 0
    return folder / "run"


@pytest.mark.slow
def test_images_get_the_probabilities_of_the_network(jaxnet_command, digits_run, tmp_path, capsys):
    data, paths = jaxnet.data.digits(), []
    for i in range(5):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.uint8(np.rint(255 * (1 - data.x_test[i].reshape(8, 8))))).save(paths[-1])
    capsys.readouterr()
    assert jaxnet_command("predict", digits_run, *paths, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    run = jaxnet.load(digits_run)
    logits = np.asarray(run.net.infer(run.params, run.state, data.x_test[:5]), float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, path, p in zip(rows, paths, expected, strict=True):
        assert row["image"] == str(path)
        assert row["changes"] == ["dark on light: inverted"]
        assert [k["class"] for k in row["classes"]] == np.argsort(-p)[:3].tolist()
        np.testing.assert_allclose([k["probability"] for k in row["classes"]], np.sort(p)[:-4:-1], atol=0.01)
    assert jaxnet_command("predict", digits_run, paths[0]) == 0
    best, second, third = ((k["class"], 100 * k["probability"]) for k in rows[0]["classes"])
    printed = "%s: %d (%.1f%%), %d (%.1f%%), %d (%.1f%%)  [dark on light: inverted]\n"
    assert capsys.readouterr().out == printed % (paths[0], *best, *second, *third)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["two-layer", "deep", "simple-conv", exhaustive("deep-conv")])
def test_every_network_of_images_is_loaded_with_the_accuracy_that_it_reached(jaxnet_command, tmp_path, network):
    own = ["--batch-norm", "--dropout", "0.1", "--hidden", "9", "8"] if network == "deep" else []
    options = ["--steps", "3", "--batch-size", "4", "--output", tmp_path / "run"]
    assert jaxnet_command("train", "--network", network, *own, *options) == 0
    run, data = jaxnet.load(tmp_path / "run"), jaxnet.data.digits()
    shape = (1, 8, 8) if "conv" in network else (64,)
    logits = jaxnet.predict(run.net, run.params, run.state, data.x_test.reshape(-1, *shape))
    assert float(jaxnet.accuracy(logits, data.t_test)) == pytest.approx(run.summary["test_accuracy"], abs=1e-6)
    Image.fromarray(np.uint8(255 * data.x_test[0].reshape(8, 8))).save(tmp_path / "x.png")
    assert jaxnet_command("predict", tmp_path / "run", tmp_path / "x.png") == 0


@pytest.mark.slow
def test_a_transformer_continues_a_text(jaxnet_command, text_run, capsys):
    capsys.readouterr()
    assert jaxnet_command("predict", text_run, "--text", "abca", "--characters", "30", "--temperature", "0.1") == 0
    assert capsys.readouterr().out.startswith("abcabcab")
    assert jaxnet_command("predict", text_run, "--text", "abca", "--characters", "7", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert written["text"] == "abca"
    assert len(written["continuation"]) == 7


REFUSED = {
    "no images": ("digits_run", [], "images: none"),
    "a text": ("digits_run", ["--text", "abc"], "text: .* was trained on images"),
    "no text": ("text_run", ["x.png"], "text: .* was trained on a text"),
    "a strange character": ("text_run", ["--text", "abz"], "text: 'z' is not in the vocabulary"),
    "no characters": ("text_run", ["--text", "a", "--characters", "0"], "characters: 0"),
    "no image": ("digits_run", ["nowhere.png"], r"nowhere.png: there is no such file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_predicted_prints_one_line_and_exits_with_2(jaxnet_command, request, name, capsys):
    folder, arguments, message = REFUSED[name]
    folder = request.getfixturevalue(folder)
    capsys.readouterr()
    assert jaxnet_command("predict", folder, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"jaxnet predict: {message}", line)


def test_a_folder_of_no_run_is_refused(jaxnet_command, tmp_path, capsys):
    assert jaxnet_command("predict", tmp_path, "x.png") == 2
    assert "not the folder of a run" in capsys.readouterr().err
