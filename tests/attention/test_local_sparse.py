"""SAGAN's attention block and YLG's, against the official code's outputs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kanets import attention
from tests.backends import BACKEND, dot, gradient, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random
from ylg.layers import LocalSparseAttention2D, NonLocalAttention2D
from ylg.ops import dense_weights

GOLDEN = Path(__file__).parent.parent / "golden"
OPT_OUT = {
    "open_sizes": "the patterns belong to one grid",
    "training": "power iteration moves its vectors; see the tests of it",
}
NO_TRAINING = {"open_sizes": OPT_OUT["open_sizes"]}


def official(name, make):
    """A layer with the golden weights, and the arrays of the golden file."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    layer = make(spectral_norm=True, iterate_at_inference=True)
    layer.build(arrays["input"].shape)
    merged = layer.num_heads * layer.value_dim
    # Officially heads are merged with the head as the fastest axis.
    by_head = np.arange(merged).reshape(layer.value_dim, -1).T.ravel()
    for theirs, ours in (
        ("theta", layer.theta),
        ("phi", layer.phi),
        ("g", layer.g),
        ("attn", layer.out),
    ):
        scope = f"att/sn_conv_{theirs}"
        kernel = arrays[f"var:{scope}/weights"]
        vector = arrays[
            f"var:{scope}/{scope}/weights/spectral_normalize/spectral_norm"
            "/spectral_norm_u"
        ][:, 0]
        if theirs == "attn":
            kernel, vector = kernel[:, :, by_head], vector[by_head]
        ours.layer.kernel.assign(kernel)
        ours.left_singular_vector.assign(vector)
    layer.sigma.assign(arrays["var:att/sigma_ratio"])
    return layer, arrays


CASES = {
    "ylg_attention_2x16x16x64": lambda **kw: LocalSparseAttention2D(
        alignment="tiled", **kw
    ),
    "sagan_nonlocal_nH8_2x16x16x64": NonLocalAttention2D,
    "sagan_nonlocal_nHNone_2x16x16x64": lambda **kw: NonLocalAttention2D(
        num_heads=1, **kw
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_official_block(name):
    layer, arrays = official(name, CASES[name])
    x = arrays["input"]
    output = to_numpy(layer(x, training=False))
    np.testing.assert_allclose(output, arrays["output"], atol=1e-5)
    weights = dense_weights(
        layer.attention_weights(x), layer.patterns_for(x.shape)
    )
    expected = arrays["attention"].reshape(weights.shape)
    np.testing.assert_allclose(to_numpy(weights), expected, atol=1e-5)
    [found] = gradient(
        lambda t: dot(layer(t, training=False), arrays["cotangent"]), x
    )
    np.testing.assert_allclose(found, arrays["grad_input"], atol=1e-4)


@thorough_on_jax
@pytest.mark.parametrize(
    "spectral_norm",
    (False, pytest.param(True, marks=pytest.mark.thorough)),
)
def test_checks(spectral_norm):
    check_layer(
        lambda **kw: LocalSparseAttention2D(
            num_heads=4, spectral_norm=spectral_norm, **kw
        ),
        (2, 6, 5, 32),
        opt_out=OPT_OUT if spectral_norm else NO_TRAINING,
    )


def test_checks_of_the_dense_twin():
    check_layer(
        lambda **kw: NonLocalAttention2D(
            num_heads=2, pool_size=1, scale="rsqrt", **kw
        ),
        (2, 3, 4, 32),
        opt_out=NO_TRAINING,
    )


def test_twins_differ_in_the_pattern_alone():
    x = random(2, 4, 6, 16)
    sparse = LocalSparseAttention2D(2, patterns=["dense"])
    twin = NonLocalAttention2D(2)
    sparse.build(x.shape), twin.build(x.shape)
    twin.set_weights(sparse.get_weights())
    for layer in (sparse, twin):
        layer.sigma.assign(0.7)
    np.testing.assert_allclose(
        to_numpy(sparse(x)), to_numpy(twin(x)), atol=1e-6
    )


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64")
def test_double_precision():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 16))
    wide, plain = (
        attention.make("ylg", dtype=dtype) for dtype in ("float64", "float32")
    )
    wide(x), plain(x.astype("float32"))
    fill_weights(plain.weights)
    wide.set_weights(plain.get_weights())
    found, expected = to_numpy(wide(x)), to_numpy(plain(x.astype("float32")))
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_gate_starts_closed():
    x = random(2, 4, 4, 16)
    layer = LocalSparseAttention2D()
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    layer.sigma.assign(0.5)
    gated = to_numpy(layer(x)) - x
    alone = LocalSparseAttention2D(residual=False)
    alone.build(x.shape)
    alone.set_weights(layer.get_weights()[1:])
    assert np.abs(gated).max() > 1e-3
    np.testing.assert_allclose(gated, 0.5 * to_numpy(alone(x)), atol=1e-6)


