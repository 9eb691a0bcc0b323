"""Kronecker attention of batch-normalised means: "kao_norm"."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import kronecker
from kanets.layers import KroneckerAttention, residual_attention
from tests.attention.test_operators import means_by_loop
from tests.backends import to_numpy
from tests.layer_checks import check_layer, fill_weights, random

MODES = ("kv", "qkv")


def make(mode="qkv", **arguments):
    return KroneckerAttention(
        mode=mode,
        normalize=True,
        projections="qkvo",
        num_heads=2,
        scale="rsqrt",
        **arguments,
    )


def filled(mode="qkv"):
    layer = make(mode, name="attention")
    layer.build((None, 3, 5, 6))
    fill_weights(layer.variables)
    norm = layer._norm
    norm.moving_variance.assign(np.linspace(0.1, 2, 6))
    return layer


def test_its_name():
    layer = attention.make("kao_norm")
    assert layer.normalize is True and layer.mode == "qkv"
    assert layer.projections == "qkvo"


def test_it_is_attention_of_normalised_pictures():
    """At inference: a mean and what is linear in a channel commute."""
    layer, x = filled(), random(2, 3, 5, 6)
    norm = layer._norm
    gamma, beta, mean, variance = (
        to_numpy(v)
        for v in (
            norm.gamma,
            norm.beta,
            norm.moving_mean,
            norm.moving_variance,
        )
    )
    normalised = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    plain = KroneckerAttention(
        mode="qkv", projections="qkvo", num_heads=2, scale="rsqrt"
    )
    plain.build(x.shape)
    for name in ("query", "key", "value", "output"):
        plain._maps[name].set_weights(layer._maps[name].get_weights())
    np.testing.assert_allclose(
        to_numpy(layer(x, training=False)),
        to_numpy(plain(normalised.astype("float32"))),
        atol=1e-5,
    )
    assert not np.allclose(to_numpy(layer(x)), to_numpy(plain(x)), atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_training_takes_the_moments_of_the_means(mode, monkeypatch):
    layer, x = filled(mode), random(2, 3, 5, 6) + 3.0
    tokens = means_by_loop(x)
    seen = []
    inner = kronecker.mapped_attention

    def record(queries, keys, *arguments, **named):
        seen.append(to_numpy(keys))
        return inner(queries, keys, *arguments, **named)

    monkeypatch.setattr(kronecker, "mapped_attention", record)
    norm = layer._norm
    before = to_numpy(norm.moving_mean)
    layer(x, training=True)
    expected = (tokens - tokens.mean((0, 1))) / np.sqrt(
        tokens.var((0, 1)) + 1e-3
    ) * to_numpy(norm.gamma) + to_numpy(norm.beta)
    np.testing.assert_allclose(seen[0], expected, atol=1e-4)
    np.testing.assert_allclose(
        to_numpy(norm.moving_mean),
        0.9 * before + 0.1 * tokens.mean((0, 1)),
        atol=1e-5,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", (False, True))
def test_padding_changes_nothing(mode, training):
    x, mask = random(2, 3, 5, 6), np.ones((2, 3, 5), bool)
    mask[1, 2:], mask[1, :, 3:] = False, False
    other = np.where(mask[..., None], x, 100.0).astype("float32")
    first, second = (
        to_numpy(filled(mode)(a, mask=mask, training=training))
        for a in (x, other)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert not first[~mask].any() and np.abs(first[mask]).max() > 0.1


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_checks(mode):
    check_layer(lambda **more: make(mode, **more), (2, 3, 5, 6))


def test_a_layer_saved_before_there_was_such_a_norm():
    config = KroneckerAttention(mode="kv").get_config()
    del config["normalize"]
    assert KroneckerAttention.from_config(config).normalize is False
    with pytest.raises(ValueError, match="normalize='yes'"):
        KroneckerAttention(normalize="yes")


def test_a_branch_has_no_second_norm():
    x = keras.Input((4, 4, 6))
    mechanism = {"name": "kao_norm", "num_heads": 2, "key_dim": 3}
    y = residual_attention(x, mechanism, name="looks")
    names = [layer.name for layer in keras.Model(x, y).layers[1:]]
    assert names == ["looks", "looks_add"]
