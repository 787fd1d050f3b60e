"""Tests gradients in SciPy's forms: Jacobians, sparse matrices, linear operators, Hessians, and its problems."""

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.sparse.linalg import aslinearoperator

from jaxnet.crosscheck import check, check_function

X = np.array([1.3, 0.7, 0.8, 1.9, 1.2])


def residuals(x):
    return np.array([x[0] ** 2, x[1] * x[2], np.sin(x[3])])


def jacobian(x, factor=1.0):
    j = np.zeros((3, 5))
    j[0, 0], j[1, 1], j[1, 2], j[2, 3] = 2 * x[0], x[2], factor * x[1], np.cos(x[3])
    return j


FORMS = [np.asarray, sparse.csr_array, sparse.coo_matrix, aslinearoperator]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_jacobian_in_any_form(form):
    report = check_function(residuals, X, gradient=lambda x: form(jacobian(x)))
    assert report.verdict.value == "PASS", str(report)
    assert "returns the Jacobian of residuals" in report.text(width=None)
    for factor in (2.0, -1.0, 0.0, 1.0001):
        wrong = check_function(residuals, X, gradient=lambda x, c=factor: form(jacobian(x, c)))
        assert wrong.verdict.value == "FAIL", factor


@pytest.mark.parametrize("form", FORMS)
def test_hessian_is_the_jacobian_of_the_gradient(form):
    hessian = optimize.rosen_hess
    assert check_function(optimize.rosen_der, X, gradient=lambda x: form(hessian(x))).verdict.value == "PASS"
    one_sided = check_function(optimize.rosen_der, X, gradient=lambda x: form(np.tril(hessian(x))))
    assert one_sided.verdict.value == "FAIL"


def test_product_with_the_hessian():
    hessp = optimize.rosen_hess_prod
    assert check_function(optimize.rosen_der, X, gradient=hessp).verdict.value == "PASS"
    assert check_function(optimize.rosen_der, X, gradient=lambda x, p: 2 * hessp(x, p)).verdict.value == "FAIL"


def test_sparse_gradient_of_a_number_in_each_dtype():
    def gradient(x):
        return sparse.csr_array(optimize.rosen_der(x)[None])

    for dtype in (np.float32, np.float64):
        assert check_function(optimize.rosen, X.astype(dtype), gradient=gradient).verdict.value == "PASS"
    assert check_function(optimize.rosen, X, gradient=lambda x: 2 * gradient(x)).verdict.value == "FAIL"


def test_jacobians_of_several_inputs():
    a, x = np.arange(1.0, 7.0).reshape(2, 3), np.array([0.3, -0.4, 0.9])

    def by_each(a, x):
        return np.einsum("ij,k->ijk", np.eye(2), x).reshape(2, 2, 3), a

    assert check_function(lambda a, x: a @ x, a, x, gradient=by_each).verdict.value == "PASS"
    wrong = check_function(lambda a, x: a @ x, a, x, gradient=lambda a, x: (by_each(a, x)[0], -a))
    assert [leaf.verdict.value for leaf in wrong.leaves] == ["PASS", "FAIL"]


def test_transposed_jacobian_fails():
    assert check_function(residuals, X, gradient=lambda x: jacobian(x).T).verdict.value == "FAIL"
    square = np.arange(9.0).reshape(3, 3)
    assert check_function(lambda x: square @ x, X[:3], gradient=lambda x: square.T).verdict.value == "FAIL"


def test_gradient_of_the_sum_of_the_outputs_stays_one():
    report = check_function(np.sin, X, gradient=np.cos)
    assert report.verdict.value == "PASS"
    assert "the sum of the outputs" in report.text(width=None)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (2.0, "FAIL")])
def test_problems(factor, verdict):
    both = {"fun": lambda x: (optimize.rosen(x), factor * optimize.rosen_der(x)), "jac": True}
    slsqp = {
        "type": "ineq",
        "fun": lambda x, a: a * optimize.rosen(x),
        "jac": lambda x, a: factor * a * optimize.rosen_der(x),
        "args": (3.0,),
    }
    constraint = optimize.NonlinearConstraint(residuals, 0, 1, jac=lambda x: factor * jacobian(x))
    for problem in (both, slsqp, constraint):
        assert check(problem, X).verdict.value == verdict


def test_callable_objects_stay_as_they_were():
    class Counted:
        calls = 0

        def __call__(self, x):
            self.calls += 1
            return jacobian(x)

    gradient = Counted()
    assert check_function(residuals, X, gradient=gradient).verdict.value == "PASS"
    assert gradient.calls == 0


PROBLEM = {"fun": optimize.rosen, "jac": optimize.rosen_der}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("hess", lambda x, c: c * optimize.rosen_hess(x)),
        ("hess", lambda x, c: sparse.csr_array(c * optimize.rosen_hess(x))),
        ("hessp", lambda x, p, c: c * optimize.rosen_hess_prod(x, p)),
    ],
)
def test_the_hessian_of_a_problem_is_its_second_order(name, second):
    for factor, verdict in ((1.0, "PASS"), (1.001, "FAIL"), (-1.0, "FAIL")):
        given = {
            "hess": lambda x, c=factor: second(x, c),
            "hessp": lambda x, p, c=factor: second(x, p, c),
        }
        problem = PROBLEM | {name: given[name]}
        assert check(problem, X, order=2).verdict.value == verdict
        alone = check(problem, X)
        assert alone.verdict.value == "PASS"
        assert "its second derivative is checked with order=2 alone" in alone.notes


def test_the_hessian_of_a_constraint_weighs_its_values():
    def constraint(factor):
        def fun(x):
            return np.array([x[0] ** 2 * x[1], np.sin(x[2])])

        def jac(x):
            return np.array([[2 * x[0] * x[1], x[0] ** 2, 0], [0, 0, np.cos(x[2])]])

        def hess(x, v):
            across = 2 * x[0] * v[0]
            return np.array([[2 * x[1] * v[0], across, 0], [factor * across, 0, 0], [0, 0, -np.sin(x[2]) * v[1]]])

        return optimize.NonlinearConstraint(fun, -1, 1, jac=jac, hess=hess)

    report = check(constraint(1.0), X[:3], order=2)
    assert report.verdict.value == "PASS", str(report)
    assert not report.derivatives[0].warnings
    assert check(constraint(1.1), X[:3], order=2).verdict.value == "FAIL"
