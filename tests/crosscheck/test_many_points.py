"""Checks at many shapes and at inputs from files: a layer that is wrong for one size fails, and the size is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function, check_layer

BLOCK = 4


class Blocked:
    """Sums of squares along the last axis, whose backward handles whole blocks only."""

    def forward(self, x):
        self.x = x
        return (x**2).sum(axis=-1)

    def backward(self, dout):
        dx = 2 * self.x * dout[..., None]
        whole = self.x.shape[-1] // BLOCK * BLOCK
        dx[..., whole:] = 0.0
        return dx


class MeanOfBatch:
    def forward(self, x):
        self.x = x
        return ((x - x.mean(axis=0)) ** 2).sum(axis=1)

    def backward(self, dout):
        if len(self.x) == 1:
            raise ValueError("a batch of one")
        d = 2 * (self.x - self.x.mean(axis=0)) * dout[:, None]
        return d - d.mean(axis=0)


def matmul(x, w):
    return x @ w


@pytest.mark.slow
def test_only_the_sizes_that_are_wrong_fail():
    report = check(Blocked(), shapes=[(3, 4), (3, 8), (3, 6), (1, 4), (2, 3, 4), (3, 1)])
    assert [part.verdict for part in report.points] == ["PASS", "PASS", "FAIL", "PASS", "PASS", "FAIL"]
    assert report.verdict is Verdict.FAIL
    assert "at 6 inputs: 2 FAIL" in report.text(width=None)
    assert "Blocked at (3, 6)" in report.text(width=None)


def test_all_right_sizes_pass_in_one_line_and_details_list_them():
    report = check(Blocked(), shapes=[(3, 4), (2, 8)])
    assert report.verdict is Verdict.PASS
    assert str(report).startswith("PASS  Blocked (x) at 2 inputs: relative error ")
    assert len(str(report).splitlines()) == 1
    assert "  Blocked at (2, 8)  PASS" in report.details().splitlines()
    assert report.calls == sum(part.calls for part in report.points)


def test_a_size_that_the_code_rejects_is_no_pass():
    report = check(MeanOfBatch(), shapes=[(5, 4), (1, 4)])
    assert report.verdict is Verdict.FAIL
    assert "a batch of one" in report.text(width=None)


def test_several_inputs_and_values_are_in_one_entry():
    report = check((lambda x, w: (x @ w, (x, w)), lambda dout, c: (dout @ c[1].T, c[0].T @ dout)),
                   shapes=[((5, 4), (4, 3)), [(1, 4), np.ones((4, 2))]])  # fmt: skip
    assert [len(part.leaves) for part in report.points] == [2, 2]
    assert report.verdict is Verdict.PASS


def test_each_entry_draws_its_own_numbers():
    values = []
    check((lambda x: (values.append(x.copy()), (x**2, x))[1], lambda dout, x: 2 * x * dout), shapes=[(3,), (3,)])
    assert len({array.tobytes() for array in values if array.shape == (3,)}) > 2


@pytest.mark.slow
def test_a_function_makes_the_inputs():
    sizes = []

    def make(rng):
        n = int(rng.integers(1, 9))
        sizes.append(n)
        return rng.standard_normal((2, n))

    report = check(Blocked(), shapes=make)
    assert len(report.points) == 8
    assert [part.verdict for part in report.points] == ["PASS" if n % BLOCK == 0 else "FAIL" for n in sizes]


@pytest.mark.parametrize("shapes", [(5, 4), [], "5x4", 3])
def test_shapes_of_another_form_are_refused(shapes):
    with pytest.raises(SubjectError, match="shapes: "):
        check(Blocked(), shapes=shapes)


def test_inputs_beside_shapes_are_refused():
    with pytest.raises(SubjectError, match="shapes: given beside inputs"):
        check(Blocked(), (3, 4), shapes=[(3, 4)])


def test_code_that_runs_at_no_size_is_refused():
    with pytest.raises(SubjectError, match="raised ValueError"):
        check((lambda x: x @ np.ones((7, 2)), lambda dout, c: dout), shapes=[(3, 4), (1, 4)])


def test_inputs_come_from_files_by_name(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "run.npz", w=rng.standard_normal((4, 3)), x=rng.standard_normal((5, 4)))
    np.save(tmp_path / "x.npy", rng.standard_normal((3, 8)))

    def gradient(x, w, dout):
        return dout @ w.T, x.T @ dout

    report = check_function(matmul, tmp_path / "run.npz", gradient=gradient)
    assert report.verdict is Verdict.PASS
    assert [leaf.size for leaf in report.leaves] == [20, 12]
    assert check_layer(Blocked(), tmp_path / "x.npy").verdict is Verdict.PASS
    assert check(Blocked(), tmp_path / "x.npy").verdict is Verdict.PASS


@pytest.mark.slow
def test_tensors_come_from_a_file(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.randn(4, 3).double(), "x": torch.randn(5, 4).double()}, tmp_path / "run.pt")
    assert check(torch.nn.functional.linear, torch.ones(2, 4), torch.ones(3, 4)).verdict is Verdict.PASS
    assert check(lambda x, w: x @ w, tmp_path / "run.pt").verdict is Verdict.PASS


def test_a_file_of_pytorch_needs_pytorch(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(SubjectError, match="import torch first"):
        check_function(matmul, tmp_path / "run.pt")


def test_errors_of_files_name_them(tmp_path):
    with pytest.raises(SubjectError, match=r"none\.npz: there is no such file"):
        check(Blocked(), tmp_path / "none.npz")
    with pytest.raises(SubjectError, match=r"run\.txt: expected a file of arrays"):
        check(Blocked(), Path("run.txt"))
    np.savez(tmp_path / "run.npz", y=np.ones(3))
    with pytest.raises(SubjectError, match="matmul takes x, w, and no y"):
        check_function(matmul, tmp_path / "run.npz", gradient=lambda x, w, dout: dout)
