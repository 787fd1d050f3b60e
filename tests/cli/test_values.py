"""Tests the values of a command line: arrays, numbers, strings, collections, files, expressions, and malformed ones."""

import numpy as np
import pytest

from jaxnet.crosscheck.inspect.torch_tensors import tensors_from
from jaxnet.crosscheck.shell_values import in_dtype, values
from jaxnet.crosscheck.targets import TargetError


def parsed(*specs, seed=0):
    return values(specs, np.random.default_rng(seed))


PLAIN = {
    "=3": 3, "=-3": -3, "0.5": 0.5, "1e-3": 1e-3, "-2": -2, "=1+2j": 1 + 2j, "None": None, "True": True, "False": False,
    "str:same": "same", "str:a=b,c": "a=b,c", "str:": "", "'same'": "same", "(2,2)": (2, 2), "(2,)": (2,), "()": (),
    "[1, -1]": [1, -1], "[0.5,str:x,(1,2)]": [0.5, "x", (1, 2)], "{a:=3,b:0.5}": {"a": 3, "b": 0.5},
    "{a:{b:None}}": {"a": {"b": None}},
    "{\"a\": 0.5, 'b': =3}": {"a": 0.5, "b": 3}, "py:2**10": 1024, "py:dict(a=[1, 2])": {"a": [1, 2]},
}  # fmt: skip


@pytest.mark.parametrize("spec", PLAIN)
def test_a_value_is_parsed(spec):
    ((value,), named) = parsed(spec)
    assert value == PLAIN[spec]
    assert type(value) is type(PLAIN[spec])
    assert named == {}


ARRAYS = {
    "4x3": (4, 3), "3": (3,), "3,": (3,), "1x1x2": (1, 1, 2), "py:np.eye(3)": (3, 3),
    "py:rng.normal(size=(2, 5))": (2, 5), "shape:4x3": (4, 3), "shape:3": (3,), "shape:()": (), "array:0.7": (),
    "array:[[1.5,2],[3,4]]": (2, 2),
}  # fmt: skip


@pytest.mark.parametrize("spec", ARRAYS)
def test_an_array_has_the_shape_that_is_written(spec):
    ((value,), _) = parsed(spec)
    assert value.shape == ARRAYS[spec]
    assert value.dtype == np.float64


def test_an_array_has_the_values_that_are_written():
    ((scalar, labels, nested), named) = parsed("array:0.7", "array:[2,0]", "[array:1.5,shape:2]", "s=array:-1e-3")
    assert (scalar, labels.tolist(), labels.dtype.kind) == (0.7, [2, 0], "i")
    assert (nested[0], nested[1].shape, named["s"]) == (1.5, (2,), -1e-3)
    assert isinstance(named["s"], np.ndarray)


def test_integers_are_below_their_limit():
    ((value,), _) = parsed("5x40<3")
    assert value.shape == (5, 40)
    assert set(value.ravel()) == {0, 1, 2}


def test_values_by_name_and_dicts_by_dots():
    _, named = parsed("stride=2", "W=4x3", "b=shape:3", "mode=str:a=b", "p.W=2x3", "p.inner.b=5,", "p.n=4")
    assert named["stride"] == 2
    assert (named["W"].shape, named["b"].shape, named["mode"]) == ((4, 3), (3,), "a=b")
    assert (named["p"]["W"].shape, named["p"]["inner"]["b"].shape, named["p"]["n"]) == ((2, 3), (5,), 4)


def test_arrays_inside_collections_are_drawn_one_after_another():
    ((pair,), named) = parsed("(4x3,3)", "params={W1:4x3,b1:3,sizes:(2,2)}")
    assert [part.shape for part in pair] == [(4, 3), (3,)]
    assert (named["params"]["W1"].shape, named["params"]["b1"].shape) == ((4, 3), (3,))
    assert named["params"]["sizes"] == (2, 2)
    assert not np.array_equal(pair[0], named["params"]["W1"])


