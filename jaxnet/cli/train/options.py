"""The options of `jaxnet train`, and their defaults for each network."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from jaxnet.cli.common_options import (
    OptionalFloat,
    OptionalInt,
    OptionalInts,
    OptionalPath,
    OptionalStr,
    Processes,
    ProcessIndex,
    Seed,
    Switch,
    ValidationShare,
    check_common,
    choice,
)
from jaxnet.common.validation import check_not_negative, check_positive
from jaxnet.data import DATASETS
from jaxnet.nn.layers import ACTIVATIONS
from jaxnet.train.matmul_layout import FORMS
from jaxnet.train.step import OPTIMIZERS, SCHEDULES

CLASSES = 10  # of the digits and of MNIST
HEADS = 4  # of the transformer's attention
LAUNCH = (
    "resume", "resume_anyway", "output", "checkpoint_seconds", "tensorboard", "max_data_bytes", "devices",
    "model_devices", "coordinator", "processes", "process",
)  # fmt: skip
"""Options that say where and how a run is executed. They do not affect its results and are not recorded."""

COMMON: dict[str, Any] = {
    "optimizer": "adam", "learning_rate": None, "schedule": "constant", "clip_norm": None, "weight_decay": 0.0,
    "init_std": "he", "batch_size": 100, "eval_every": 100, "seed": 0, "validation": 0.0,
    "form": None,
}  # fmt: skip
IMAGES: dict[str, Any] = COMMON | {"dataset": "digits"}
AFFINE: dict[str, Any] = IMAGES | {"activation": "relu", "batch_norm": False, "dropout": 0.0}
CONVOLUTIONAL: dict[str, Any] = IMAGES | {
    "schedule": "cosine", "eval_every": 500, "steps": {"digits": 1_000, "mnist": 4_000}
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {  # a network has the options that are listed here, and those of LAUNCH
    "two-layer": AFFINE
    | {"hidden": (50,), "init_std": "0.1", "optimizer": "sgd", "steps": {"digits": 2_000, "mnist": 10_000}},
    "deep": AFFINE | {"hidden": (100,) * 5, "steps": {"digits": 2_000, "mnist": 6_000}},
    "simple-conv": CONVOLUTIONAL | {"weight_decay": 1e-4},
    "deep-conv": CONVOLUTIONAL | {"dropout": 0.5},
    "transformer": COMMON
    | {"text": None, "context": 64, "width": 64, "blocks": 2, "dropout": 0.3, "temperature": 0.8, "steps": 500}
    | {"optimizer": "adamw", "learning_rate": 0.003, "schedule": "cosine", "init_std": "xavier", "batch_size": 32},
}
CHOICES: dict[str, Iterable[str]] = {
    "network": DEFAULTS, "dataset": DATASETS, "activation": ACTIVATIONS, "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES, "form": FORMS,
}  # fmt: skip
DATASET_HELP = (
    "digits: 8 by 8 pixels, included in scikit-learn. mnist: 28 by 28 pixels, downloaded once, or read from the folder "
    "$JAXNET_DATA/mnist. Defaults to digits."
)
DatasetName = Annotated[str, choice(DATASETS, DATASET_HELP)]
OptimizerName = Annotated[str, choice(OPTIMIZERS)]


@dataclass(frozen=True)
class Options:
    """Train a network whose gradients have been cross-checked."""

    network: Annotated[str, choice(DEFAULTS)] = "two-layer"
    """two-layer, deep: affine layers. simple-conv, deep-conv: convolutional, as in chapters 7 and 8 of
    Deep Learning from Scratch. transformer: predicts the next character of a text. Defaults to two-layer."""
    dataset: Annotated[str | None, choice(DATASETS, DATASET_HELP)] = None
    text: OptionalPath = None
    """transformer: UTF-8 file to learn from. Defaults to the descriptions of scikit-learn's data sets."""
    hidden: OptionalInts = None
    """two-layer, deep: units of each hidden layer. Defaults to 50 for two-layer, to 100 100 100 100 100 for deep."""
    activation: Annotated[str | None, choice(ACTIVATIONS)] = None
    """two-layer, deep: activation after each hidden layer. Defaults to relu."""
    batch_norm: Switch = False
    """two-layer, deep: put a BatchNorm before each activation."""
    dropout: OptionalFloat = None
    """Dropout rate, not for simple-conv. Defaults to 0.5 for deep-conv, 0.3 for transformer, otherwise 0."""
    context: OptionalInt = None
    """transformer: number of characters that a prediction depends on. Defaults to 64."""
    width: OptionalInt = None
    """transformer: size of the embeddings, a multiple of 4, because there are 4 attention heads. Defaults to 64."""
    blocks: OptionalInt = None
    """transformer: number of blocks, each with attention and an MLP. Defaults to 2."""
    temperature: OptionalFloat = None
    """transformer: temperature of the text that is sampled after training. Defaults to 0.8."""
    init_std: OptionalStr = None
    """Standard deviation of the initial weights: a number, or one of the rules he and xavier. Defaults to 0.1 for
    two-layer, to xavier for transformer, otherwise to he."""
    optimizer: Annotated[str | None, choice(OPTIMIZERS)] = None
    """Optimizer from optax. Defaults to sgd for two-layer, adamw for transformer, otherwise adam."""
    learning_rate: OptionalFloat = None
    """Learning rate. Defaults to 0.003 for transformer, otherwise to the optimizer's, such as 0.1 for sgd."""
    schedule: Annotated[str | None, choice(SCHEDULES)] = None
    """cosine lowers the learning rate to 0 until the last step. Defaults to constant for two-layer and deep, otherwise
    to cosine."""
    clip_norm: OptionalFloat = None
    """Largest norm of the gradient, of all arrays together: a larger one is scaled down. Defaults to no limit."""
    weight_decay: OptionalFloat = None
    """Strength λ of the term λ/2 Σ W² in the loss. Defaults to 1e-4 for simple-conv, otherwise 0."""
    batch_size: OptionalInt = None
    """Samples per step, drawn with replacement. Defaults to 32 for transformer, otherwise 100."""
    steps: OptionalInt = None
    """Training steps. Defaults to 2,000 for two-layer and deep, 1,000 for simple-conv and deep-conv, 500 for
    transformer; on mnist to 10,000 for two-layer, 6,000 for deep, 4,000 for the others."""
    eval_every: OptionalInt = None
    """Steps between evaluations. Defaults to 500 for simple-conv and deep-conv, otherwise 100."""
    validation: ValidationShare = 0.0
    form: Annotated[str | None, choice(FORMS)] = None
    """Form of the matrix products, such as the layout of weights; the results differ by rounding. Defaults to the usual
    one, or in a run of over 20 s to the one that is measured to be the fastest."""
    seed: Seed = 0
    output: OptionalPath = None
    """New folder for the results. Defaults to runs/DATASET-TIME."""
    resume: OptionalPath = None
    """Folder of an unfinished run, which continues from its last checkpoint with the options it was started with."""
    resume_anyway: Switch = False
    """Continue it even where cores, processor, devices, settings or versions differ, and so the bits of the results."""
    checkpoint_seconds: float = 10.0
    """Seconds between checkpoints; 0 saves as often as possible."""
    tensorboard: Switch = False
    """Also write an event file, which `tensorboard --logdir runs` shows. A resumed run continues the one it has."""
    max_data_bytes: OptionalInt = None
    """Bytes of samples that the devices may hold; a thread reads more as steps need them. Defaults to no limit."""
    devices: OptionalInt = None
    """Number of devices that share the data and each batch; a CPU simulates them. Defaults to one."""
    model_devices: int = 1
    """Number of them that share the same rows, each with a part of every large weight. Must divide their number."""
    coordinator: OptionalStr = None
    """HOST:PORT on which process 0 of several listens. Start this command once for each process, with its number as
    --process. Process 0 alone prints and writes."""
    processes: Processes = 1
    process: ProcessIndex = 0


