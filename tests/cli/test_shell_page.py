"""Tests that the commands of docs/shell.md print what the page says."""

import doctest
import re
import shlex
import sys
from pathlib import Path

import pytest

from jaxnet.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "shell.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", PAGE, flags=re.S | re.M))
EXAMPLES = [
    example
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.S | re.M)
    for example in re.findall(r"^\$ jaxnet (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.M)
]


@pytest.mark.parametrize(("command", "expected"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_a_command_prints_what_the_page_says(monkeypatch, capsys, tmp_path, command, expected):
    for name, text in FILES.items():
        (tmp_path / name).write_text(f"# {name}\n{text}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", ["jaxnet", *shlex.split(command)])
    with pytest.raises(SystemExit):
        main.main()
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)
    printed = "".join(capsys.readouterr()).rstrip() + "\n"
    assert doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS), printed


def test_the_page_has_examples_and_files():
    assert len(EXAMPLES) > 8
    assert set(FILES) == {"mine.py", "scaling.py"}
