"""Tests layers and pairs of functions that pass dicts to each other, with one float array in each."""

import numpy as np
import pytest
from conftest import exhaustive, sampled
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


class _Cell:
    """Holds a parameter and its gradient."""

    def __init__(self, value):
        self.value, self.grad = value, None


def blob():
    return {"height": 1, "width": 1, "data": draw(5, 4)}


@style
def another_key_for_the_gradient(k):
    class Dense:
        def __init__(self):
            self.params = {"w": _Cell(draw(4, 3)), "b": _Cell(draw(3))}

        def forward(self, inputs):
            self.data = inputs["data"]
            return {"height": 1, "width": 1, "data": self.data @ self.params["w"].value + self.params["b"].value}

        def backward(self, upstream):
            dout = upstream["grad"]
            self.params["w"].grad, self.params["b"].grad = k * self.data.T @ dout, dout.sum(axis=0)
            return {"grad": dout @ self.params["w"].value.T}

    return Dense(), (blob(),)


@style
def the_gradient_beside_the_output(k):
    class Tanh:
        def forward(self, bottom):
            return bottom | {"data": np.tanh(bottom["data"])}

        def backward(self, top):
            return {"diff": k * top["diff"] * (1 - top["data"] ** 2)}

    return Tanh(), (blob(),)


@style
def a_gradient_that_is_passed_alone(k):
    class Square:
        def forward(self, sample):
            self.sample = sample
            return {"name": "square", "features": sample["x"] ** 2}

        def backward(self, dout):
            return 2 * k * self.sample["x"] * dout

    return Square(), ({"x": draw(5, 4)},)


@style
def functions_that_take_the_output_again(k):
    def dense_forward(source, layer, param):
        return {"batch_size": 5, "data": source["data"] @ param["w"] + param["b"]}

    def dense_backward(output, source, layer, param):
        gradients = {"w": k * source["data"].T @ output["diff"], "b": output["diff"].sum(axis=0)}
        return gradients, output["diff"] @ param["w"].T

    return (dense_forward, dense_backward), (blob(), {"num": 3}, {"w": draw(4, 3), "b": draw(3)})


@pytest.mark.parametrize("name", sampled(STYLES, 3))
def test_correct_gradients_of_dicts_pass(name):
    thing, inputs = STYLES[name](1.0)
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)


WRONG = {
    "another_key_for_the_gradient": "params['w']",
    "the_gradient_beside_the_output": "bottom",
    "a_gradient_that_is_passed_alone": "sample",
    "functions_that_take_the_output_again": "param['w']",
}


@pytest.mark.parametrize("factor", [1.01, exhaustive(2.0), exhaustive(-1.0)])
@pytest.mark.parametrize(("name", "leaf"), sampled(WRONG.items(), 3))
def test_a_wrong_gradient_of_dicts_fails(name, leaf, factor):
    thing, inputs = STYLES[name](factor)
    report = check(thing, *inputs)
    assert [found.name for found in report.leaves if found.verdict == "FAIL"] == [leaf], str(report)


def test_a_note_names_the_keys():
    thing, inputs = STYLES["another_key_for_the_gradient"](1.0)
    expected = "Dense.forward takes and returns dicts: 'data' of the first is checked through 'data' of the second"
    assert f"{expected}, with dout as its entry 'grad'" in check(thing, *inputs).notes


def test_a_backward_that_ignores_its_dict_is_refused_with_the_keys():
    class Constant:
        def forward(self, inputs):
            return {"data": inputs["data"] * 2}

        def backward(self, upstream):
            return {"grad": upstream["grad"] * 0 + 2}

    with pytest.raises(SubjectError, match=r"reads dout\['grad'\]"):
        check(Constant(), blob())
