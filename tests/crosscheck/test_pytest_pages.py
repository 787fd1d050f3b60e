"""Tests that the examples of docs/pytest.md and docs/ci.md run, and print what the pages say."""

import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

pytest_plugins = ["pytester"]

DOCS = Path(__file__).parent.parent.parent / "docs"
SETTINGS = ("-p", "jaxnet.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:unraisableexception")


def blocks(page, language):
    """Returns the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.S | re.M)


@pytest.fixture
def run(pytester, monkeypatch):
    """Returns a function that runs pytest on the test file of docs/pytest.md."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)  # where it is set, pytest does not shorten lines
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    (tests,) = blocks("pytest.md", "python")
    pytester.makepyfile(test_my_layers=tests)
    ignored = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # the plugin may have been imported by other tests
    return lambda *arguments: pytester.runpytest_inprocess(*arguments, *SETTINGS, *ignored)


def without_measurements(lines):
    """Returns the lines without times, and without errors, whose last digits depend on the machine."""
    return [re.sub(r"\d+\.\d+ s\b|\b\d(\.\d)?e[-+]\d\d", "?", line).rstrip() for line in lines]


@pytest.mark.slow
def test_pytest_prints_what_the_page_says(run):
    result = run()
    result.assert_outcomes(passed=2, failed=1)
    (printed,) = blocks("pytest.md", "text")
    position, lines = 0, without_measurements(result.outlines)
    for part in re.split(r"^\.\.\.\n", printed, flags=re.M):
        expected = without_measurements(part.splitlines())
        starts = range(position, len(lines) - len(expected) + 1)
        position = next((i for i in starts if lines[i : i + len(expected)] == expected), None)
        assert position is not None, expected


@pytest.mark.slow
def test_the_workflow_runs_and_its_reports_are_read_as_the_page_says(run, pytester, capsys):
    workflow, _ = blocks("ci.md", "yaml")
    steps = yaml.safe_load(workflow)["jobs"]["gradients"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("pytest")]
    _, *arguments = shlex.split(command.replace("-n auto ", ""))  # one process is enough for three tests
    run(*arguments).assert_outcomes(passed=2, failed=1)
    (upload,) = [step["with"]["path"] for step in steps if "upload" in step.get("uses", "")]
    assert ElementTree.parse(pytester.path / upload)
    capsys.readouterr()
    (reader,) = blocks("ci.md", "python")
    exec(reader, {})
    assert capsys.readouterr().out == blocks("ci.md", "text")[0]


@pytest.mark.slow
def test_the_hook_names_a_command_that_runs(run, pytester):
    _, hooks = blocks("ci.md", "yaml")
    (hook,) = yaml.safe_load(hooks)["repos"][0]["hooks"]
    program, *arguments = shlex.split(hook["entry"])
    assert program == "pytest"
    run(*arguments).assert_outcomes(passed=2, failed=1)
    assert re.search(hook["files"], "layers/affine.py")


@pytest.mark.slow
def test_the_setting_of_the_page_is_valid(run, pytester):
    (ini,) = blocks("ci.md", "ini")
    pytester.makeini(ini)
    run("-k", "sine").assert_outcomes(passed=1, deselected=2)
