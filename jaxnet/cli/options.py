"""The options of `jaxnet train`, and their defaults for each network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from jaxnet.cli.option_types import File, Number, Whole, Wholes, Word, check_seed, usual
from jaxnet.train.step import OPTIMIZERS
from jaxnet.validation import check_counts

HEADS = 4  # of the transformer's attention


@dataclass(frozen=True)
class Options:
    """Train a network whose gradients have been cross-checked."""

    network: Literal["two-layer", "deep", "simple-conv", "deep-conv", "transformer"] = "two-layer"
    """two-layer, deep: affine layers, of chapters 5 and 6. simple-conv, deep-conv: of chapters 7 and 8.
    transformer: it reads characters and says the next."""
    dataset: Annotated[Literal["digits", "mnist"] | None, usual("{digits,mnist}")] = None
    """digits, unless given: 8 by 8 pixels, embedded. mnist: 28 by 28, fetched once (or taken from $JAXNET_DATA/mnist).
    """
    text: File = None
    """transformer: what it learns to write, UTF-8; this project's README unless given."""
    hidden: Wholes = None
    """two-layer, deep: units of the hidden layers, first to last; 50, or five times 100, unless given."""
    activation: Annotated[Literal["relu", "sigmoid", "tanh", "gelu"] | None, usual("{relu,sigmoid,tanh,gelu}")] = None
    """two-layer, deep: between two affine layers; relu unless given."""
    batch_norm: bool = False
    """two-layer, deep: normalize what goes into each activation."""
    dropout: Number = None
    """Share of the units that each step drops: 0 unless given, 0.5 for deep-conv, 0.3 for transformer."""
    context: Whole = None
    """transformer: characters that it looks back on; 64 unless given."""
    width: Whole = None
    """transformer: numbers that stand for a character, 4 heads in all; 64 unless given."""
    blocks: Whole = None
    """transformer: of attention and a hidden layer; 2 unless given."""
    temperature: Number = None
    """transformer: of the text it writes at the end; below 1 the likely becomes likelier. 0.8 unless given."""
    init_std: Word = None
    """Standard deviation of the initial weights: a number, he or xavier.
    0.1 for two-layer, xavier for transformer, he for the others, unless given."""
    optimizer: Annotated[
        Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] | None,
        usual("{sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw}"),
    ] = None
    """From optax; sgd for two-layer, adamw for transformer, adam for the others, unless given."""
    learning_rate: Number = None
    """The optimizer's usual one unless given, 0.1 for sgd; 0.003 for transformer."""
    schedule: Annotated[Literal["constant", "cosine"] | None, usual("{constant,cosine}")] = None
    """cosine: the learning rate falls to 0 along half a wave. constant for two-layer and deep, cosine for the others,
    unless given."""
    clip_norm: Number = None
    """Scale a gradient whose norm over all leaves is larger down to this."""
    weight_decay: Number = None
    """Strength λ of weight decay, λ/2 Σ W² in the loss: 0 unless given, 1e-4 for simple-conv."""
    batch_size: Whole = None
    """Samples a step, drawn with replacement; 100, or 32 for transformer, unless given."""
    steps: Whole = None
    """2,000 for two-layer on digits and 10,000 on mnist; 500 to 6,000 for the others, unless given."""
    eval_every: Whole = None
    """Steps between two evaluations of all training and test samples; 100 for two-layer, unless given."""
    seed: int = 0
    """The same seed gives the same bits."""
    output: File = None
    """A new folder; runs/DATASET-TIME unless given."""
    resume: File = None
    """The folder of a run that did not come to its end, to go on from its last checkpoint; the options are its own."""
    checkpoint_seconds: float = 10.0
    """Between two checkpoints; 0: as often as possible."""
    devices: Whole = None
    """Share the data and every batch out over so many devices; on a CPU they are simulated."""
    coordinator: Word = None
    """HOST:PORT where process 0 of several listens; start the same command once for each --process."""
    processes: int = 1
    """That train together, on one machine or on several, with one file system for --output."""
    process: int = 0
    """Which of them this is, from 0; the first one prints and writes."""


WHERE = ("resume", "output", "checkpoint_seconds", "devices", "coordinator", "processes", "process")
"""What changes no bit of what is trained, on one device: how and where it is run. Not among what a run is made of."""

