"""Brings images of digits, of any size and color, into the form of the training images.

Ink is a number in [0, 1], 0 on the paper. SciPy, which JAX requires, measures and moves it; Pillow, which comes with
matplotlib in the extra `train`, reads the files.

References:
    Y. LeCun, C. Cortes and C. J. C. Burges, *The MNIST database of handwritten digits*, 1998: a digit is scaled to fit
    in 20 by 20 pixels with its aspect ratio, and moved until its center of mass is the center of 28 by 28 pixels.
    E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998: the bitmaps of 32 by 32 pixels
    that NIST's preprocessing makes, with the pixels that are set counted in blocks of 4 by 4.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from jaxnet.common.regular_files import open_regular
from jaxnet.data.datasets import needs_extra

SIDES = {"digits": 8, "mnist": 28}
LARGEST = 400  # pixels of the longer side; larger images are reduced to it
MIN_CONTRAST = 0.1  # between ink and paper, of the whole range of brightness
NOISE = 3.0  # in units of the median difference between paper and border: below it, a difference is no ink
THIN, WIDENED = 0.05, 0.1  # of the longer side of a digit: strokes below the first are widened to the second
DIGITS_INK = 312  # black pixels of a bitmap of 32 by 32; the mean of the digits is 19.5 blocks of 16
Ink = Float[np.ndarray, "H W"]
Colors = Float[np.ndarray, "H W 3"]


class AdaptedImage(NamedTuple):
    """An image in the form of the training images, and what was changed for it."""

    pixels: Float[np.ndarray, "S S"]  # in [0, 1], ink is 1
    changes: list[str]


def read_image(image: Any, side: int) -> AdaptedImage:
    """Reads an image of a single digit, and brings it into the form of the training images.

    Args:
        image: The path of a file that Pillow can read, or a Pillow image, or an array of bytes, (H, W) or (H, W, 3).
        side: 28 for MNIST, 8 for the digits of scikit-learn. An image of this size is not scaled or moved.

    Raises:
        DatasetError: If Pillow is not installed.
        ValueError: If it is not a readable image, or is blank.
    """
    with needs_extra("reading images"):
        from PIL import Image
    if isinstance(image, str | os.PathLike):
        colors, changes = _read_file(Path(image))
        return adapt(colors, side, changes, str(image))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"images: {_kind(image)}, expected paths, Pillow images, or arrays of bytes (H, W) or (H, W, 3), "
            "one after another"
        )
    colors, changes = _colors(image, [])
    return adapt(colors, side, changes)


def _kind(image: Any) -> str:
    """Returns the type of what is no image, for arrays with dtype and shape."""
    if isinstance(image, np.ndarray):
        return f"an array of {image.dtype} of shape {image.shape}"
    return f"a {type(image).__name__}"


def adapt(colors: Colors, side: int, changes: list[str] | None = None, name: str = "image") -> AdaptedImage:
    """Brings an image into the form of the training images, as `read_image` does.

    Raises:
        ValueError: If all colors are alike.
    """
    ink, dark = _ink(colors, name)
    changes = [*(changes or []), *(["dark on light: inverted"] if dark else [])]
    if ink.shape == (side, side):
        return AdaptedImage(ink, changes)
    contrast = float(np.median(ink[ink > ink.max() / 2]))
    if contrast < 0.9:
        changes.append(f"contrast raised from {contrast:.0%}")
    ink, widened = _widened(_cropped(np.clip(ink / contrast, 0, 1)))
    height, width = ink.shape
    if widened:
        changes.append("thin strokes widened")
    pixels = _as_digits(ink) if side == SIDES["digits"] else _as_mnist(ink, side)
    changes.append(f"ink of {width} by {height} pixels scaled and centered in {side} by {side}")
    return AdaptedImage(pixels.astype(np.float32), changes)


def _read_file(path: Path) -> tuple[Colors, list[str]]:
    """Returns the colors of the first image in a file, and what was changed."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name the images in it, such as {path / '*.png'}")
    try:
        with open_regular(path) as opened, Image.open(opened) as file:
            frames = getattr(file, "n_frames", 1)
            changes = [f"the first of {frames} frames"] if frames > 1 else []
            return _colors(ImageOps.exif_transpose(file), changes)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; name an image") from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{path}: not an image, or of an unknown format; expected a file such as PNG or JPEG"
        ) from None
    except Exception as error:  # damaged images raise errors of many kinds
        raise ValueError(f"{path}: cannot be read as an image ({error}); convert it to PNG") from error


def _colors(image: Any, changes: list[str]) -> tuple[Colors, list[str]]:
    """Returns the colors of a Pillow image in [0, 1], with transparent parts as paper, and what was changed."""
    from PIL import Image

    deep = image.mode.startswith(("I", "F"))  # 16 or 32 bits; Pillow would cut them off at 255
    image = image.convert("F" if deep else "RGBA")
    if max(image.size) > LARGEST:
        changes.append(f"{image.width} by {image.height} pixels reduced")
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    if deep:
        values = np.asarray(image, float)
        low, high = values.min(), values.max()
        return np.repeat(((values - low) / (high - low or 1))[..., None], 3, axis=2), changes
    rgba = np.asarray(image, float) / 255
    colors, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() < 1:
        light_ink = (alpha * colors).sum() > 0.5 * 3 * alpha.sum()
        colors = alpha * colors + (1 - alpha) * (0.0 if light_ink else 1.0)
        changes.append(f"transparent parts filled with {'black' if light_ink else 'white'}")
    if np.ptp(colors, axis=2).max() > 0.02:
        changes.append("colors to grey")
    return colors, changes


