"""The examples in docstrings run, and print what they say."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet
from jaxnet.data import text
from jaxnet.train import fit, step, sweep

GLOBALS = {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "jaxnet": jaxnet, "text": text}


@pytest.mark.parametrize(("module", "names"), [
    (fit, {"fit", "iter_fit"}), (step, {"draw_batches", "train_step"}), (sweep, {"sweep"}), (text, {"windows"}),
], ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_the_examples_print_what_they_say(module, names):
    tests = [test for test in doctest.DocTestFinder().find(module, extraglobs=GLOBALS) if test.examples]
    assert {test.name.rpartition(".")[2] for test in tests} == names
    messages = []
    for test in tests:
        doctest.DocTestRunner().run(test, out=messages.append)
    assert not messages, "".join(messages)
