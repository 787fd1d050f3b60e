"""Tests the pytest plugin by runs of pytest on small test files."""

import json
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from conftest import sampled

from jaxnet.crosscheck import Cause, Gap, Leaf, Report, SubjectError, Verdict
from jaxnet.pytest_plugin import Crosscheck
from jaxnet.pytest_plugin.dtypes import expect_parameters_in, in_dtype
from jaxnet.pytest_plugin.message import WIDTH, message
from jaxnet.pytest_plugin.summary import Check, summary_lines

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent
PLUGIN = "jaxnet.pytest_plugin"
WARN = "crosscheck_inconclusive = warn\nfilterwarnings = default"  # in place of this process's own "error"
SETTINGS = (
    *("-p", "no:cacheprovider"),
    *("-p", "no:unraisableexception"),  # which collects the garbage of this process five times
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # the plugin has been imported by this file
)
LAYERS = """
import numpy as np
import pytest
from jaxnet.crosscheck import SubjectError

class Scale:
    def __init__(self, w, factor=1):
        self.w, self.factor = np.asarray(w), factor

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, dout):
        self.dw = self.factor * (self.x * dout).sum(axis=0)
        return dout * self.w

W = np.array([0.5, -1.5, 2.0])
def in_half(x):  # rounds so coarsely that nothing is resolved
    return x.astype(np.float16).astype(float) ** 2, x
UNDECIDED = in_half, lambda dout, x: 2 * x * dout
"""
DW = "        self.dw = self.factor * (self.x * dout).sum(axis=0)"
RIGHT = "def test_right(crosscheck):\n    assert crosscheck(Scale(W), (5, 3)).verdict == 'PASS'\n"
WRONG = "def test_wrong(crosscheck):\n    crosscheck(Scale(W, 3), (5, 3))\n"
UNDECIDED = "def test_undecided(crosscheck):\n    assert not crosscheck(UNDECIDED, (5, 4))\n"