def resolve(options: Options) -> SimpleNamespace:
    """Returns the options that apply to the network, with the defaults of those that are not set.

    Raises:
        ValueError: If an option does not apply to the network or is out of range.
    """
    defaults, values, changed = DEFAULTS[options.network], vars(options), changed_options(options)
    for name in changed:
        if name not in (*defaults, "network"):
            networks = ", ".join(network for network in DEFAULTS if name in DEFAULTS[network])
            raise ValueError(f"{name}: an option of {networks}, not of {options.network}")
    resolved = SimpleNamespace(**{name: values[name] for name in ("network", *LAUNCH)} | defaults | changed)
    if isinstance(resolved.steps, dict):
        resolved.steps = resolved.steps[resolved.dataset]
    if resolved.learning_rate is None:
        resolved.learning_rate = OPTIMIZERS[resolved.optimizer].learning_rate
    resolved.init_std = parse_init_std(resolved.init_std)
    check_ranges(resolved)
    return resolved


def changed_options(options: Options) -> dict[str, Any]:
    """Returns the options that affect results and do not have their default."""
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in LAUNCH}
    return {name: value for name, value in values.items() if value != getattr(Options(), name)}


def command_line(options: dict[str, Any]) -> str:
    """Returns the options of a run as they are written on the command line, without those that have their defaults.

    Args:
        options: The resolved options, such as those in summary.json. Names of other versions are left out.

    Examples:
        >>> command_line({"network": "deep", "hidden": [9, 8], "batch_norm": True, "optimizer": "adam", "steps": 50})
        '--network deep --hidden 9 8 --batch-norm --steps 50'
    """
    chosen = {name: options[name] for name in ("network", "dataset", "optimizer") if options.get(name) is not None}
    try:  # those of the learning rate and the steps depend on the three
        defaults = vars(resolve(Options(**chosen))) | {"network": Options().network, "dataset": "digits"}
        defaults["optimizer"] = DEFAULTS[chosen["network"]]["optimizer"]
    except (KeyError, TypeError, ValueError):  # a record of another version
        return "the options in its folder"
    parts: list[str] = []
    for name, value in options.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        default = defaults.get(name, value)
        if value is not None and values != (list(default) if isinstance(default, list | tuple) else [default]):
            parts += [f"--{name.replace('_', '-')}", *([] if value is True else map(str, values))]
    return shlex.join(parts)


