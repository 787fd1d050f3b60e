"""The examples in docstrings print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import jaxnet.crosscheck

ROOT = Path(jaxnet.crosscheck.__file__).parent
MODULES = [
    ".".join(("jaxnet.crosscheck", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
