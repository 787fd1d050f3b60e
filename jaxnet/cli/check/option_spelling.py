"""Rewrites the options and targets in a message from Python's spelling to that of the command line."""

import re
from collections.abc import Sequence
from pathlib import Path

PLACEHOLDERS = {
    "constants": "NAME", "gradient": "NAME", "reference": "FILE.py:NAME", "accuracy": "NUMBER", "resolution": "NUMBER",
    "order": "NUMBER", "max_seconds": "NUMBER",
}  # fmt: skip
VALUE = r"\((?P<names>'[^']*'(?:, ?'[^']*')*),?\)|(?P<word>[\w.+-]*\w)?(?!\w|\()"
IN_PYTHON = re.compile(rf"\b(?P<verb>pass|by|with|without|beside|or) (?P<option>{'|'.join(PLACEHOLDERS)})=(?:{VALUE})")
OTHERS = re.compile(r"\bpass ((?:structure|expected|transforms|mode|takes_dout|named)=)")
INPUT = re.compile(r"\bpass named=\{'(\w+)': ([\w.]+)\}")
PAIR = re.compile(r"\bpass the pair \((\w+), (\w+)\)")
SAME_FILE = re.compile(r"(?P<file>.+):(?P<first>[\w.]+),(?P=file):(?P<second>[\w.]+)")


def in_shell(message: str, targets: Sequence[str] = ()) -> str:
    """Returns a message of `check` with its options as `jaxnet check` takes them.

    What has no option stays as it is, as the call of a function does.

    Args:
        message: A sentence or a report, not wrapped.
        targets: The targets of the command, whose file a pair is named with if they are in one. Defaults to none.

    Examples:
        >>> in_shell("if W is a constant, pass constants=('W', 'b')"), in_shell("allowed by accuracy=1e-3")
        ('if W is a constant, pass --constants W b', 'allowed by --accuracy 1e-3')
        >>> in_shell("pass gradient=, or use jax.numpy"), in_shell("check_function(f, x, gradient=g)")
        ('pass --gradient NAME, or use jax.numpy', 'check_function(f, x, gradient=g)')
        >>> in_shell("pass structure={'W': 'symmetric'}")
        "in Python, pass structure={'W': 'symmetric'}"
        >>> in_shell("pass named={'reg': 0.5}")
        'pass --inputs ... reg=0.5'
        >>> in_shell("pass the pair (f_forward, f_backward)")
        'pass FILE.py:f_forward,f_backward'
        >>> in_shell("pass the pair (f_forward, f_backward)", ["mine.py:f_forward"])
        'pass mine.py:f_forward,f_backward'
    """
    files = {target.rpartition(":")[0] for target in targets}
    file = files.pop() if len(files) == 1 else "FILE.py"
    message = PAIR.sub(lambda match: f"pass {file}:{match[1]},{match[2]}", message)
    message = INPUT.sub(r"pass --inputs ... \1=\2", message)
    return OTHERS.sub(r"in Python, pass \1", IN_PYTHON.sub(_option, message))


def _option(match: re.Match[str]) -> str:
    option, names, word = match["option"], match["names"], match["word"]
    if word == "lambda":
        return match[0]
    value = " ".join(re.findall(r"'([^']*)'", names)) if names else word or PLACEHOLDERS[option]
    return f"{match['verb']} --{option.replace('_', '-')} {value}"


def respelled(targets: Sequence[str]) -> tuple[str, str]:
    """Returns the first misspelled target and its likely spelling; two empty strings if there is none.

    Args:
        targets: The targets of a command.

    Examples:
        >>> respelled(["mine.py:f", "mine.py:g,h"]), respelled(["mine.py::f"])
        (('', ''), ('mine.py::f', 'mine.py:f'))
        >>> respelled(["mine.py", "f"]), respelled(["mine.py:f", "g"])
        (('mine.py f', 'mine.py:f'), ('mine.py:f g', 'mine.py:f,g'))
        >>> respelled(["mine.f"]), respelled(["mine.py:f,mine.py:g"])
        (('mine.f', 'mine:f'), ('mine.py:f,mine.py:g', 'mine.py:f,g'))
    """
    before = ""
    for target in targets:
        place, _, name = target.rpartition(".")
        if "::" in target:
            return target, target.replace("::", ":")
        if match := SAME_FILE.fullmatch(target):
            return target, "{file}:{first},{second}".format(**match.groupdict())
        if ":" not in target and target.isidentifier() and before:
            return f"{before} {target}", before + (":" if before.endswith(".py") else ",") + target
        if ":" not in target and place and name.isidentifier() and name != "py":
            file = Path(*place.split(".")).with_suffix(".py")
            return target, f"{file if file.is_file() else place}:{name}"
        before = target
    return "", ""
