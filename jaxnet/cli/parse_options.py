"""Parses the arguments of a command by tyro, whose errors of several lines become one."""

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from itertools import chain
from typing import Any

import tyro

from jaxnet.crosscheck.inspect.errors import did_you_mean

RULE = re.compile(r"[-─╰╯│ ]{5,}")  # of a box in Unicode, or of indented ASCII where stderr takes no more
VALUE_ERROR = re.compile(r"Error parsing (--[\w-]+): .*?\[(.*?)\]")
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
            return tyro.cli(options, description=description)
    except SystemExit as stopped:
        if not stopped.code:
            raise
    raise ValueError(one_line(printed.getvalue()))


def unknown_option(options: type, arguments: Sequence[str]) -> str:
    """Returns a sentence about the first argument that is no option although it begins with --, or ""."""
    names = ["--help", *(f"--{field.name.replace('_', '-')}" for field in fields(options))]
    switches = [f"--no-{field.name.replace('_', '-')}" for field in fields(options) if field.default is False]
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--") and not name.startswith("--tyro-") and name not in names + switches:
            near = did_you_mean(name, names)
            return f"{argument.partition('=')[0]}: no such option; {near or '--help lists them'}"
    return ""


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
    if match := CHOICE_ERROR.search(message):
        value, option, choices = match.groups()
        names = [name.strip(" '\"") for name in choices.split(",")]
        near = did_you_mean(value, names)
        return f"{option}: {value!r}, expected one of {', '.join(names)}" + (f"; {near}" if near else "")
    if match := VALUE_ERROR.search(message):
        option, values = match.groups()
        metavar = next((line.partition(" ")[2] for line in chain(*more) if line.startswith(f"{option} ")), "")
        return f"{option}: {values}, expected {metavar or 'another value'}"
    return message or "an option is invalid; --help lists them"
