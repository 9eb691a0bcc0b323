"""Kronecker attention whose tokens keep themselves: "kao_rectified"."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.layers import KroneckerAttention, residual_attention
from tests.attention.test_operators import attend_by_loop, means_by_loop
from tests.backends import to_numpy, weight_gradients
from tests.layer_checks import check_layer, fill_weights, random

SIZES = {"num_heads": 2, "key_dim": 2, "value_dim": 4, "use_bias": True}


def make(**arguments):
    return attention.make(
        {"name": "kao_rectified", **SIZES}, scale="rsqrt", **arguments
    )


def filled():
    layer = make(name="attention")
    layer.build((None, 3, 5, 6))
    fill_weights(layer.variables)
    return layer


def formula(layer, x, mask=None):
    """In float64, token by token."""

    def linear(tokens, name):
        kernel, bias = (
            w.astype("float64") for w in layer._maps[name].get_weights()
        )
        return tokens @ kernel + bias

    tokens = means_by_loop(x.astype("float64"))
    query, key, value = (linear(tokens, n) for n in ("query", "key", "value"))
    found = attend_by_loop(query, key, value, 2, 2**-0.5)
    found = linear(np.clip(value + found, 0, 6), "output")
    height = x.shape[1]
    return found[:, :height, None] + found[:, None, height:]


def test_it_is_its_formula():
    layer, x = filled(), 3 * random(2, 3, 5, 6)
    expected = formula(layer, x)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)
    plain = KroneckerAttention(
        projections="qkvo", scale="rsqrt", name="attention", **SIZES
    )
    plain.build(x.shape)
    fill_weights(plain.variables)
    assert np.abs(to_numpy(plain(x)) - expected).max() > 0.1


def test_values_have_a_size_of_their_own():
    shapes = {n: m.kernel.shape for n, m in filled()._maps.items()}
    assert shapes == {
        "query": (6, 4),
        "key": (6, 4),
        "value": (6, 8),
        "output": (8, 6),
    }


def test_padding_changes_nothing():
    x, mask = random(2, 3, 5, 6), np.ones((2, 3, 5), bool)
    mask[1, 2:], mask[1, :, 3:] = False, False
    other = np.where(mask[..., None], x, 100.0).astype("float32")
    layer = filled()
    first, second = (to_numpy(layer(a, mask=mask)) for a in (x, other))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert not first[~mask].any() and np.abs(first[mask]).max() > 0.1
    whole = to_numpy(layer(x[1:, :2, :3]))
    np.testing.assert_allclose(first[1:, :2, :3], whole, atol=1e-5)


@pytest.mark.thorough
def test_checks():
    check_layer(
        lambda **more: make(**more),
        (2, 3, 5, 6),
        no_gradient={"key/bias": "it adds the same to all logits of a query"},
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rectify": "yes"}, "rectify='yes'"),
        ({"rectify": True, "mode": "kv"}, "mode='kv'"),
        ({"value_dim": 3}, "value_dim=3, key_dim=None"),
        (
            {"projections": "qkvo", "key_dim": 2, "value_dim": 0},
            "value_dim=0",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        KroneckerAttention(**arguments)


def test_a_layer_saved_before_there_was_such_a_form():
    config = KroneckerAttention(mode="kv").get_config()
    del config["rectify"], config["value_dim"]
    layer = KroneckerAttention.from_config(config)
    assert (layer.rectify, layer.value_dim) == (False, None)


def test_in_a_branch_it_has_no_norm_and_opens():
    x = keras.Input((4, 4, 6))
    mechanism = {"name": "kao_rectified", **SIZES}
    y = residual_attention(x, mechanism, name="looks")
    model = keras.Model(x, y)
    assert [layer.name for layer in model.layers[1:]] == ["looks", "looks_add"]
    pictures = random(2, 4, 4, 6)
    np.testing.assert_array_equal(to_numpy(model(pictures)), pictures)
    gradients = weight_gradients(model, pictures)
    [opens] = [g for path, g in gradients.items() if "output/kernel" in path]
    assert np.abs(opens).max() > 0
