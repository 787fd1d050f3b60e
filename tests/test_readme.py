"""Tests that the examples, tables and links of README, CONTRIBUTING and the pages in docs are right."""

import doctest
import pydoc
import re
from pathlib import Path

import pytest

from jaxnet.cli.catalogue import table

README = Path(__file__).parent.parent / "README.md"
CONTRIBUTING = README.with_name("CONTRIBUTING.md")
DOCS = README.parent / "docs"
PAGES = [README, CONTRIBUTING, *sorted(DOCS.glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, DOCS / "crosscheck.md", DOCS / "library.md"], ids=lambda page: page.name)
def test_the_examples_print_what_the_page_says(page):
    examples = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", page.read_text(), flags=re.S | re.M))
    test = doctest.DocTestParser().get_doctest(examples, {}, page.name, str(page), 0)
    assert len(test.examples) >= 5
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output = []
    runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def test_a_wrong_example_is_detected():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong", 0)
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed == 1


def test_the_commands_to_install_and_to_test_come_first():
    commands = re.findall(r"^```sh\n(.*?)\n```$", README.read_text(), flags=re.S | re.M)
    assert commands == ["pip install uv && uv run scripts/train.py", "uv run pytest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    for name in re.findall(r"`((?:numpy_ref|jaxnet|scripts|tests)/[\w/.]+)`", page.read_text()):
        assert (README.parent / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+)\)", page.read_text()):
        assert (page.parent / name).exists(), name


def test_the_readme_names_functions_whose_help_tells_their_arguments():
    (name,) = re.findall(r"python -m pydoc ([\w.]+)", README.read_text())
    text = pydoc.plain(pydoc.render_doc(name))
    assert text.startswith("Python Library Documentation: function check_function in jaxnet.crosscheck")
    assert "Args:" in text
    assert "Examples:" in text


def test_the_readme_links_every_page():
    links = set(re.findall(r"\]\(docs/([\w.]+)\)", README.read_text()))
    assert links == {page.name for page in DOCS.glob("*.md")}


def test_the_table_of_layers_equals_the_catalogue():
    page = (DOCS / "layers.md").read_text()
    assert table() in page, "replace the table in docs/layers.md by the output of `uv run jaxnet layers`"


def test_the_readme_has_the_table_of_abilities():
    rows = (DOCS / "crosscheck.md").read_text().partition("<!-- abilities -->\n\n")[2].partition("\n\n")[0]
    assert rows.count("\n") > 3
    assert rows in README.read_text()


@pytest.mark.parametrize("diff", re.findall(r"^```diff\n(.*?)^```$", CONTRIBUTING.read_text(), flags=re.S | re.M))
def test_the_diffs_in_contributing_equal_the_code(diff):
    _, path, *lines = diff.splitlines()
    assert all(line.startswith("+") for line in lines)
    code = (CONTRIBUTING.parent / path.removeprefix("+++ b/")).read_text()
    assert "\n".join(line[1:] for line in lines) in code


def test_the_folders_of_contributing_exist():
    folders = re.findall(r"`((?:jaxnet|tests|numpy_ref|scripts)/[\w/.]*)`", CONTRIBUTING.read_text())
    assert len(folders) > 15
    for folder in folders:
        assert (CONTRIBUTING.parent / folder).exists(), folder