def _ink(colors: Colors, name: str) -> tuple[Ink, bool]:
    """Returns the distance of each color from that of the paper, and whether the ink is darker than the paper.

    A blurred edge mixes the two colors, so the distance is proportional to the ink, whatever the colors are.
    """
    paper = _paper(colors)
    distance = np.sqrt(np.mean((colors - paper) ** 2, axis=2))
    distance = np.where(distance > NOISE * np.median(_border(distance)), distance, 0)
    inked = distance > distance.max() / 2
    if distance.max() < MIN_CONTRAST:
        raise ValueError(f"{name}: all its pixels have nearly the same color; name an image of a digit")
    return np.clip(distance, 0, 1).astype(np.float32), bool(np.mean((colors - paper)[inked]) < 0)


def _paper(colors: Colors) -> Colors:
    """Returns the color of the paper everywhere: a linear function, fitted to those pixels at the border that lack ink.

    It follows light that comes from one side.
    """
    border = _border(colors)
    median = np.median(border, axis=0)
    clear = np.abs(border - median).max(axis=1) < 0.25
    if min(colors.shape[:2]) <= max(SIDES.values()) or clear.sum() < 10:  # few pixels, many of which may be inked
        return np.broadcast_to(median, colors.shape)
    rows, columns = np.indices(colors.shape[:2]) / max(colors.shape)
    basis = np.stack([np.ones_like(rows), rows, columns], axis=2)
    plane, *_ = np.linalg.lstsq(_border(basis)[clear], border[clear], rcond=None)
    return basis @ plane


def _border(array: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels, (K, ...)."""
    return np.concatenate([array[0], array[-1], array[1:-1, 0], array[1:-1, -1]])


def _cropped(ink: Ink) -> Ink:
    """Returns the smallest part of an image that has all its ink, without specks."""
    labels, count = ndimage.label(ink > 0.3, np.ones((3, 3)))
    sizes = ndimage.sum_labels(ink > 0.3, labels, range(1, count + 1))
    mask: Bool[np.ndarray, "H W"] = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.02 * sizes.sum()))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(ink: Ink, height: int, width: int) -> Ink:
    """Returns the image in another size, each pixel the mean of those that it covers."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.float32(ink)).resize((width, height), Image.Resampling.BOX))


def _as_mnist(ink: Ink, side: int) -> Ink:
    """Scales ink to fit in 20 by 20 pixels, and moves its center of mass to the center, as MNIST did."""
    box = side - 8
    height, width = (max(1, round(size * box / max(ink.shape))) for size in ink.shape)
    scaled = _scaled(ink, height, width)
    center = ndimage.center_of_mass(scaled)
    top, left = (
        int(np.clip(round(side / 2 - c), 0, side - size)) for c, size in zip(center, (height, width), strict=True)
    )
    pixels = np.zeros((side, side))
    pixels[top : top + height, left : left + width] = scaled
    return pixels


def _as_digits(ink: Ink) -> Ink:
    """Scales ink to 32 by 20 pixels in a bitmap of 32 by 32, and counts the black pixels of its blocks of 4 by 4.

    The slant is removed, and as many pixels are black as in the digits on average: theirs vary little.
    """
    bitmap = np.zeros((32, 32))
    bitmap[:, 6:26] = _scaled(_upright(ink), 32, 20)
    smooth = ndimage.gaussian_filter(bitmap, 1)
    bitmap = smooth >= np.sort(smooth, axis=None)[-DIGITS_INK]
    return bitmap.reshape(8, 4, 8, 4).mean(axis=(1, 3))


def _upright(ink: Ink) -> Ink:
    """Shears an image until rows and columns of its ink are uncorrelated."""
    rows, columns = np.indices(ink.shape)
    center = ndimage.center_of_mass(ink)
    rows, columns = rows - center[0], columns - center[1]
    slope = (rows * columns * ink).sum() / max((rows**2 * ink).sum(), 1e-9)
    margin = int(np.ceil(abs(slope) * len(ink)))
    ink = np.pad(ink, ((0, 0), (margin, margin)))
    return _cropped(ndimage.affine_transform(ink, [[1, 0], [slope, 1]], offset=(0, -slope * center[0]), order=1))


def _widened(ink: Ink) -> tuple[Ink, bool]:
    """Returns ink with strokes as wide as those of the training images if they are thin, and whether they were."""
    mask = ink > 0.5
    width = 4 * ndimage.distance_transform_edt(np.pad(mask, 1)).sum() / mask.sum()  # its mean over a strip is width/4
    if width >= THIN * max(ink.shape):
        return ink, False
    missing = (WIDENED * max(ink.shape) - width) / 2
    margin = int(np.ceil(missing)) + 1
    mask = np.pad(mask, margin)
    return _cropped(np.clip(missing + 1 - ndimage.distance_transform_edt(~mask), 0, 1)), True
