"""Additive attention against the formula in float64, Keras's own, and draws."""

import keras
import numpy as np
import pytest

from kanets import attention
from tests.attention.span_references import golden
from tests.backends import compiled, dot, gradient, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

CASES = ("single_query", "single_query_mask", "multi_query_mask")


@keras.saving.register_keras_serializable(package="tests")
class ToItself(keras.layers.Layer):
    """A sequence's attention to itself: what takes one input to be checked."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = attention.AdditiveAttention(
            units, use_bias=True, dtype=self.dtype_policy, name="inner"
        )

    def build(self, input_shape):
        self.inner.build(input_shape, input_shape)

    def call(self, x, training=None):
        return self.inner(x, key=x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("case", CASES)
def test_the_formula(case):
    layer, call, arrays = golden("additive_numpy.npz", case)
    inputs = [arrays[name].astype("float32") for name in ("c", "y")]
    mask = arrays["mask"].astype(bool)
    output = to_numpy(call(*inputs, mask))
    np.testing.assert_allclose(output, arrays["output"], atol=1e-5)
    output, weights = layer(
        *inputs, key_mask=mask, return_attention_scores=True
    )
    weights = to_numpy(weights)
    assert weights.dtype == "float32" and weights.shape[1] == 1
    expected = arrays["attention"].reshape(weights.shape)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert np.all(weights[expected == 0] == 0)
    query, key = (
        inputs[0].reshape(len(mask), -1, inputs[0].shape[-1]),
        inputs[1],
    )
    scores = attention.additive_scores(
        layer.query_map(query), layer.key_map(key), layer.score
    )
    expected = arrays["scores"].reshape(scores.shape)
    np.testing.assert_allclose(to_numpy(scores), expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    layer, call, arrays = golden("additive_numpy.npz", case)
    mask = arrays["mask"].astype(bool)
    variables = (layer.query_map.kernel, layer.key_map.kernel, layer.score)

    def function(c, y, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return dot(call(c, y, mask), arrays["cotangent"])

    names = ("c", "y", "W_c", "W_y", "w")
    given = [arrays[name].astype("float32") for name in names]
    for name, found in zip(names, gradient(function, *given), strict=True):
        expected = arrays[f"grad_{name}"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kerass_own_has_the_same_numbers():
    layer = attention.AdditiveAttention(5)
    query, key, value = random(2, 4, 3), random(2, 7, 6), random(2, 7, 2)
    mask = np.random.default_rng(0).uniform(size=(2, 7)) < 0.6
    output, weights = layer(
        query, key, value, key_mask=mask, return_attention_scores=True
    )
    keras_own = keras.layers.AdditiveAttention()
    mapped = [layer.query_map(query), value, layer.key_map(key)]
    mapped = [keras.ops.convert_to_tensor(t) for t in mapped]
    keras_own.build([t.shape for t in mapped])
    keras_own.scale.assign(layer.score)
    expected, scores = keras_own(
        mapped,
        mask=[None, keras.ops.convert_to_tensor(mask), None],
        return_attention_scores=True,
    )
    np.testing.assert_allclose(to_numpy(output), to_numpy(expected), atol=1e-6)
    np.testing.assert_allclose(
        to_numpy(weights)[:, 0], to_numpy(scores), atol=1e-6
    )


def test_a_mask_of_one_context():
    layer = attention.AdditiveAttention(5)
    query, key = random(3, 4), random(3, 7, 6)
    mask = np.array([[True], [False], [True]])
    expected = to_numpy(layer(query, key)) * mask
    found = to_numpy(layer(query, key, mask=mask))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_checks_of_every_layer():
    check_layer(ToItself, (2, 7, 6), grids=((1,), (3,)))


def test_masks():
    layer = attention.AdditiveAttention(5)
    query, key = random(2, 3, 4), random(2, 7, 6)
    key_mask = np.arange(7) < np.array([[4], [0]])
    mask = np.array([[True, True, False]] * 2)
    output, weights = layer(
        query, key, mask=mask, key_mask=key_mask, return_attention_scores=True
    )
    output, weights = to_numpy(output), to_numpy(weights)
    assert np.all(output[1] == 0) and np.all(weights[1] == 0)
    assert np.all(output[:, 2] == 0)
    expected = to_numpy(layer(query[:1, :2], key[:1, :4]))
    np.testing.assert_allclose(output[:1, :2], expected, atol=1e-6)


@pytest.mark.parametrize("single", [False, True])
def test_symbolic_saved_and_one_annotation(single, tmp_path):
    query = keras.Input((4,) if single else (3, 4))
    key, value = keras.Input((None, 6)), keras.Input((None, 2))
    layer = attention.AdditiveAttention(5, hard=True, seed=3)
    outputs = layer(query, key, value, return_attention_scores=True)
    queries = 1 if single else 3
    assert [t.shape for t in outputs] == [
        (None, *query.shape[1:-1], 2),
        (None, 1, queries, None),
    ]
    model = keras.Model([query, key, value], outputs)
    fill_weights(model.weights)
    x = [random(2, *query.shape[1:]), random(2, 1, 6), random(2, 1, 2)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for found, expected in zip(loaded(x), model(x), strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected))
    found = to_numpy(model(x)[0])
    expected = x[2][:, 0] if single else np.broadcast_to(x[2], found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_hard_attention():
    arguments = {"units": 5, "kernel_initializer": "random_normal"}
    soft = attention.AdditiveAttention(**arguments)
    hard = attention.AdditiveAttention(hard=True, seed=1, **arguments)
    key = random(1, 4, 3)
    query = np.repeat(random(1, 1, 2), 4000, axis=1)
    key_mask = np.array([[True, True, True, False]])
    for layer in (soft, hard):
        layer(query, key)
        fill_weights(layer.trainable_variables, layer.name)
    _, weights = soft(
        query, key, key_mask=key_mask, return_attention_scores=True
    )
    weights = to_numpy(weights)[0, 0, 0]
    assert weights[:3].min() > 0.05  # all are drawn, but the masked one
    one = to_numpy(keras.ops.one_hot(np.arange(4)[None], 4))
    drawn = to_numpy(hard(query, key, one, key_mask=key_mask, training=True))[0]
    np.testing.assert_allclose(drawn.max(-1), 1, atol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), weights, atol=0.04)
    again = hard(query, key, one, key_mask=key_mask, training=True)
    assert not np.allclose(drawn, to_numpy(again)[0])
    best = to_numpy(hard(query, key, one, key_mask=key_mask))[0]
    np.testing.assert_allclose(best, one[0][[weights.argmax()] * 4000])

    def loss(layer):
        def run(query):
            # A seed that is drawn under JAX's tracer must not leave it.
            with keras.StatelessScope():
                output = layer(
                    query, key, one, key_mask=key_mask, training=True
                )
            return dot(output, one[0][[1] * 4000][None])

        return run

    found, expected = (gradient(loss(x), query)[0] for x in (hard, soft))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    nothing = hard(query, key, one, key_mask=key_mask & False, training=True)
    assert np.all(to_numpy(nothing) == 0)


def test_half_precision_and_compiled():
    layer = attention.AdditiveAttention(5)
    query, key = random(2, 3, 4), random(2, 7, 6)
    expected = to_numpy(layer(query, key))
    found = compiled(lambda q, k: layer(q, k))(query, key)
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    half = attention.AdditiveAttention(5, dtype="mixed_float16")
    half.build(query.shape, key.shape)
    half.set_weights(layer.get_weights())
    output, weights = half(query, key, return_attention_scores=True)
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(output), expected, atol=5e-3)


def test_errors():
    query, key = random(2, 4), random(2, 7, 6)
    layer = attention.AdditiveAttention(5)
    with pytest.raises(ValueError, match="units=0"):
        attention.AdditiveAttention(0)
    with pytest.raises(ValueError, match="key must be.*None"):
        layer(query)
    with pytest.raises(ValueError, match=r"key must be.*\(2, 4\)"):
        layer(query, query)
    with pytest.raises(ValueError, match=r"query must be.*\(2, 1, 7, 6\)"):
        layer(key[:, None], key)
    assert "additive" not in attention.names()
