"""Runs checks on behalf of a test, and fails it if a gradient is wrong."""

import json
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jaxnet.pytest_plugin.dtypes import expect_parameters_in, inputs_in
from jaxnet.pytest_plugin.message import WIDTH, message
from jaxnet.pytest_plugin.options import FORMS, Case, OptionError, dtype_names, expect_options
from jaxnet.pytest_plugin.summary import Check

if TYPE_CHECKING:
    from jaxnet.crosscheck import Report

OUTCOMES = {"PASS": "passed", "FAIL": "failed", "INCONCLUSIVE": "undecided"}


class Crosscheck:
    """Checks gradients in a test: the value of the fixture `crosscheck`.

    Every check returns its report if the verdict is PASS, and raises an AssertionError if it is FAIL. The setting
    `crosscheck_inconclusive` decides on INCONCLUSIVE. The options are those of the function in `jaxnet.crosscheck`
    that does the work, and `dtypes`, a dtype of the inputs' floats or several, in each of which the code is checked.

    Attributes:
        dtype: The dtype of this test, "float64" if the marker has no `dtypes`.
        seed: The seed of this test, which follows from its node id.
    """

    def __init__(
        self,
        test: str,
        defaults: Mapping[str, Any],
        case: Case | None,
        inconclusive: str,
        checks: list[Check],
        properties: list[tuple[str, object]] | None,
        *,
        show: Callable[[str], None],
    ) -> None:
        self._test, self._defaults, self._case, self._inconclusive = test, dict(defaults), case, inconclusive
        self._checks, self._properties, self._show = checks, properties, show
        self.dtype = (case and case.dtype) or "float64"
        self.seed = zlib.crc32(test.encode())  # unlike hash(), the same in every process

    def __repr__(self) -> str:
        return f"<crosscheck of {self._test}>"

    def __call__(self, thing: Any, *inputs: Any, **options: Any) -> "Report":
        """Checks a layer, a network, a pair of functions or a function; see `jaxnet.crosscheck.check`."""
        __tracebackhide__ = True
        return self._checked("crosscheck", thing, inputs, options)

    def layer(self, layer: Any, *inputs: Any, **options: Any) -> "Report":
        """Checks a layer; see `jaxnet.crosscheck.check_layer`."""
        __tracebackhide__ = True
        return self._checked("crosscheck.layer", layer, inputs, options)

    def function(self, f: Any, *args: Any, **options: Any) -> "Report":
        """Checks a function, with its `gradient=`; see `jaxnet.crosscheck.check_function`."""
        __tracebackhide__ = True
        return self._checked("crosscheck.function", f, args, options)

    def network(self, network: Any, *samples: Any, **options: Any) -> "Report":
        """Checks a network with samples and labels; see `jaxnet.crosscheck.check_network`."""
        __tracebackhide__ = True
        return self._checked("crosscheck.network", network, samples, options)

    def _checked(self, form: str, thing: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> "Report":
        """Runs a check, records it, and fails the test unless the verdict allows it to go on.

        Raises:
            AssertionError: If the verdict is FAIL, or INCONCLUSIVE where that is a failure.
            SubjectError, TypeError, ValueError: If the code or the options do not allow a check.
        """
        __tracebackhide__ = True
        from jaxnet.crosscheck import SubjectError

        start, title = time.perf_counter(), options.get("name") or _name_of(thing)
        try:
            inputs, options = self._with_defaults(form, inputs, options)
            report = _report(form, title, thing, inputs, options)
        except (OptionError, SubjectError, ValueError) as error:
            self._record(title, "refused", start)
            # Neither the checker's frames nor the chain of exceptions, whose last one the message names.
            raise error.with_traceback(None) from None
        has_warnings = any(part.warnings for part in (report, *report.points, *report.layers, *report.derivatives))
        self._record(report.subject, OUTCOMES[report.verdict], start, has_warnings=has_warnings)
        if report and has_warnings:
            self._show(report.text(width=WIDTH))
        if self._properties is not None:
            self._properties.append(("crosscheck", json.dumps(report.to_dict(), allow_nan=False)))
        if not report:
            self._object(report, options["seed"])
        return report

    def _object(self, report: "Report", seed: int) -> None:
        """Raises an AssertionError for a FAIL; does for INCONCLUSIVE what the setting says."""
        __tracebackhide__ = True
        from jaxnet.crosscheck import InconclusiveWarning, Verdict
        from jaxnet.crosscheck.gradient_line import computed_at

        origin = "the test's id" if seed == self.seed else "seed="
        is_at_line = report.verdict is Verdict.FAIL and report.lines
        at_line = f"{computed_at(report.lines)}\n" if is_at_line else ""
        text = message(report, f"{at_line}seed {seed}, from {origin}")
        if report.verdict is Verdict.FAIL or self._inconclusive == "fail":
            raise AssertionError(text)
        if self._inconclusive == "warn":
            first, _, _ = text.partition("\n")
            warnings.warn(f"{first} (seed {seed}, from {origin})", InconclusiveWarning, stacklevel=4)

    def _with_defaults(
        self, form: str, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the inputs and options of a call, completed by those of the marker and by the seed.

        Raises:
            TypeError: If no such option exists, or the marker has made a test for each value of it.
        """
        defaults = dict(self._defaults)
        if self._case is not None and self._case.inputs is not None:
            _expect_once("shapes", inputs, options)
            del defaults["shapes"]
            inputs = self._case.inputs
        if self._case is not None and self._case.dtype is not None:
            _expect_once("dtypes", (), options)
            defaults["dtypes"] = self._case.dtype
        merged = {"seed": self.seed} | defaults | options
        expect_options(merged, form)
        if inputs and merged.get("shapes") is not None:
            raise OptionError(
                "shapes: given beside inputs, expected one of them: put the inputs into the list of shapes"
            )
        return inputs, merged

    def _record(self, subject: str, outcome: str, start: float, *, has_warnings: bool = False) -> None:
        seconds = time.perf_counter() - start
        self._checks.append(
            Check(test=self._test, subject=subject, outcome=outcome, seconds=seconds, has_warnings=has_warnings)
        )


def _expect_once(option: str, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    if inputs or option in options:
        given = f"{option}=" if option in options else "inputs"
        raise OptionError(f"{option}: given in the marker, and {given} in the call, expected one of them")


def _name_of(thing: Any) -> str:
    from jaxnet.crosscheck.inspect.function import name_of

    return name_of(thing[0] if isinstance(thing, tuple) and thing else thing)


def _report(form: str, title: str, thing: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> "Report":
    """Returns the report of a check; if there are several dtypes, one report with those in each of them."""
    from jaxnet import crosscheck

    check = getattr(crosscheck, FORMS[form])
    others = {name: value for name, value in options.items() if name != "dtypes"}
    if options.get("dtypes") is None:
        return check(thing, *inputs, **others)
    dtypes = dtype_names(options["dtypes"])
    reports = [_report_in(dtype, form, title, thing, inputs, others) for dtype in dtypes]
    if len(reports) == 1:
        return reports[0]
    points = [
        replace(part, subject=f"{part.subject} in {dtype}")
        for dtype, report in zip(dtypes, reports, strict=True)
        for part in report.points or (report,)
    ]
    calls, seconds = sum(report.calls for report in reports), sum(report.seconds for report in reports)
    return crosscheck.Report(title, None, (), points=tuple(points), calls=calls, seconds=seconds, seed=options["seed"])


def _report_in(
    dtype: str, form: str, title: str, thing: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]
) -> "Report":
    """Returns the report of a check with all floats in a dtype."""
    from jaxnet import crosscheck
    from jaxnet.crosscheck.many_points import check_shapes

    others = {name: value for name, value in options.items() if name not in ("shapes", "seed")}

    def at(inputs: tuple[Any, ...], seed: int) -> "Report":
        converted = inputs_in(dtype, thing, inputs, seed)
        if form != "crosscheck.function":  # whose floats are all among the inputs
            expect_parameters_in(dtype, thing, converted, seed)
        return getattr(crosscheck, FORMS[form])(thing, *converted, seed=seed, **others)

    if (shapes := options.get("shapes")) is not None:
        return check_shapes(title, shapes, options["seed"], at)
    return at(inputs, options["seed"])
