"""Loads the network of a finished training run from its folder."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxnet.common.outline import number_count
from jaxnet.data import own_images
from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.train import run_folder


class TrainedRun(NamedTuple):
    """A trained network, and what its folder says about it."""

    net: Layer
    params: Params
    state: Tree  # the running statistics of BatchNorm; empty for most networks
    vocabulary: str  # the characters that the ids of a text stand for; empty for images
    summary: dict[str, Any]  # the content of summary.json
    folder: Path

    def __repr__(self) -> str:
        """Returns the network, its accuracies and the names of the fields."""
        name, data = self.summary.get("network", "a network"), self.summary.get("dataset", "unknown data")
        figures = [f"{steps:,} steps"] if (steps := self.summary.get("steps")) is not None else []
        for part in ("train", "validation", "test"):
            if (accuracy := self.summary.get(f"{part}_accuracy")) is not None:
                figures.append(f"{part} accuracy {accuracy:.2%}")
        return (
            f"TrainedRun in {self.folder}: {name} on {data}, {number_count(self.params):,} parameters\n"
            f"  {', '.join(figures) or 'no figures'}\n  fields: {', '.join(self._fields)}"
        )

    def read_images(self, *images: Any) -> tuple[Float32[np.ndarray, "N ..."], list[list[str]]]:
        """Reads images of one digit each, and brings them into the form that the network was trained on.

        Args:
            images: Files that Pillow can read, Pillow images, or arrays of bytes (H, W) or (H, W, 3), of any size and
                color, at least one.

        Returns:
            The samples in [0, 1], of the shape that the network takes, and what was changed in each image.

        Raises:
            DatasetError: If Pillow is not installed.
            ValueError: If the network was not trained on images, or a file is not a readable image or is blank.

        Examples:
            >>> x, changes = run.read_images("seven.png")  # doctest: +SKIP
            >>> jaxnet.predict(run.net, run.params, run.state, x).argmax(axis=1)  # doctest: +SKIP
            Array([7], dtype=int32)
        """
        data = self.summary.get("dataset")
        if data not in own_images.SIDES:
            raise ValueError(f"{self.folder}: trained on {data!r}, expected one of {', '.join(own_images.SIDES)}")
        if not images:
            raise ValueError("images: none, expected at least one image or file")
        side = own_images.SIDES[data]
        adapted = [own_images.read_image(image, side) for image in images]
        first = next(iter(self.net.layers.values()), self.net)
        shape = (1, side, side) if first.description[0] == "Convolution" else (side * side,)
        x = np.stack([image.pixels for image in adapted]).reshape(-1, *shape).astype(np.float32)
        return x, [image.changes for image in adapted]


def load(folder: str | os.PathLike[str]) -> TrainedRun:
    """Loads the network, parameters and state that `jaxnet train` wrote.

    The files are JSON and arrays: reading them executes nothing.

    Args:
        folder: The folder of a finished run.

    Raises:
        ValueError: If it is no folder of a finished run, a file is damaged or missing, the run diverged, or a newer
            version wrote it.

    Example:
        >>> import tempfile
        >>> net, folder = jaxnet.two_layer_net(64, 50, 10), Path(tempfile.mkdtemp())  # in place of a trained one's
        >>> state = jaxnet.initial_state(net, net.init(jax.random.key(0), 0.1))
        >>> run_folder.write_network(folder / "network.json", net)
        >>> run_folder.write_parameters(folder / "parameters.npz", state)
        >>> run_folder.write_summary(folder / "summary.json", {"dataset": "digits"})
        >>> run = jaxnet.load(folder)
        >>> jaxnet.predict(run.net, run.params, run.state, jaxnet.data.digits().x_test).shape
        (355, 10)
    """
    folder = Path(folder)
    summary = read_summary(folder)
    if summary.get("diverged"):
        raise ValueError(f"{folder}: this run diverged and has no parameters ({summary['diverged']}); train again")
    net = run_folder.read_network(folder / run_folder.NETWORK)
    params, state, _, _ = run_folder.read_parameters(folder / run_folder.PARAMETERS, net)
    vocabulary = run_folder.read_arrays(folder / run_folder.PARAMETERS).get("vocabulary", "")
    return TrainedRun(net, params, state, str(vocabulary), summary, folder)


def read_summary(folder: Path) -> dict[str, Any]:
    """Reads the summary of a finished run.

    Raises:
        ValueError: If the folder is not one of a finished run.
    """
    if not (folder / run_folder.SUMMARY).exists():
        if (folder / run_folder.OPTIONS).exists():
            raise ValueError(f"{folder}: this run is not finished; continue it with jaxnet train --resume {folder}")
        reason = f"it has no {run_folder.SUMMARY}" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"{folder}: not the folder of a run ({reason}); name one that jaxnet train wrote")
    return run_folder.read_summary(folder / run_folder.SUMMARY)
