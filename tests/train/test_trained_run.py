"""Tests that the network of a run is loaded from its folder, or refused with the reason."""

import json

import jax
import numpy as np
import pytest
from conftest import random_params
from PIL import Image

import jaxnet
from jaxnet.train import run_folder

NET = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.1)


@pytest.fixture
def folder(tmp_path):
    """Returns the folder of a run whose statistics are not the initial ones."""
    state = jaxnet.initial_state(NET, random_params(NET, dtype=np.float32), key=jax.random.key(5))
    state = state._replace(net_state={"BatchNorm1": {"mean": np.arange(8.0), "var": np.full(8, 2.0)}})
    run_folder.write_parameters(tmp_path / "parameters.npz", state, vocabulary="añb")
    run_folder.write_network(tmp_path / "network.json", NET)
    run_folder.write_summary(tmp_path / "summary.json", {"dataset": "digits", "diverged": None})
    return tmp_path


def test_a_run_is_loaded_with_network_parameters_state_and_summary(folder):
    run = jaxnet.load(str(folder))
    assert run.net == NET
    jax.tree.map(np.testing.assert_array_equal, run.params, random_params(NET, dtype=np.float32))
    np.testing.assert_array_equal(run.state["BatchNorm1"]["mean"], np.arange(8))
    assert run.vocabulary == "añb"
    assert run.summary["dataset"] == "digits"


def test_a_run_prints_its_network_accuracies_and_folder_in_three_lines(folder):
    figures = {"network": "12-8-5", "dataset": "digits", "steps": 2000, "train_accuracy": 0.5, "test_accuracy": 0.25}
    run_folder.write_summary(folder / "summary.json", figures)
    assert str(jaxnet.load(folder)).splitlines() == [
        f"TrainedRun in {folder}: 12-8-5 on digits, 165 parameters",  # 12*8 + 8, BatchNorm 2*8, 8*5 + 5
        "  2,000 steps, train accuracy 50.00%, test accuracy 25.00%",
        "  fields: net, params, state, vocabulary, summary, folder",
    ]


def test_a_run_without_figures_prints(folder):
    assert "a network on digits" in str(jaxnet.load(folder))


def test_no_file_is_unpickled(folder):
    np.savez(folder / "parameters.npz", key=np.array([object()]), step=1)
    with pytest.raises(ValueError, match=r"parameters.npz: cannot be read \(Object arrays cannot be loaded"):
        jaxnet.load(folder)


NEWER = {"format": 2, "jaxnet": "9.1", "description": []}
DAMAGED = {
    "no summary": (lambda f: (f / "summary.json").unlink(), "not the folder of a run .*no summary.json"),
    "unfinished": (lambda f: (f / "summary.json").rename(f / "options.json"), "not finished; continue .*--resume"),
    "diverged": (lambda f: (f / "summary.json").write_text('{"diverged": "at step 3"}'), "diverged .*at step 3"),
    "half a summary": (lambda f: (f / "summary.json").write_text('{"a": '), "summary.json: cannot be read"),
    "a list": (lambda f: (f / "summary.json").write_text("[1]"), "summary.json: list, expected a JSON object"),
    "deep": (lambda f: (f / "network.json").write_text("[" * 100_000), "network.json: cannot be read"),
    "an older version": (lambda f: (f / "network.json").unlink(), "network.json: does not exist.*an older version"),
    "a newer version": (
        lambda f: (f / "network.json").write_text(json.dumps(NEWER)),
        r"network.json: format 2, written by jaxnet 9.1, but jaxnet 0.1.0 reads format 1; install",
    ),
    "another description": (
        lambda f: (f / "network.json").write_text('{"format": 1, "description": ["Affine"]}'),
        r"network.json: .*damaged \(description: ",
    ),
    "another network": (
        lambda f: run_folder.write_network(f / "network.json", jaxnet.two_layer_net(12, 9, 5)),
        r"parameters.npz: Affine1.W is \(12, 8\), expected shape \(12, 9\)",
    ),
    "no parameters": (lambda f: (f / "parameters.npz").unlink(), "parameters.npz: cannot be read"),
    "one array": (lambda f: np.ones(3).dump(f / "parameters.npz"), "parameters.npz: cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_folder_that_cannot_be_loaded_is_refused_with_the_reason(folder, name):
    damage, message = DAMAGED[name]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        jaxnet.load(folder)


def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"nowhere: not the folder of a run .*there is no such folder"):
        jaxnet.load("nowhere")
    with pytest.raises(ValueError, match="not the folder of a run"):
        jaxnet.load(folder / "summary.json")


@pytest.mark.slow
def test_flipped_bytes_are_an_error_or_change_nothing(folder):
    path = folder / "parameters.npz"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    expected = random_params(NET, dtype=np.float32)
    refused = 0
    for position in rng.integers(0, len(content), 200):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            run = jaxnet.load(folder)
        except ValueError:
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, run.params, expected)
    assert refused > 50


@pytest.mark.parametrize(("net", "shape"), [
    (jaxnet.two_layer_net(64, 5, 10), (2, 64)),
    (jaxnet.simple_conv_net((1, 8, 8), filter_size=3, output_size=10), (2, 1, 8, 8)),
])  # fmt: skip
def test_images_are_read_in_the_shape_that_the_network_takes(tmp_path, net, shape):
    run = jaxnet.TrainedRun(net, {}, {}, "", {"dataset": "digits"}, tmp_path)
    ink = jaxnet.data.digits().x_test[:2].reshape(2, 8, 8)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, pixels in zip(paths, ink, strict=True):
        Image.fromarray(np.uint8(np.rint(255 * (1 - pixels)))).save(path)
    x, changes = run.read_images(*paths)
    np.testing.assert_allclose(x, ink.reshape(shape), atol=0.5 / 255)
    assert changes == [["dark on light: inverted"]] * 2
    with Image.open(paths[0]) as image:
        again, _ = run.read_images(image, np.asarray(Image.open(paths[1])))
    np.testing.assert_array_equal(again, x)


def test_an_image_is_refused_where_an_array_is_expected_and_by_a_network_of_text(folder):
    run = jaxnet.load(folder)
    message = r"x: 'seven.png', expected an array .*run.read_images\('seven.png'\)"
    with pytest.raises(ValueError, match=message):
        jaxnet.predict(run.net, run.params, run.state, "seven.png")
    with pytest.raises(ValueError, match="images: none, expected at least one"):
        run.read_images()
    with pytest.raises(ValueError, match="images: a list, expected paths, Pillow images, or arrays of bytes"):
        run._replace(summary={"dataset": "digits"}).read_images(["seven.png"])
    with pytest.raises(ValueError, match=r"images: an array of float64 of shape \(8, 8\), expected paths"):
        run._replace(summary={"dataset": "digits"}).read_images(np.ones((8, 8)))
    with pytest.raises(ValueError, match=r"trained on 'a\.txt', expected one of digits, mnist"):
        run._replace(summary={"dataset": "a.txt"}).read_images("seven.png")
