"""Parses the arguments of a command by tyro, whose errors of several lines become one."""

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from itertools import chain
from typing import Any, get_args, get_type_hints

import tyro

from jaxnet.crosscheck.inspect.errors import did_you_mean

RULE = re.compile(r"[-─╰╯│ ]{5,}")  # of a box in Unicode, or of indented ASCII where stderr takes no more
VALUE_ERROR = re.compile(
    r"Error parsing (--[\w-]+): .*(?:(?:instantiated from|for arguments:) \[(.*?)\]|(?:base 10|to float): (.*?)$)"
)
KINDS = {"INT": "a whole number", "FLOAT": "a number"}
OPTION = re.compile(r"--[^\W\d].*|-[^\W\d]{1,2}")  # unlike the numbers -3 and -inf
HELP = ("--help", "-h")
OTHER_NAMES = {  # the option, in the singular: its names in other programs
    "activation": "act nonlinearity",
    "batch-size": "batch batchsize bs b minibatch",
    "characters": "length max-tokens tokens n",
    "checkpoint-seconds": "save-every checkpoint-every",
    "clip-norm": "clip max-norm grad-clip gradient-clip",
    "dataset": "data d",
    "device": "gpu num-devices n-devices",
    "eval-every": "interval log-every eval-interval",
    "gradient": "grad jac",
    "hidden": "hidden-size hidden-units hidden-dim units layers layer-sizes",
    "init": "args params constructor",
    "init-std": "std sigma init-scale weight-init-std",
    "inputs": "input x shapes",
    "learning-rate": "lr rate eta alpha step-size",
    "network": "net model arch architecture m",
    "optimizer": "opt optim",
    "output": "out o folder dir output-dir out-dir save save-dir log-dir",
    "plot": "figure fig png picture",
    "resume": "continue restart checkpoint r",
    "schedule": "scheduler lr-schedule decay",
    "seed": "random-seed rng random-state s",
    "step": "epochs epoch iterations iters n n-steps num-steps max-steps",
    "temperature": "temp t",
    "text": "prompt corpus file",
    "validation": "val val-split valid validation-split",
    "verbose": "v",
    "weight-decay": "wd l2 decay lambda",
    "width": "hidden-size dim embed-dim d-model",
}
MISSING = re.compile(r"Missing from [\w ]+: (\S+) (.+?)\.? \(required\)")
CHOICE_ERROR = re.compile(r"invalid choice '(.*?)' for argument '(--[\w-]+)'. Expected one of \((.*?),?\)", re.I)


def parse(options: type, description: str | None) -> Any:
    """Returns the options of this process's arguments.

    Args:
        options: A dataclass with a field for each option.
        description: The text above the options in the help.

    Raises:
        ValueError: If there is no such option, or a value is missing or wrong.
        SystemExit: After the help was printed.
    """
    if unknown := unknown_option(options, sys.argv[1:]):
        raise ValueError(unknown)
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(options, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stopped:
        if not stopped.code:
            raise
    raise ValueError(one_line(printed.getvalue()))


def unknown_option(options: type, arguments: Sequence[str]) -> str:
    """Returns a sentence about the first argument that is no option although it is written like one, or ""."""
    hints = get_type_hints(options, include_extras=True)
    names = {
        field.name.replace("_", "-"): tyro.conf.Positional in get_args(hints[field.name])[1:]
        for field in fields(options)
    }
    switches = [f"--no-{field.name.replace('_', '-')}" for field in fields(options) if field.default is True]
    named = [name for name, is_positional in names.items() if not is_positional]
    known = {*HELP, *switches, *(f"--{name}" for name in named)}
    for argument in arguments:
        option = argument.partition("=")[0]
        name = option.replace("_", "-")
        if not OPTION.fullmatch(name) or name.startswith("--tyro-") or name in known:
            continue
        name = name.lstrip("-")
        if names.get(name):
            return f"{option}: no such option; write its value without {option}"
        return f"{option}: no such option; {suggestion(name, named) or '--help lists them'}"
    return ""


def suggestion(name: str, options: Sequence[str]) -> str:
    """Returns a question with the option that has this name elsewhere, or that is spelled like it, or "".

    Args:
        name: What is no option, without dashes.
        options: The names of the options of a command.

    Examples:
        >>> suggestion("lr", ["learning-rate", "seed"]), suggestion("lr", ["learning-rates", "seed"])
        ('did you mean --learning-rate?', 'did you mean --learning-rates?')
        >>> suggestion("epochs", ["steps"])
        'did you mean --steps? A step is one batch'
        >>> suggestion("hepl", ["steps"]), suggestion("x", ["steps"])
        ('did you mean --help?', '')
    """
    for option in options:
        if name in OTHER_NAMES.get(option, OTHER_NAMES.get(option.removesuffix("s"), "")).split():
            note = " A step is one batch" if name.startswith("epoch") else ""
            return f"did you mean --{option}?{note}"
    return did_you_mean(name, ["help", *options]).replace("mean ", "mean --")


def one_line(box: str) -> str:
    """Returns the first paragraph of an error of tyro, without its frame."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # after the title
        if RULE.fullmatch(line):
            sections.append([])
        else:
            sections[-1].append(line.strip("│ "))
    first, *more = [section for section in sections if any(section)] or [[]]
    message = " ".join(" ".join(first).split())
    if match := MISSING.fullmatch(message):
        name, description = match.groups()
        return f"{name}: missing, expected the {description[0].lower()}{description[1:]}"
    if match := CHOICE_ERROR.search(message):
        value, option, choices = match.groups()
        names = [name.strip(" '\"") for name in choices.split(",")]
        near = did_you_mean(value, names)
        return f"{option}: {value!r}, expected one of {', '.join(names)}" + (f"; {near}" if near else "")
    if match := VALUE_ERROR.search(message):
        option, several, value = match.groups()
        metavar = next((line.partition(" ")[2] for line in chain(*more) if line.startswith(f"{option} ")), "")
        kind = metavar.strip("[ ").partition(" ")[0]
        return f"{option}: {_wrong(several or value, kind)}, expected {KINDS.get(kind, metavar or 'another value')}"
    return message or "an option is invalid; --help lists them"


def _wrong(values: str, kind: str) -> str:
    """Returns the first of several quoted values that is no number of its kind; all if each is one."""
    convert = {"INT": int, "FLOAT": float}.get(kind, str)
    for value in values.split(", "):
        try:
            convert(value.strip("'"))
        except ValueError:
            return value
    return values