def from_record(recorded: dict[str, Any], launch: dict[str, Any]) -> SimpleNamespace:
    """Returns the options that an unfinished run recorded in its options.json, and the new launch options.

    Raises:
        ValueError: If a recorded option is missing, unknown, or has another type.
    """
    hints = get_type_hints(Options) | {"init_std": float | str}
    defaults = DEFAULTS.get(str(recorded.get("network")), {}) | {"network": ""}
    for name in ["network", *sorted(defaults | recorded)]:
        value = recorded.get(name)
        valid = name in recorded and name in defaults and has_type(value, hints[name])
        valid = valid and (value is None or value in CHOICES.get(name, [value]))
        if not valid or (value is None and defaults[name] is not None):
            state = repr(value) if name in recorded else "missing"
            raise ValueError(f"resume: options.json is damaged: {name} is {state}; start another run")
    resolved = SimpleNamespace(**recorded | launch)
    if recorded.get("text") is not None:
        resolved.text = Path(resolved.text)
    check_ranges(resolved)
    return resolved


def has_type(value: Any, hint: Any) -> bool:
    """Returns whether a value read from JSON was written from a value of this type."""
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(has_type(element, get_args(hint)[0]) for element in value)
    if get_args(hint):
        return any(has_type(value, member) for member in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, {float: int | float, Path: str}.get(hint, hint))


def check_ranges(options: SimpleNamespace) -> None:
    """Raises ValueError if a value that no library would refuse under the name of its option is out of range."""
    check_common(options)
    check_not_negative("checkpoint_seconds", options.checkpoint_seconds)
    values = vars(options)
    if values.get("width", HEADS) % HEADS:
        raise ValueError(f"width: {options.width}, expected a multiple of {HEADS}, the number of attention heads")
    if not 0 <= values.get("dropout", 0) < 1:
        raise ValueError(f"dropout: {options.dropout}, expected a probability in [0, 1)")
    check_positive("temperature", values.get("temperature", 1))


def parse_init_std(text: str) -> float | str:
    """Returns a number or the name of a rule. Raises ValueError if the text is neither."""
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"init_std: {text!r}, expected a number, he or xavier") from None