@pytest.mark.parametrize(
    ("in_brackets", "shape"), [("(5,6)", "5x6"), ("x=(5,6)", "x=5x6"), ("(3,)", "3,"), ("py:(5,6)", "5x6")]
)
def test_a_tuple_may_be_the_shape_of_the_same_array(in_brackets, shape):
    arrays = []
    for spec in (in_brackets, shape):
        positional, named = values(["2x2", spec], np.random.default_rng(0), tuples_are_shapes=True)
        arrays.append([*positional, *named.values()][1])
    assert arrays[0].shape == arrays[1].shape
    np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize("spec", ["[5,6]", "((5,6),0.5)", "(0,6)", "()", "{size:(5,6)}"])
def test_other_collections_of_integers_are_no_shapes(spec):
    ((value,), _) = values([spec], np.random.default_rng(0), tuples_are_shapes=True)
    assert value == parsed(spec)[0][0]


def test_files_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(4.0))
    np.savez("weights.npz", W=np.ones((2, 3)), b=np.zeros(3))
    positional, named = parsed("x.npy", "weights.npz", "y=x.npy", "params=weights.npz")
    assert positional[0].tolist() == named["y"].tolist() == [0, 1, 2, 3]
    assert (named["W"].shape, named["params"]["b"].shape) == ((2, 3), (3,))


def test_a_file_of_pytorch_is_read_without_importing_torch_first(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save([torch.ones(2), torch.zeros(3)], tmp_path / "x.pt")
    positional, _ = parsed(str(tmp_path / "x.pt"))
    assert [tuple(tensor.shape) for tensor in positional] == [(2,), (3,)]


MALFORMED = {
    "three": "a string is written str:three", "true": "did you mean True?", "none": "did you mean None?",
    "4X3": "did you mean 4x3?", "4*3": "did you mean 4x3?", "4x0": "a size is below 1; write a number as =4x0",
    "x=": "expected a shape", "5<0": "expected 1 or more after <", "(4x3,3": "expected ')' at the end",
    "(4x3]": "closes nothing",
    "(2,2)x": "text after the closing ')'", "{W1}": "'W1' in braces, expected NAME:VALUE",
    "py:nope(3)": "raised NameError: name 'nope' is not defined; expected an expression of np",
    "shape:4X3": "the shape is '4X3', expected sizes such as 4x3 or 4", "shape:": "expected sizes such as 4x3",
    "shape:0x2": "a size is below 1", "array:4x3": "a shape is written shape:4x3",
    "array:[[1],[2,3]]": "expected numbers", "array:['a']": "expected numbers",
    "x.y.npz": "there is no such file",
    "(1,three)": "a string is written str:three",
}  # fmt: skip


@pytest.mark.parametrize("spec", MALFORMED)
def test_a_malformed_value_is_an_error_that_names_it_and_what_was_expected(spec):
    with pytest.raises((TargetError, TypeError)) as refused:
        parsed(spec)
    assert MALFORMED[spec] in str(refused.value)
    assert spec in str(refused.value)


@pytest.mark.parametrize("specs", [("p=0.5", "p.W=3,"), ("a=1", "a=2")])
def test_a_value_given_twice_is_an_error(specs):
    with pytest.raises(TargetError, match=r"a value already|given twice"):
        parsed(*specs)


def test_the_dtype_applies_to_float_arrays_inside_collections():
    ((pair, ids), _) = parsed("(2x3,[2x3,0.5])", "4<3")
    first, (second, number) = in_dtype(pair, "float32")
    assert (first.dtype, second.dtype, number) == ("float32", "float32", 0.5)
    assert in_dtype(ids, "float32").dtype == ids.dtype


@pytest.mark.parametrize(("dtype", "rounded"), [("float16", 1.0009765625), ("bfloat16", 1.0)])
def test_arrays_and_tensors_have_sixteen_bits_if_asked(dtype, rounded):
    torch = pytest.importorskip("torch")
    array = in_dtype(np.array([1 + 2.0**-10]), dtype)  # float16 has 10 bits after the point, bfloat16 has 7
    assert (array.dtype.name, float(array[0])) == (dtype, rounded)
    assert tensors_from(array).dtype == getattr(torch, dtype)
    assert tensors_from(array).item() == rounded


def test_arrays_inside_collections_become_tensors():
    torch = pytest.importorskip("torch")
    tensors = tensors_from({"a": (np.ones(2), "x")})
    assert torch.equal(tensors["a"][0], torch.ones(2, dtype=torch.float64))
    assert tensors["a"][1] == "x"
