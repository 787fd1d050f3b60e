"""Arguments with structure: gradients are judged along the directions that keep it, given or recognized."""

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import Cause, Verdict, check_function
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.measure.structures import STRUCTURES

rng = np.random.default_rng(3)
M = rng.standard_normal((4, 4))
C = rng.standard_normal((4, 4))
Q, _ = np.linalg.qr(M)
VALUES = {
    "symmetric": M + M.T,
    "positive definite": M @ M.T + np.eye(4),
    "skew-symmetric": M - M.T,
    "lower triangular": np.tril(M),
    "upper triangular": np.triu(M),
    "diagonal": np.diag(M[0]),
    "simplex": np.abs(M) / np.abs(M).sum(axis=-1, keepdims=True),
    "unit rows": M / np.linalg.norm(M, axis=-1, keepdims=True),
    "rotation": Q,
}
# For each, a nonzero direction orthogonal to all tangents at the value: a gradient may have any part along it.
NORMALS = {
    "symmetric": M - M.T,
    "positive definite": M - M.T,
    "skew-symmetric": M + M.T,
    "lower triangular": np.triu(M, 1),
    "upper triangular": np.tril(M, -1),
    "diagonal": M - np.diag(np.diag(M)),
    "simplex": np.ones((4, 4)) * M[:, :1],
    "unit rows": VALUES["unit rows"] * M[:, :1],
    "rotation": Q @ (M + M.T),
}


def quadratic(x):
    return float((C * x).sum() + (x**3).sum())


def gradient_with(part):
    return lambda x: C + 3 * x**2 + part


@pytest.mark.parametrize("name", VALUES)
def test_the_tangents_are_orthogonal_to_the_normal_directions(name):
    tangent = STRUCTURES[name].project(VALUES[name], rng.standard_normal((4, 4)))
    assert abs((tangent * NORMALS[name]).sum()) < 1e-12
    assert np.abs(NORMALS[name]).max() > 0.1
    np.testing.assert_allclose(STRUCTURES[name].project(VALUES[name], tangent), tangent, atol=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_a_gradient_that_is_right_along_the_structure_passes_where_it_is_given(name):
    gradient = gradient_with(NORMALS[name])
    report = check_function(quadratic, VALUES[name], gradient=gradient, structure={"x": name})
    assert report.verdict is Verdict.PASS
    assert name in report.leaves[0].notes[0]


@pytest.mark.parametrize("name", mostly_slow(VALUES, 3))
def test_a_gradient_that_is_wrong_along_the_structure_fails(name):
    for factor in (1.5, -2, 1 + 1e-5):
        gradient = gradient_with(NORMALS[name])
        report = check_function(
            quadratic, VALUES[name], gradient=lambda x, g=gradient, k=factor: k * g(x), structure={"x": name}
        )
        assert report.verdict is Verdict.FAIL
        assert set(report.leaves[0].values) == {"analytic", "numerical"}


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("diagonal", "positive definite")])
def test_a_structure_is_recognized_from_a_failure(name):
    report = check_function(quadratic, VALUES[name], gradient=gradient_with(NORMALS[name]))
    (leaf,) = report.leaves
    assert report.verdict is Verdict.INCONCLUSIVE
    assert leaf.cause is Cause.STRUCTURED_ONLY
    assert f"structure={{'x': '{name}'}}" in report.text(width=None)


@pytest.mark.parametrize("name", VALUES)
def test_a_gradient_that_is_right_in_all_directions_passes_without_a_structure(name):
    assert check_function(quadratic, VALUES[name], gradient=gradient_with(0)).verdict is Verdict.PASS


@pytest.mark.parametrize("name", VALUES)
def test_a_wrong_gradient_fails_though_the_value_has_a_structure(name):
    assert check_function(quadratic, VALUES[name], gradient=gradient_with(M**2)).verdict is Verdict.FAIL


def test_the_determinant_of_a_rotation_moves_along_rotations_only():
    def off_by_scale(x):
        return float((C * x).sum() * np.linalg.det(x))  # the determinant is 1 for rotations, however they turn

    report = check_function(off_by_scale, Q, gradient=lambda x: C * np.linalg.det(x), structure={"x": "rotation"})
    assert report.verdict is Verdict.PASS


def test_a_projection_of_the_user_is_a_structure():
    def constant_sum(x, d):
        return d - d.mean()

    x = np.arange(4.0)
    options = {"gradient": lambda x: 2 * x + 5, "structure": {"x": constant_sum}}
    assert check_function(lambda x: float((x**2).sum()), x, **options).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("structure", "message"),
    [({"w": "simplex"}, "no array is called 'w'"), ({"x": "round"}, "'round' for x, expected one of 'symmetric'"),
     ({"x": "simplex"}, "x does not have it")],
)  # fmt: skip
def test_an_invalid_structure_is_refused(structure, message):
    with pytest.raises(ValueError, match=f"structure: .*{message}"):
        check_function(quadratic, M, gradient=gradient_with(0), structure=structure)