def test_scale_divides_the_logits():
    x = random(1, 4, 4, 128)  # 4 key channels a head
    plain = LocalSparseAttention2D(4, residual=False)
    scaled = LocalSparseAttention2D(4, residual=False, scale="rsqrt")
    plain.build(x.shape), scaled.build(x.shape)
    scaled.set_weights(plain.get_weights())
    assert plain.key_dim == 4
    number = LocalSparseAttention2D(4, residual=False, scale=0.5)
    number.build(x.shape)
    number.set_weights(plain.get_weights())
    np.testing.assert_array_equal(to_numpy(scaled(x)), to_numpy(number(x)))
    assert np.abs(to_numpy(scaled(x)) - to_numpy(plain(x))).max() > 1e-3


def test_heads_take_the_patterns_in_turn():
    layer = LocalSparseAttention2D(8)
    names = [p.name for p in layer.patterns_for((1, 8, 8, 64))]
    assert names[:3] == ["right_floor", "right_repetitive", "right_floor"]
    assert names[4:6] == ["left_floor", "left_repetitive"]
    layer = LocalSparseAttention2D(4)
    assert {p.name for p in layer.patterns_for((1, 8, 8, 64))} == set(names)
    layer = LocalSparseAttention2D(3, patterns=["dense", "left_floor"])
    names = [p.name for p in layer.patterns_for((1, 9, 9, 64))]
    assert names == ["dense", "left_floor", "dense"]
    assert layer.patterns_for((1, 9, 9, 64))[0].key_shape == (5, 5)


@pytest.mark.parametrize(
    "arguments, message",
    (
        ({"num_heads": 0}, "num_heads=0"),
        ({"pool_size": 1.5}, "pool_size=1.5"),
        ({"scale": "sqrt"}, "scale='sqrt'"),
        ({"patterns": "floor"}, "patterns='floor'"),
        ({"patterns": []}, r"patterns=\[\]"),
        ({"patterns": ["floor"]}, "Received: 'floor'"),
        ({"alignment": "best"}, "alignment='best'"),
    ),
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalSparseAttention2D(**arguments)


def test_unknown_sizes_are_refused():
    layer = LocalSparseAttention2D()
    with pytest.raises(ValueError, match=r"input_shape=\(None, 8, 8, None\)"):
        layer.build((None, 8, 8, None))
    with pytest.raises(ValueError, match=r"\(None, None, 8, 16\)"):
        layer(keras.Input((None, 8, 16)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about SavedModel")
def test_export(tmp_path):
    import tensorflow as tf

    inputs = keras.Input((8, 8, 16))
    layer = LocalSparseAttention2D(spectral_norm=True)
    model = keras.Model(inputs, layer(inputs))
    layer.sigma.assign(1.0)
    x = random(3, 8, 8, 16)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(
        to_numpy(served.serve(x)), to_numpy(model(x)), atol=1e-5
    )


@pytest.mark.parametrize("kind", [LocalSparseAttention2D, NonLocalAttention2D])
def test_initializer_may_be_a_function(kind):
    def halves(shape, dtype=None):
        return 0.5 * ops.ones(shape, dtype=dtype)

    layer = kind(2, kernel_initializer=halves)
    layer.build((None, 4, 6, 16))
    np.testing.assert_array_equal(to_numpy(layer.theta.kernel), 0.5)
    with keras.saving.custom_object_scope({"halves": halves}):
        copy = kind.from_config(layer.get_config())
    assert copy.kernel_initializer is halves
    assert copy.get_config() == layer.get_config()