COMMON: dict[str, Any] = {
    "clip_norm": None,
    "learning_rate": None,
    "batch_size": 100,
    "eval_every": 100,
    "seed": 0,
    "output": None,
    "resume": None,
    "checkpoint_seconds": 10.0,
    "devices": None,
    "coordinator": None,
    "processes": 1,
    "process": 0,
    "optimizer": "adam",
    "schedule": "constant",
    "init_std": "he",
    "weight_decay": 0.0,
}
IMAGES: dict[str, Any] = COMMON | {"dataset": "digits"}
AFFINE: dict[str, Any] = IMAGES | {"activation": "relu", "batch_norm": False, "dropout": 0.0}
USUAL: dict[str, dict[str, Any]] = {  # an option that is not named here is not one of the network
    "two-layer": AFFINE | {"hidden": (50,), "init_std": "0.1", "optimizer": "sgd"},
    "deep": AFFINE | {"hidden": (100,) * 5},
    "simple-conv": IMAGES | {"schedule": "cosine", "weight_decay": 1e-4, "eval_every": 500},
    "deep-conv": IMAGES | {"schedule": "cosine", "dropout": 0.5, "eval_every": 500},
    "transformer": COMMON
    | {"text": None, "context": 64, "width": 64, "blocks": 2, "dropout": 0.3, "temperature": 0.8}
    | {"optimizer": "adamw", "learning_rate": 0.003, "schedule": "cosine", "init_std": "xavier", "batch_size": 32}
    | {"steps": 500, "eval_every": 100},
}
STEPS = {
    "digits": {"two-layer": 2_000, "deep": 2_000, "simple-conv": 1_000, "deep-conv": 1_000},
    "mnist": {"two-layer": 10_000, "deep": 6_000, "simple-conv": 4_000, "deep-conv": 4_000},
}


def settled(options: Options) -> SimpleNamespace:
    """All that the network takes, its usual values where nothing was given.

    Raises:
        ValueError: An option is not one of this network, or is out of range.
    """
    usual = USUAL[options.network]
    given = {field.name: value for field in fields(options) if (value := getattr(options, field.name)) != field.default}
    for name in given.keys() - usual.keys() - {"network", "steps"}:
        others = ", ".join(network for network in USUAL if name in USUAL[network])
        raise ValueError(f"{name}: an option of {others}, not of {options.network}")
    now = SimpleNamespace(**({"network": options.network} | usual | given))
    if not hasattr(now, "steps"):
        now.steps = STEPS[now.dataset][now.network]
    if now.learning_rate is None:
        now.learning_rate = OPTIMIZERS[now.optimizer].learning_rate
    now.init_std = parse_init_std(now.init_std)
    check_ranges(now)
    return now


def begun_with(told: dict[str, Any], where: dict[str, Any]) -> SimpleNamespace:
    """The options of a run that goes on, as it wrote them down; how and where it is run may be another way.

    Raises:
        ValueError: They are not what it wrote.
    """
    network, hints = told.get("network"), get_type_hints(Options) | {"init_std": float | str}
    if not _of_type(network, hints["network"]):
        raise ValueError(
            f"resume: its options.json is not as it was written: network is {network!r}; begin another run"
        )
    usual = USUAL[str(network)]
    wanted = (usual.keys() | {"network", "steps"}) - {*WHERE}
    for name in sorted(wanted | told.keys()):
        value = told.get(name)
        known = name in told and name in wanted and _of_type(value, hints[name])
        if not known or (value is None and usual.get(name, "") is not None):
            found = repr(value) if name in told else "missing"
            raise ValueError(f"resume: its options.json is not as it was written: {name} is {found}; begin another run")
    now = SimpleNamespace(**told | where)
    if getattr(now, "text", None) is not None:
        now.text = Path(now.text)
    check_ranges(now)
    return now


def _of_type(value: Any, hint: Any) -> bool:
    """Whether JSON has kept a value of such a type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_of_type(part, get_args(hint)[0]) for part in value)
    if get_args(hint):
        return any(_of_type(value, one) for one in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, {float: int | float, Path: str}.get(hint, hint))


def check_ranges(now: SimpleNamespace) -> None:
    """What no library would refuse by the option's own name.

    Raises:
        ValueError: An option is out of range.
    """
    check_seed(now.seed)
    check_hidden(getattr(now, "hidden", ()))
    check_counts(**{name: vars(now)[name] for name in ("context", "width", "blocks") if name in vars(now)})
    if getattr(now, "width", HEADS) % HEADS:
        raise ValueError(f"width: {now.width}, expected a multiple of {HEADS}, the number of attention heads")
    if not 0 <= getattr(now, "dropout", 0) < 1:
        raise ValueError(f"dropout: {now.dropout}, expected a share in [0, 1)")
    if not 0 < getattr(now, "temperature", 1) < math.inf:
        raise ValueError(f"temperature: {now.temperature}, expected a finite number > 0")


def check_hidden(sizes: Sequence[int]) -> None:
    """Units of hidden layers.

    Raises:
        ValueError: A layer has none.
    """
    for size in sizes:
        check_counts(hidden=size)


def parse_init_std(text: str) -> float | str:
    """A number, or the name of a rule.

    Raises:
        ValueError: It is neither.
    """
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"init_std: {text!r}, expected a number, he or xavier") from None
