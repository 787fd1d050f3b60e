"""What the README shows works as typed."""

import doctest
import re
from pathlib import Path

from jaxnet.cli.catalogue import table

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_print_what_the_readme_says():
    examples = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", README.read_text(), flags=re.S | re.M))
    test = doctest.DocTestParser().get_doctest(examples, {}, "README.md", str(README), 0)
    assert len(test.examples) > 15
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said = []
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_a_wrong_example_would_be_noticed():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong", 0)
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed == 1


def test_the_two_commands_come_first():
    commands = re.findall(r"^```sh\n(.*?)\n```$", README.read_text(), flags=re.S | re.M)
    assert commands == ["pip install uv && uv run scripts/train.py", "uv run pytest"]


def test_every_file_it_names_is_there():
    root = README.parent
    for name in re.findall(r"`((?:numpy_ref|jaxnet|scripts|tests)/[\w/.]+)`", README.read_text()):
        assert (root / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+)\)", README.read_text()):
        assert (root / name).exists(), name


def test_the_table_of_layers_is_that_of_the_catalogue():
    assert table() in README.read_text(), "replace the table in README.md by the output of `uv run jaxnet layers`"