@pytest.fixture
def run(pytester, monkeypatch):
    """Returns a function that runs pytest in this process on the tests of a text, without plugins of other packages."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run_tests(tests, *arguments, ini="", method=pytester.runpytest_inprocess):
        pytester.makepyfile(test_mine=LAYERS + tests)
        pytester.makeini(f"[pytest]\n{ini}")
        return method("-p", PLUGIN, "--strict-markers", *arguments, *SETTINGS)

    return run_tests


def lines_of_error(result):
    """Returns the lines of the only failure that pytest shows, after "E" and the indentation of the test."""
    return [line[8:].rstrip() for line in result.outlines if line.startswith("E ")]


def test_a_right_layer_passes_and_its_report_is_returned(run):
    run(RIGHT).assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_wrong_layer_fails_with_one_sentence_and_then_the_report(run):
    result = run(WRONG)
    result.assert_outcomes(failed=1)
    first, second, *report = lines_of_error(result)
    assert first.startswith("AssertionError: Scale: w: the backward is wrong; it equals the true gradient times 3")
    assert second == ""
    assert report[0] == "FAIL  Scale"
    assert any(line.startswith("  w  FAIL  ") for line in report)
    assert any(line.startswith("  x  PASS  ") for line in report)
    assert all(len(line) <= WIDTH for line in report)
    assert sum("equals the true gradient" in line for line in (first, *report)) == 1
    assert report[-2] == f"the gradient is computed at test_mine.py:{1 + LAYERS.strip().splitlines().index(DW)}"


@pytest.mark.parametrize(
    "call",
    [
        "crosscheck(Scale(W, 3), (5, 3))",
        "crosscheck.layer(Scale(W, 3), (5, 3))",
        "crosscheck.function(np.sin, W, gradient=lambda x, dout: dout * np.sin(x))",
        "crosscheck(Scale(W), (5, 4))",  # refused, and shown without the ValueError in forward
        "crosscheck(Scale(W), (5, 3), order=0)",
        "crosscheck(Scale(W), (5, 3), ordr=2)",
        "crosscheck(UNDECIDED, (5, 4))",
        "crosscheck.network(Scale(W), W, W)",
    ],
)
@pytest.mark.parametrize("style", sampled(["long", "short"], 2))
def test_the_line_of_the_user_is_the_last_that_is_shown(run, call, style):
    result = run(f"def test_call(crosscheck):\n    {call}\n", f"--tb={style}")
    result.assert_outcomes(failed=1)
    shown = [line for line in result.outlines if "jaxnet/" in line and not line.startswith("E ")]
    assert not shown
    assert [line for line in result.outlines if line.startswith(("test_mine.py:", ">"))][-1:] != []
    assert sum(line.startswith(("test_mine.py:", "jaxnet")) for line in result.outlines) == 1


def test_a_refusal_keeps_its_type(run):
    test = "def test_refused(crosscheck):\n    with pytest.raises(SubjectError, match='forward: raised'):\n"
    run(f"{test}        crosscheck(Scale(W), (5, 4))\n").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("crosscheck(np.sin, W, gradient=np.cos)", "gradient: no option of crosscheck(...); crosscheck.function(...)"),
        ("crosscheck.layer(Scale(W), shapes=[(5, 3)])", "shapes: no option of crosscheck.layer(...); crosscheck(...)"),
        ("crosscheck(Scale(W), (5, 3), dtype='float32')", "dtype: unknown option, did you mean dtypes?"),
        ("crosscheck(Scale(W), (5, 3), qqq=1)", "qqq: unknown option, expected one of accuracy, constants, dtypes, "),
        ("crosscheck(Scale(W), (5, 3), dtypes='float8')", "dtypes: 'float8', expected one or several of float16, "),
        ("crosscheck(Scale(W), (5, 3), shapes=[(5, 3)])", "shapes: given beside inputs, expected one of them"),
    ],
)
def test_a_wrong_option_of_a_call_is_named(run, call, message):
    result = run(f"def test_call(crosscheck):\n    {call}\n")
    assert lines_of_error(result)[0].startswith(f"jaxnet.pytest_plugin.options.OptionError: {message}")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (
            "shape=[(5, 3)]",
            "@pytest.mark.crosscheck: shape: unknown option, did you mean shapes?",
        ),
        ("dtypes=('float32', 'int8')", "*dtypes: 'int8', expected one or several of float16, float32, float64"),
        ("dtypes=[]", "*dtypes: '[[]]', expected one or several of float16, float32, float64"),
        ("[(5, 3)]", "*[[](5, 3)] has no name, expected options by name, such as shapes=[[](5, 4)]"),
    ],
)
def test_a_wrong_option_of_a_marker_is_an_error_of_its_test_alone(run, marker, message):
    result = run(f"@pytest.mark.crosscheck({marker})\ndef test_call(crosscheck):\n    pass\n{RIGHT}")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([message])
    assert not [line for line in result.outlines if "exception" in line]
    assert next(line for line in result.outlines if line.startswith("2 checks")).endswith(": 1 refused, 1 passed")


def test_a_marker_of_a_test_without_the_fixture_is_a_warning_and_that_of_a_class_is_not(run):
    marker, test = "@pytest.mark.crosscheck(shapes=[(5, 3)])\n", "def test_alone(): pass\n"
    result = run(f"{marker}{test}{RIGHT}")  # warnings are errors here
    result.assert_outcomes(passed=1, failed=1)
    assert "nothing is checked, because the test does not take the fixture; add" in "".join(lines_of_error(result))
    run(f"{marker}class TestOthers:\n    def test_alone(self): pass\n").assert_outcomes(passed=1)
    dynamic = "@pytest.mark.crosscheck(order=1)\ndef test_by_name(request):\n    "
    run(f"{dynamic}request.getfixturevalue('crosscheck')(Scale(W), (5, 3))\n").assert_outcomes(passed=1)


def test_inconclusive_fails_by_default(run):
    result = run(UNDECIDED)
    result.assert_outcomes(failed=1)
    assert lines_of_error(result)[0].startswith(
        "AssertionError: in_half: undecided: x: the difference quotients cannot"
    )


@pytest.mark.slow
def test_inconclusive_is_a_warning_of_its_own_category(run):
    assert "1 passed, 1 warning" in run(UNDECIDED, ini=WARN).outlines[-1]
    category = "jaxnet.crosscheck.report.InconclusiveWarning"
    result = run(UNDECIDED, "-W", f"error::{category}", ini=WARN)
    result.assert_outcomes(failed=1)
    assert lines_of_error(result)[0].startswith(f"{category}: in_half: undecided: x: the difference quotients cannot")
    run(UNDECIDED, "-W", f"ignore::{category}", ini=WARN).assert_outcomes(passed=1)


def test_the_warning_names_the_line_of_the_user(run):
    result = run(UNDECIDED, ini=WARN)
    line = (LAYERS + UNDECIDED).rstrip().count("\n")  # the file begins without the first, empty line
    result.stdout.fnmatch_lines([f"*test_mine.py:{line}: InconclusiveWarning: in_half: undecided: *"])


@pytest.mark.slow
def test_inconclusive_may_pass_and_wrong_may_not(run):
    result = run(UNDECIDED + WRONG, ini="crosscheck_inconclusive = pass")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 checks in * s: 1 failed, 1 undecided", "  undecided: in_half  test_mine.py::*"])


def test_an_unknown_value_of_the_setting_is_an_error_of_usage(run):
    result = run(RIGHT, ini="crosscheck_inconclusive = skip")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: crosscheck_inconclusive: 'skip', expected fail, warn or pass"])


def test_the_seed_is_the_crc_of_the_node_id():
    # The check value of CRC-32/ISO-HDLC in Greg Cook's Catalogue of parametrised CRC algorithms.
    assert Crosscheck("123456789", {}, None, "fail", [], None, show=print).seed == 0xCBF43926


@pytest.mark.slow
def test_the_message_says_the_seed_and_the_option_overrides_it(run):
    seed = "def test_wrong(crosscheck):\n    crosscheck(Scale(W, 3), (5, 3){})\n"
    first, again = (lines_of_error(run(seed.format("")))[-1] for _ in range(2))
    assert first == again
    assert first.startswith("seed ")
    assert first.endswith(", from the test's id")
    assert lines_of_error(run(seed.format(", seed=7")))[-1] == "seed 7, from seed="
    marked = f"@pytest.mark.crosscheck(seed=8)\n{seed}"
    assert lines_of_error(run(marked.format("")))[-1] == "seed 8, from seed="
    assert lines_of_error(run(marked.format(", seed=7")))[-1] == "seed 7, from seed="


def test_a_marker_makes_a_test_of_each_shape_and_dtype(run):
    marker = "@pytest.mark.crosscheck(shapes=[(5, 3), (1, 3)], dtypes=(np.float32, 'float64'))\n"
    test = (
        "def test_scale(crosscheck):\n"
        "    report = crosscheck(Scale(W.astype(crosscheck.dtype)))\n"
        "    in_float32 = ['float32 - float64' in leaf.gaps for leaf in report.leaves]\n"
        "    assert in_float32 == [crosscheck.dtype == 'float32'] * 2\n"
    )
    result = run(marker + test, "-v")
    result.assert_outcomes(passed=4)
    for case in ("5x3-float32", "5x3-float64", "1x3-float32", "1x3-float64"):
        result.stdout.fnmatch_lines([f"test_mine.py::test_scale[[]{case}] PASSED*"])


def test_a_shape_that_is_wrong_fails_alone(run):
    marker = "@pytest.mark.crosscheck(shapes=[(5, 3), (1, 3)])\n"
    test = (
        "def backward(dout, x):\n    return 2 * x * dout * (1 + (len(x) == 1))\n"
        f"{marker}def test_square(crosscheck):\n    crosscheck((lambda x: (x**2, x), backward))\n"
    )
    result = run(test)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_mine.py::test_square[[]1x3]*"])


@pytest.mark.slow
def test_several_inputs_are_one_case(run):
    marker = "@pytest.mark.crosscheck(shapes=[((5, 4), (4, 3)), ((1, 2), (2, 3))])\n"
    test = (
        "def test_mul(crosscheck):\n    crosscheck.function(np.matmul, gradient=lambda x, w, d: (d @ w.T, x.T @ d))\n"
    )
    result = run(marker + test, "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_mul[[]5x4,4x3] PASSED*", "*test_mul[[]1x2,2x3] PASSED*"])


@pytest.mark.slow
def test_a_function_that_draws_inputs_is_no_list_of_cases(run):
    marker = "@pytest.mark.crosscheck(shapes=lambda rng: [(int(rng.integers(1, 5)), 3)])\n"
    test = "def test_scale(crosscheck):\n    assert len(crosscheck(Scale(W)).points) == 8\n"
    run(marker + test).assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_closest_marker_wins_and_a_call_wins_over_markers(run):
    tests = "pytestmark = pytest.mark.crosscheck(seed=1, name='module')\n" + (
        "def test_of_module(crosscheck):\n    report = crosscheck(Scale(W), (5, 3))\n"
        "    assert (report.seed, report.subject) == (1, 'module')\n"
        "@pytest.mark.crosscheck(seed=2)\n"
        "def test_of_test(crosscheck):\n    report = crosscheck(Scale(W), (5, 3), name='call')\n"
        "    assert (report.seed, report.subject) == (2, 'call')\n"
    )
    run(tests).assert_outcomes(passed=2)


@pytest.mark.parametrize("call", ["crosscheck(Scale(W), (5, 3))", "crosscheck(Scale(W), shapes=[(5, 3)])"])
def test_shapes_of_the_marker_beside_inputs_are_refused(run, call):
    result = run(f"@pytest.mark.crosscheck(shapes=[(5, 3)])\ndef test_call(crosscheck):\n    {call}\n")
    assert "shapes: given in the marker, and " in lines_of_error(result)[0]


def test_a_layer_in_another_dtype_is_refused(run):
    result = run("@pytest.mark.crosscheck(dtypes='float32')\n" + RIGHT)
    assert "dtypes: w of Scale in float64, expected float32: make its arrays in" in lines_of_error(result)[0]


@pytest.mark.slow
def test_a_module_of_torch_is_checked_in_float64_and_a_double_one_not_in_float32():
    torch = pytest.importorskip("torch")
    linear, inputs = torch.nn.Linear(4, 3), (torch.ones(5, 4),)
    expect_parameters_in("float32", linear, inputs, 0)
    expect_parameters_in("float64", linear, (inputs[0].double(),), 0)
    with pytest.raises(SubjectError, match="weight, bias of Linear in float64, expected float32"):
        expect_parameters_in("float32", linear.double(), inputs, 0)


def test_dtypes_and_shapes_of_a_call_are_points_of_one_report(run):
    test = (
        "def forward(x):\n    return np.sin(x), x\n"
        "def backward(dout, x):\n    return dout * np.cos(x) * (1.5 if x.dtype == np.float32 else 1)\n"
        "def test_call(crosscheck):\n"
        "    crosscheck((forward, backward), shapes=[(2, 3), (1,)], dtypes=(float, 'float32'))\n"
    )
    result = run(test)
    first, _, _, *points = lines_of_error(result)
    assert first.startswith("AssertionError: forward at (2, 3) in float32: ")
    assert [line.split() for line in points[:4]] == [
        ["forward", "at", "(2,", "3)", "in", "float64", "PASS"],
        ["forward", "at", "(1,)", "in", "float64", "PASS"],
        ["forward", "at", "(2,", "3)", "in", "float32", "FAIL"],
        ["forward", "at", "(1,)", "in", "float32", "FAIL"],
    ]


def test_floats_change_their_dtype_and_other_values_do_not():
    import jax.numpy as jnp

    x, ids = np.ones(2), np.arange(2)
    converted = in_dtype([x, ids, {"a": x}, jnp.ones(2), "x", None, 2.0], "float16")
    assert [converted[i].dtype for i in (0, 1, 3)] == ["float16", ids.dtype, "float16"]
    assert converted[2]["a"].dtype == "float16"
    assert converted[4:] == ["x", None, 2.0]
    assert x.dtype == "float64"
    torch = pytest.importorskip("torch")
    assert in_dtype(torch.ones(2), "float64").dtype == torch.float64
    assert in_dtype(torch.ones(2, dtype=torch.int64), "float64").dtype == torch.int64


@pytest.mark.slow
def test_the_summary_counts_checks_of_all_kinds(run):
    result = run(RIGHT + WRONG + UNDECIDED + "def test_refused(crosscheck):\n    crosscheck(3, (5, 3))\n")
    result.stdout.fnmatch_lines(
        [
            "=*= crosscheck =*=",
            "4 checks in * s: 1 failed, 1 undecided, 1 refused, 1 passed",
            "  slowest: *  test_mine.py::test_*",
            "  slowest: *",
            "  slowest: *",
            "  undecided: in_half  test_mine.py::test_undecided",
            "  refused: int  test_mine.py::test_refused",
        ]
    )


def test_the_summary_is_one_line_if_quiet_and_absent_without_checks(run):
    result = run(RIGHT, "-q")
    result.stdout.fnmatch_lines(["crosscheck: 1 check in * s: 1 passed"])
    result.stdout.no_fnmatch_line("*= crosscheck =*")
    run("def test_nothing(crosscheck):\n    pass\n").stdout.no_fnmatch_line("*= crosscheck =*")


def test_warnings_of_a_pass_are_counted_and_printed_on_request(run):
    test = "def test_ones(crosscheck):\n    crosscheck(Scale(np.ones(3)), shapes=[(5, 3), (4, 3)])\n"
    counted = "crosscheck: 2 checks in * s: 2 passed, 1 of them with warnings, which pytest -rP prints"
    for options in ((), ("-rP",)):
        result = run(RIGHT + test, "-q", *options)
        result.stdout.fnmatch_lines([counted])
        assert ("w is 1 everywhere" in result.stdout.str()) == bool(options)


def test_the_three_slowest_are_listed_slowest_first():
    checks = [
        Check(test="t", subject=str(s), outcome="passed", seconds=s, has_warnings=False) for s in (0.25, 4.0, 1.0, 2.0)
    ]
    lines = summary_lines(checks)
    assert lines[0] == "4 checks in 7.2 s: 4 passed"
    assert [line.split()[1] for line in lines[1:]] == ["4.00", "2.00", "1.00"]


@pytest.mark.slow
def test_junit_has_the_reports_as_json(run, pytester):
    run(RIGHT + WRONG, "--junitxml=junit.xml")
    properties = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    reports = [json.loads(p.get("value")) for p in properties if p.get("name") == "crosscheck"]
    assert [report["verdict"] for report in reports] == ["PASS", "FAIL"]
    assert {leaf["name"]: leaf["verdict"] for leaf in reports[1]["leaves"]} == {"w": "FAIL", "x": "PASS"}


@pytest.mark.slow
def test_under_xdist_summary_seed_and_junit_are_the_same(run, pytester, monkeypatch):
    tests, options = RIGHT + WRONG, ("--junitxml=junit.xml", "-W", "error")
    here = lines_of_error(run(tests, *options))
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = run(tests, *options, "-p", "xdist", "-n", "2", method=pytester.runpytest_subprocess)
    result.assert_outcomes(passed=1, failed=1)
    assert lines_of_error(result) == here
    result.stdout.fnmatch_lines(["2 checks in * s: 1 failed, 1 passed", "  slowest: *", "  slowest: *"])
    assert (pytester.path / "junit.xml").read_text().count('name="crosscheck"') == 2


@pytest.mark.slow
def test_the_plugin_imports_neither_numpy_nor_the_checker():
    show = f"import sys, {PLUGIN}; print(*sorted(set(sys.modules) & {{'numpy', 'jax', 'torch', 'jaxnet.crosscheck'}}))"
    printed = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""


@pytest.mark.slow
def test_the_entry_point_and_the_option_p_are_one_plugin(run, pytester, monkeypatch):
    (points,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"].values()
    info = pytester.mkdir("wheel-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wheel-of-jaxnet\nVersion: 1.0\n")
    (info / "RECORD").touch()
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[pytest11]\n{lines}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{pytester.path}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = run(RIGHT, "-W", "error", method=pytester.runpytest_subprocess)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["plugins: *wheel-of-jaxnet-1.0*"])


def leaf(name, verdict, cause, **fields):
    return Leaf(name, verdict, cause, relative_error=0.5, relative_tolerance=1e-9, **fields)


def test_the_sentence_is_about_what_decides_the_verdict():
    undecided = leaf("a", Verdict.INCONCLUSIVE, Cause.ALL_AT_KINKS)
    wrong = leaf("b", Verdict.FAIL, Cause.ANALYTIC_WRONG)
    first = message(Report("Layer", None, (undecided, wrong)), "seed 0").splitlines()[0]
    assert first == "Layer: b: the backward is not the derivative of its own forward"


def test_the_sentence_is_about_a_layer_a_derivative_or_a_forward():
    right, wrong = (
        Report(name, None, (leaf("W", verdict, cause),))
        for name, verdict, cause in [("A", Verdict.PASS, Cause.AGREES), ("B", Verdict.FAIL, Cause.ANALYTIC_WRONG)]
    )
    sentence = "W: the backward is not the derivative of its own forward"

    def first(report):
        return message(report, "seed 0").splitlines()[0]

    assert first(Report("Net", None, right.leaves, layers=(right, wrong))) == f"Net: {sentence}"
    assert first(Report("f", None, right.leaves, derivatives=(wrong,))) == f"B: {sentence}"
    assert first(Report("f", Gap(1.0, 0.1), right.leaves)).startswith("f: the forwards differ by 1, but")
    assert first(Report("f", None, ())) == "f: undecided: nothing was compared"


def test_a_long_index_and_a_long_name_stay_within_80_columns():
    wrong = leaf("a" * 40, Verdict.FAIL, Cause.ANALYTIC_WRONG, index=(100, 100, 100, 100))
    assert max(map(len, message(Report("f", None, (wrong,)), "seed 0").splitlines()[2:])) <= WIDTH
