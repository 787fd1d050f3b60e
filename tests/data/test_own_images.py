"""Tests that images of one's own take the form of the training images, whatever their size, colors and place are."""

import os
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import jaxnet
from jaxnet.data import own_images

NEEDS_MNIST = pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA does not say where MNIST is")
COLORS = {  # of the ink and of the paper
    "light on dark": ((255, 255, 255), (0, 0, 0)),
    "dark on light": ((0, 0, 0), (255, 255, 255)),
    "blue on cream": ((20, 30, 120), (255, 250, 240)),
    "yellow on green": ((250, 240, 90), (10, 60, 20)),
    "faint": ((150, 150, 150), (190, 190, 190)),
}
STROKES = {  # drawn by hand on a grid of 100 by 100
    1: [(40, 25), (52, 10), (52, 90)],
    2: [(25, 30), (35, 12), (60, 10), (75, 28), (65, 50), (25, 88), (80, 88)],
    3: [(25, 18), (50, 8), (72, 22), (66, 40), (45, 48), (70, 55), (76, 75), (52, 92), (24, 82)],
    5: [(75, 12), (32, 12), (28, 48), (55, 42), (76, 60), (68, 84), (45, 92), (22, 82)],
    6: [(65, 10), (38, 30), (25, 60), (35, 88), (60, 90), (72, 70), (55, 55), (30, 65)],
    7: [(22, 14), (78, 14), (45, 90)],
}


def rendered(pixels, place, ink, paper, size=(300, 420)):
    """Returns pixels (28, 28), 7 times as large, at a place of a larger image with these colors."""
    large = Image.fromarray(np.uint8(255 * pixels)).resize((196, 196), Image.Resampling.BICUBIC)
    share = np.zeros((*size, 1))
    share[place[0] : place[0] + 196, place[1] : place[1] + 196, 0] = np.asarray(large) / 255
    return Image.fromarray(np.uint8(np.rint(paper + share * (np.array(ink) - paper))))


def drawn(digit, width, ink=(0, 0, 0), paper=(255, 255, 255)):
    image = Image.new("RGB", (420, 300), paper)
    points = [(90 + 2.2 * x, 30 + 2.2 * y) for x, y in STROKES[digit]]
    ImageDraw.Draw(image).line(points, fill=ink, width=width, joint="curve")
    return image.filter(ImageFilter.GaussianBlur(1))


@cache
def dataset(side):
    return {8: jaxnet.data.digits, 28: jaxnet.data.mnist}[side]()


def similarity(a, b):
    """Returns the correlation of two images, at the best of the shifts by one pixel that a rounded center can cause."""
    shifted = (np.roll(a, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    return max(np.corrcoef(image.ravel(), b.ravel())[0, 1] for image in shifted)


def read(image, path, side):
    image.save(path)
    return own_images.read_image(path, side)


@pytest.mark.slow
@NEEDS_MNIST
@pytest.mark.parametrize("colors", COLORS)
def test_mnist_digits_are_recovered_from_large_images(colors, tmp_path):
    rng = np.random.default_rng(0)
    for pixels in dataset(28).x_test[:8].reshape(-1, 28, 28):
        place = rng.integers(0, (104, 224))
        image = read(rendered(pixels, place, *COLORS[colors]), tmp_path / "x.png", 28)
        assert image.pixels.dtype == np.float32
        assert similarity(image.pixels, pixels) > 0.93
        assert ("dark on light: inverted" in image.changes) == (colors in ("dark on light", "blue on cream", "faint"))
        assert ("colors to grey" in image.changes) == (" on " in colors and colors.split()[0] in ("blue", "yellow"))
        assert colors != "faint" or any(change.startswith("contrast raised from 1") for change in image.changes)
        assert image.changes[-1].endswith("pixels scaled and centered in 28 by 28")


CASES = [(digit, 8) for digit in STROKES if digit != 1]  # few ones of the digits have a serif
CASES += [pytest.param(digit, 28, marks=[NEEDS_MNIST, pytest.mark.slow]) for digit in STROKES]


@pytest.mark.parametrize("width", [2, 14])
@pytest.mark.parametrize(("digit", "side"), CASES)
def test_the_nearest_training_images_of_a_drawn_digit_are_of_its_class(digit, width, side, tmp_path):
    data = dataset(side)
    x, t = data.x_train[:5000], data.t_train[:5000]
    image = read(drawn(digit, width), tmp_path / "x.png", side)
    assert ("thin strokes widened" in image.changes) == (width == 2)
    nearest = t[np.argsort(((x - image.pixels.ravel()) ** 2).sum(axis=1))[:5]]
    assert np.bincount(nearest).argmax() == digit


@pytest.mark.parametrize(("side", "levels"), [(8, 16), (28, 255)])
def test_an_image_of_the_trained_size_keeps_its_pixels(side, levels, tmp_path):
    pixels = np.zeros((side, side))
    pixels[1:4, 2] = np.array([0.25, 1, 0.5])
    image = read(Image.fromarray(np.uint8(255 * pixels)), tmp_path / "x.png", side)
    np.testing.assert_allclose(image.pixels, pixels, atol=1 / 255)
    assert image.changes == []
    inverted = read(Image.fromarray(255 - np.uint8(255 * pixels)), tmp_path / "x.png", side)
    np.testing.assert_allclose(inverted.pixels, pixels, atol=1 / 255)
    assert inverted.changes == ["dark on light: inverted"]


def test_uneven_light_and_noise_are_not_ink(tmp_path):
    image = np.asarray(drawn(7, 14), float)
    light = np.linspace(1, 0.6, 420)[None, :, None]
    noisy = image * light + np.random.default_rng(0).normal(0, 2, image.shape)
    clean = read(Image.fromarray(np.uint8(image)), tmp_path / "x.png", 28).pixels
    photo = read(Image.fromarray(np.uint8(np.clip(noisy, 0, 255))), tmp_path / "x.png", 28).pixels
    assert similarity(clean, photo) > 0.97


MODES = {
    "transparent": lambda image: Image.merge(
        "LA", (Image.new("L", image.size, 0), Image.eval(image.convert("L"), lambda v: 255 - v))
    ),
    "light and transparent": lambda image: Image.merge(
        "LA", (Image.new("L", image.size, 255), Image.eval(image.convert("L"), lambda v: 255 - v))
    ),
    "16 bits": lambda image: Image.fromarray(np.uint16(257 * np.asarray(image.convert("L"), np.uint32))),
    "a palette": lambda image: image.convert("L").convert("P"),
    "two colors": lambda image: image.convert("L").point(lambda v: 255 * (v > 127)).convert("1"),
    "larger": lambda image: image.resize((2100, 1500)),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_pixels(mode, tmp_path):
    image = drawn(5, 14)
    expected = read(image, tmp_path / "x.png", 28).pixels
    actual = read(MODES[mode](image), tmp_path / "y.png", 28)
    assert similarity(expected, actual.pixels) > 0.97
    assert ("transparent parts filled with white" in actual.changes) == (mode == "transparent")
    assert ("transparent parts filled with black" in actual.changes) == (mode == "light and transparent")


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.new("L", (50, 40), 255).save(tmp_path / "blank.png")
    drawn(1, 5).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:500])
    for name, message in {
        "text.png": "not an image, or of an unknown format; expected a file such as PNG",
        "half.png": "cannot be read as an image",
        "nowhere.png": "no such file", "blank.png": "nearly the same color", ".": "is a folder; name the images in it",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / name))}: .*{message}"):
            own_images.read_image(tmp_path / name, 28)