@pytest.mark.parametrize(
    "project",
    [lambda x, d: 0 * d, lambda x, d: d + 1, lambda x, d: d + d.T, lambda x, d: d[0], lambda x: x],
    ids=["zero", "affine", "twice", "another shape", "one argument"],
)
def test_a_function_that_is_no_projection_is_refused(project):
    with pytest.raises(ValueError, match="structure: the function for x"):
        check_function(quadratic, M + M.T, gradient=gradient_with(7), structure={"x": project})


def test_a_structure_without_a_name_is_refused():
    with pytest.raises(ValueError, match="expected a dict by name"):
        check_function(quadratic, M + M.T, gradient=gradient_with(0), structure="symmetric")


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.5])
def test_a_factor_along_a_structure_is_named(factor):
    S = np.random.default_rng(0).normal(size=(4, 4))
    S = S @ S.T + np.eye(4)
    report = check_function(
        lambda S: np.linalg.slogdet(S)[1],
        S,
        gradient=lambda S: factor * np.linalg.inv(S),
        structure={"S": "positive definite"},
    )
    (leaf,) = report.leaves
    assert (leaf.verdict, leaf.slip) == (Verdict.FAIL, Slip.FACTOR)
    assert f"it equals the true gradient times {factor:g}" in leaf.diagnosis


def along(name, mistake):
    """Returns the leaf of the report on a gradient with a mistake, judged along a structure."""
    report = check_function(quadratic, VALUES[name], gradient=lambda x: mistake(x, C + 3 * x**2), structure={"x": name})
    assert report.verdict is Verdict.FAIL
    return report.leaves[0]


def symmetric_part(g):
    return (g + g.T) / 2


MISTAKES = {
    "twice": (
        "symmetric",
        lambda _, g: 2 * symmetric_part(g) - np.diag(np.diag(g)),
        Slip.PART_FACTOR,
        "the elements off the diagonal: it equals the true gradient times 2 there, and the rest is right: each pair of "
        "equal elements is counted twice",
    ),
    "once": (
        "positive definite",
        lambda _, g: np.tril(symmetric_part(g)),
        Slip.PART_FACTOR,
        "the elements off the diagonal: it equals the true gradient times 0.5 there, and the rest is right: each pair "
        "of equal elements is counted once",
    ),
    "diagonal twice": (
        "symmetric",
        lambda _, g: g + np.diag(np.diag(g)),
        Slip.PART_FACTOR,
        "the diagonal: it equals the true gradient times 2 there, and the rest is right",
    ),
    "no diagonal": (
        "positive definite",
        lambda _, g: g - np.diag(np.diag(g)),
        Slip.PART_MISSING,
        "the diagonal: it is zero there, and the rest is right",
    ),
    "only the diagonal": (
        "lower triangular",
        lambda _, g: np.diag(np.diag(g)),
        Slip.PART_MISSING,
        "the elements off the diagonal: it is zero there, and the rest is right",
    ),
    "a wrong diagonal": (
        "upper triangular",
        lambda _, g: g + np.diag([1.0, 2.0, -3.0, 0.5]),
        Slip.PLACE,
        "the diagonal: it is wrong there, and the rest is right",
    ),
    "no row": (
        "simplex",
        lambda _, g: g * np.array([[1.0], [0.0], [1.0], [1.0]]),
        Slip.PART_MISSING,
        "row [1]: it is zero there, and the rest is right",
    ),
    "another row": (
        "unit rows",
        lambda _, g: np.where(np.arange(4)[:, None] == 2, g[::-1], g),
        Slip.PLACE,
        "row [2]: it is wrong there, and the rest is right",
    ),
    "transposed": (
        "lower triangular",
        lambda _, g: np.tril(g).T,
        Slip.TRANSPOSED,
        "it equals the true gradient transposed, along the structure",
    ),
    "transposed rows": (
        "simplex",
        lambda _, g: g.T,
        Slip.TRANSPOSED,
        "it equals the true gradient transposed, along the structure",
    ),
    "turn": (
        "rotation",
        lambda x, g: (x.T @ g - g.T @ x) / 2,
        Slip.WRONG_PRODUCT,
        "it is x^T G in the place of the true gradient G, so by a turn and not by the elements",
    ),
    "turn from the left": (
        "rotation",
        lambda x, g: g @ x.T,
        Slip.WRONG_PRODUCT,
        "it is G x^T in the place of the true gradient G, so by a turn and not by the elements",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_along_a_structure_is_named(mistake):
    name, make, slip, sentence = MISTAKES[mistake]
    leaf = along(name, make)
    assert (leaf.slip, leaf.diagnosis) == (slip, sentence)


@pytest.mark.parametrize("name", VALUES)
def test_an_error_of_no_form_is_not_named(name):
    error = np.random.default_rng(8).standard_normal((4, 4))
    leaf = along(name, lambda _, g: g + error)
    assert (leaf.slip, leaf.diagnosis) == (None, "")


@pytest.mark.parametrize("name", VALUES)
def test_each_part_of_a_structure_keeps_it(name):
    structure, x = STRUCTURES[name], VALUES[name]
    parts = structure.parts(x)
    for mask in parts.values():
        tangent = structure.project(x, M * mask)
        np.testing.assert_array_equal(tangent[~mask], 0)
    if parts:
        np.testing.assert_array_equal(sum(mask.astype(int) for mask in parts.values()), 1)
