"""Tests that a network is rebuilt from its description, through JSON, and that nothing else is accepted."""

import json

import pytest

import jaxnet
from jaxnet.cli.catalogue import CATALOGUE

NETWORKS = {
    "two layers": jaxnet.two_layer_net(64, 50, 10),
    "deep": jaxnet.multi_layer_net(12, [8, 7], 5, "leaky_relu", batch_norm=True, dropout=0.2),
    "simple-conv": jaxnet.simple_conv_net((1, 8, 8)),
    "deep-conv": jaxnet.deep_conv_net((1, 8, 8)),
    "transformer": jaxnet.transformer(20, 8, 8, 4, 2, 0.3),
}


@pytest.mark.parametrize("name", [*CATALOGUE, *NETWORKS])
def test_a_layer_is_rebuilt_from_its_description_in_json(name):
    layer = NETWORKS[name] if name in NETWORKS else CATALOGUE[name].layer
    rebuilt = jaxnet.nn.from_description(json.loads(json.dumps(layer.description)))
    assert rebuilt == layer
    assert hash(rebuilt) == hash(layer)  # tuples again, not lists
    assert str(rebuilt) == str(layer)


@pytest.mark.parametrize(
    "description",
    [
        None, 5, "Affine", {"kind": "Affine"}, [], ["Affine"], ["Affine", "x", 3], ["Affine", -1, 2], ["LayerNorm", 3],
        ["Unknown", 3], ["accuracy"], ["activation", 3], ["stateless", 3, 4, 5], [["Affine"], 1, 2], ["Sequential"],
        ["Sequential", 5], ["Sequential", [["Affine1"]]], ["Residual", [["Affine1", ["Affine", 2]]]],
    ],
)  # fmt: skip
def test_what_describes_no_layer_is_refused(description):
    with pytest.raises(ValueError, match=r"description: .*expected"):
        jaxnet.nn.from_description(description)
