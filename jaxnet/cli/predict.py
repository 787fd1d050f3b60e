"""Classify images of your own with a trained network, or let a trained transformer continue a text.

Images may have any size and color. They are brought into the form of the images that the network was trained on, and
what was changed is printed: dark ink on light paper is inverted, the digit is scaled and centered.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxnet
from jaxnet.cli.common_options import OptionalStr, Seed, Switch, computed_default
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_counts, check_positive
from jaxnet.data import DatasetError, text
from jaxnet.train import run_folder

ERRORS = (DatasetError,)
LIKELIEST = 3  # classes that are printed


@dataclass(frozen=True)
class Options:
    """Use a trained network."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of a finished run of jaxnet train."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, computed_default("[IMAGE ...]")] = ()
    """Images of one digit each, such as PNG or JPEG files."""
    text: OptionalStr = None
    """transformer: text to continue."""
    characters: int = 200
    """transformer: number of characters to write."""
    temperature: float = 0.8
    """transformer: temperature of the text. The lower, the more often the likely characters are chosen."""
    seed: Seed = 0
    json: Switch = False
    """Print the same as JSON."""


def main(options: Options) -> None:
    """Prints the likeliest classes of each image, or the continued text."""
    check_counts(characters=options.characters)
    check_positive("temperature", options.temperature)
    with progress_line(f"loading {options.folder}"):
        run = jaxnet.load(options.folder)
    if run.vocabulary:
        continue_text(run, options)
    else:
        classify(run, options)


def classify(run: jaxnet.TrainedRun, options: Options) -> None:
    """Prints the likeliest classes of each image, and what was changed in it."""
    if options.text is not None:
        raise ValueError(f"text: {options.folder} was trained on images; name images instead")
    if not options.images:
        raise ValueError("images: none, expected at least one image file after the folder")
    x, changes = run.read_images(*options.images)
    with progress_line(f"classifying {len(x)} image{'s'[: len(x) - 1]}"):
        probabilities = np.asarray(
            jax.nn.softmax(jaxnet.predict(run.net, run.params, run.state, jnp.asarray(x)), axis=1)
        )
    rows = []
    for path, changed, p in zip(options.images, changes, probabilities, strict=True):
        likeliest = [{"class": int(k), "probability": float(p[k])} for k in np.argsort(-p, kind="stable")[:LIKELIEST]]
        rows.append({"image": str(path), "classes": likeliest, "changes": changed})
    print(json.dumps(rows, indent=1) if options.json else "\n".join(map(line, rows)))


def line(row: dict[str, Any]) -> str:
    """Returns the line that is printed for an image."""
    classes = ", ".join(f"{k['class']} ({k['probability']:.1%})" for k in row["classes"])
    return f"{row['image']}: {classes}" + (f"  [{'; '.join(row['changes'])}]" if row["changes"] else "")


def continue_text(run: jaxnet.TrainedRun, options: Options) -> None:
    """Prints the text and what the transformer writes after it."""
    if options.images or not options.text:
        raise ValueError(f"text: {options.folder} was trained on a text; pass one to continue, with --text")
    context: Any = (run.summary.get("options") or {}).get("context")
    check_counts(**{f"{run.folder / run_folder.SUMMARY}: context": context})
    prompt = text.encode(options.text, run.vocabulary)[None]
    with progress_line(f"writing {options.characters:,} characters"):
        ids = jaxnet.sample(
            run.net, run.params, run.state, jax.random.key(options.seed), prompt, options.temperature,
            length=context, count=options.characters,
        )  # fmt: skip
        continuation = text.decode(np.asarray(ids)[0], run.vocabulary)
    print(
        json.dumps({"text": options.text, "continuation": continuation})
        if options.json
        else options.text + continuation
    )
