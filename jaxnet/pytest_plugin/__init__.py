"""Adds the fixture `crosscheck`, its marker and its options to pytest.

pytest imports this package in every run where the distribution is installed. So neither it nor its modules import
NumPy or the checker, before a test uses them.
"""

from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest

from jaxnet.pytest_plugin.fixture import Crosscheck
from jaxnet.pytest_plugin.options import Case, OptionError, cases, is_split, marker_options
from jaxnet.pytest_plugin.summary import Check, summary_lines

__all__ = ["Crosscheck"]

INCONCLUSIVE = ("fail", "warn", "pass")
MARKER = (
    "crosscheck(shapes=None, dtypes=None, **options): options of the fixture `crosscheck` in this test. A list of "
    "shapes and several dtypes make a test for each of them; the other options are those of jaxnet.crosscheck.check."
)
NOT_USED = (
    "@pytest.mark.crosscheck: nothing is checked, because the test does not take the fixture; "
    "add the argument crosscheck to it"
)
CHECKS = pytest.StashKey[list[Check]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the setting `crosscheck_inconclusive`."""
    parser.addini(
        "crosscheck_inconclusive",
        "what an INCONCLUSIVE check does to its test: fail (the default), warn, or pass",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker.

    Raises:
        pytest.UsageError: If the setting has an unknown value.
    """
    if (value := config.getini("crosscheck_inconclusive")) not in INCONCLUSIVE:
        raise pytest.UsageError(f"crosscheck_inconclusive: {value!r}, expected fail, warn or pass")
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes a test of each shape and dtype that a marker lists. A wrong marker fails its test alone, in the fixture."""
    if "crosscheck" not in metafunc.fixturenames:
        return
    with suppress(OptionError):
        options = marker_options(metafunc.definition)
        if is_split(options):
            split = cases(options)
            metafunc.parametrize("crosscheck", split, indirect=True, ids=[case.test_id or None for case in split])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Warns of a test with a marker of its own that did not ask for the fixture, and so checked nothing.

    The marker of a class or a module may have tests without the fixture.
    """
    result = yield
    if CHECKS not in item.stash and any(marker.name == "crosscheck" for marker in item.own_markers):
        item.warn(pytest.PytestWarning(NOT_USED))
    return result


@pytest.fixture
def crosscheck(request: pytest.FixtureRequest) -> Crosscheck:
    """Checks gradients, as `jaxnet.crosscheck.check` does, and fails the test if one is wrong.

    `crosscheck(layer, *inputs)` takes a layer, a network, a pair of functions or a function; `crosscheck.layer(...)`,
    `crosscheck.function(f, x, gradient=g)` and `crosscheck.network(network, x, t)` take one kind. Returns the report.
    """
    config, node = request.config, request.node
    case: Case | None = getattr(request, "param", None)
    checks = node.stash.setdefault(CHECKS, [])
    wrong, options = "", {}
    try:
        options = marker_options(node)
        if case is None and is_split(options):
            cases(options)  # raises the error for which the test was not split
    except OptionError as error:
        wrong = f"@pytest.mark.crosscheck: {error}"
    if wrong:  # outside of the block, so that the message is not followed by a second one of the exception
        checks.append(Check(test=node.nodeid, subject="the marker", outcome="refused", seconds=0.0, has_warnings=False))
        pytest.fail(wrong, pytrace=False)
    properties = node.user_properties if config.getoption("xmlpath", None) else None  # of --junitxml
    return Crosscheck(
        node.nodeid,
        options,
        case,
        config.getini("crosscheck_inconclusive"),
        checks,
        properties,
        show=lambda text: node.add_report_section("call", "crosscheck", text),
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attaches the checks of a test to its report, which pytest-xdist sends to the process that prints."""
    report = yield
    if checks := item.stash.get(CHECKS, None):
        vars(report)["crosscheck"] = list(checks)
        checks.clear()  # the reports of the later phases have their own
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the number of checks, their time and their verdicts, if there were any."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    checks = [check for report in reports for check in getattr(report, "crosscheck", ())]
    if not checks:
        return
    short = config.get_verbosity() < 0
    if not short:
        terminalreporter.section("crosscheck")
    for line in summary_lines(checks, short=short):
        terminalreporter.write_line(line)
