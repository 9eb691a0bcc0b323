"""Learned spans of sequences against the authors' numbers, and segments."""

import keras
import numpy as np
import pytest

from kanets import attention
from tests.attention.span_references import attend_by_loop, golden
from tests.backends import (
    BACKEND,
    compiled,
    dot,
    gradient,
    needs_tensorflow,
    thorough_on_jax,
    to_numpy,
)
from tests.layer_checks import check_layer, fill_weights, random

SEQUENCES = "adaptive_seq_attention.npz"
SHAW = ("shaw_kv", "shaw_k_only_causal", "shaw_kv_per_head_mask")
SEGMENTS = ("segments_span5_len6", "segments_span9_len4")


def make(**arguments):
    return attention.CausalSpanAttention(
        **{"max_span": 5, "ramp": 3, "num_heads": 2, **arguments}
    )


def filled(layer, *shapes):
    layer.build(*shapes)
    fill_weights(layer.weights, layer.name)
    return layer


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_the_authors_layer(case):
    layer, call, arrays = golden(SEQUENCES, case, "_")
    names = ("query", "key_value", "key_pe")
    inputs = [arrays[name] for name in names]
    output = to_numpy(call(*inputs))
    np.testing.assert_allclose(output, arrays["output"], atol=1e-5)
    direction = arrays["cotangent"]
    found = gradient(lambda *t: dot(call(*t), direction), *inputs)
    for name, grad in zip(names, found, strict=True):
        expected = arrays[f"grad_{name}"]
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(grad, expected, atol=tolerance)


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_the_authors_weights(case):
    layer, _, arrays = golden(SEQUENCES, case, "_")
    layer.positions[0].assign(arrays["key_pe"][0].T)
    output, weights = layer(
        arrays["query"],
        key=arrays["key_value"],
        return_attention_scores=True,
    )
    np.testing.assert_allclose(to_numpy(output), arrays["output"], atol=1e-5)
    expected = arrays["attention_after_span"]
    weights = to_numpy(weights)
    weights = weights.reshape(-1, *weights.shape[2:])
    for m in range(expected.shape[1]):  # the keys of query m begin at m
        found = weights[:, m, m : m + expected.shape[2]]
        np.testing.assert_allclose(found, expected[:, m], atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_the_authors_span_and_loss():
    layer, call, arrays = golden(SEQUENCES, "case0", "_")
    inputs = [arrays[name] for name in ("query", "key_value", "key_pe")]
    layer.positions[0].assign(arrays["key_pe"][0].T)

    def of_spans(z):
        with keras.StatelessScope([(layer.z, z)]):
            output = layer(inputs[0], key=inputs[1])
        return dot(output, arrays["cotangent"])

    [found] = gradient(of_spans, arrays["z"])
    expected = arrays["grad_z"]
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance)
    layer.span_penalty = 0.002  # with 24 positions and a mean of 0.5375
    layer(inputs[0], key=inputs[1])
    [loss] = layer.losses
    np.testing.assert_allclose(to_numpy(loss), arrays["span_loss"], rtol=1e-6)


@thorough_on_jax
@pytest.mark.parametrize("case", SHAW)
def test_relative_positions(case):
    layer, call, arrays = golden("relative_numpy.npz", case)
    x, mask = arrays["x"], arrays.get("mask")
    mask = None if mask is None else mask.astype(bool)
    names = list(layer.all)
    wide = BACKEND == "tensorflow"  # where we multiply in float64
    if not wide:
        x = x.astype("float32")
    output = to_numpy(call(x, mask))
    tolerance = 1e-7 if wide else 1e-5
    np.testing.assert_allclose(output, arrays["output"], atol=tolerance)

    def function(x, *weights):
        scope = [
            (layer.all[name], w) for name, w in zip(names, weights, strict=True)
        ]
        with keras.StatelessScope(scope):
            return dot(call(x, mask), arrays["cotangent"])

    values = [to_numpy(layer.all[name]) for name in names]
    found = gradient(function, x, *values)
    for name, grad in zip(("x", *names), found, strict=True):
        expected = arrays[f"grad_{name}"]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(
            grad, expected, atol=tolerance * max(1, largest)
        )


@thorough_on_jax
@pytest.mark.parametrize("case", SEGMENTS)
def test_segments(case):
    layers, call, arrays = golden("relative_numpy.npz", case)
    x = arrays["input"].astype("float32")
    size = int(arrays["segment_length"])
    np.testing.assert_allclose(
        to_numpy(call(x)), arrays["full_layer2"], atol=1e-5
    )
    for number in range(x.shape[1] // size):
        memories = [
            arrays[f"segment{number}_memory_for_layer{layer}"].astype("float32")
            for layer in (1, 2)
        ]
        segment = x[:, number * size : (number + 1) * size]
        output = to_numpy(call(segment, memories))
        expected = arrays[f"segment{number}_output"]
        np.testing.assert_allclose(output, expected, atol=1e-5)
    # Of the last segment, its memory held constant.
    names = [
        f"layer{n}_{name}"
        for n in (1, 2)
        for name in ("W_q", "W_k", "W_v", "W_o", "rel_key")
    ]
    variables = [
        variable
        for layer in layers
        for variable in (
            *(
                layer._maps[name].kernel
                for name in ("query", "key", "value", "output")
            ),
            layer.positions[0],
        )
    ]

    def function(segment, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            output = call(segment, memories)
        return dot(output, arrays["last_segment_cotangent"])

    values = [to_numpy(v) for v in variables]
    found = gradient(function, segment, *values)
    for name, grad in zip(("segment", *names), found, strict=True):
        expected = arrays[f"last_segment_grad_{name}"]
        if name.endswith("rel_key"):
            grad = grad[::-1]
        tolerance = 1e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(grad, expected, atol=tolerance)


@pytest.mark.parametrize("sees_itself", [False, True])
def test_layer_by_loop(sees_itself):
    layer = make(sees_itself=sees_itself, projections="")
    x, segment = random(2, 13, 6), 4
    filled(layer, x.shape)
    layer.z.assign([0.1, 0.7])
    output = to_numpy(layer(x[:, -segment:], key=x))
    heads = x.reshape(2, 13, 2, 3)
    expected, _ = attend_by_loop(
        [heads[:, -segment:], heads, heads],
        [to_numpy(layer.positions[0])],
        -4 if sees_itself else -5,
        3**-0.5,
        4,
        5 * np.array([0.1, 0.7]),
        3,
        0 if sees_itself else -1,
    )
    expected = expected.reshape(output.shape)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    # As if the whole had been asked for, since nothing looks ahead.
    np.testing.assert_allclose(
        output, to_numpy(layer(x))[:, -segment:], atol=1e-5
    )


def test_the_first_position_sees_nothing():
    layer = filled(make(), (1, 1, 6))
    for x in (random(1, 1, 6), random(1, 9, 6)):
        output = to_numpy(layer(x))
        assert np.all(output[:, 0] == 0)
        assert output.shape == x.shape and np.all(np.isfinite(output))
    assert np.abs(output[:, 1:]).min() > 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments",
    [{"sees_itself": True}, {"num_heads": 3}, {"span": "dynamic"}],
    ids=str,
)
def test_checks_of_every_layer(arguments):
    check_layer(
        lambda **more: make(**arguments, **more),
        (2, 13, 6),
        grids=((2,), (7,)),
    )


def test_half_precision_compiled_and_saved(tmp_path):
    x, length = random(2, 9, 6), 4
    query, key = keras.Input((length, 6)), keras.Input((9, 6))
    layer = make(max_span=2)
    model = keras.Model([query, key], layer(query, key=key))
    fill_weights(model.weights, layer.name)
    expected = to_numpy(model([x[:, -length:], x]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = to_numpy(loaded([x[:, -length:], x]))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = compiled(lambda q, k: layer(q, key=k))(x[:, -length:], x)
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    half = make(max_span=2, dtype="mixed_bfloat16")
    half.build((2, length, 6))
    half.set_weights(layer.get_weights())
    found = to_numpy(keras.ops.cast(half(x[:, -length:], key=x), "float32"))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=0.1 * largest)


def test_masks():
    layer, x = filled(make(sees_itself=True), (2, 9, 6)), random(2, 9, 6)
    mask = np.ones((2, 9), bool)
    mask[:, 6:] = False
    output = to_numpy(layer(x, mask=mask))
    assert np.all(output[:, 6:] == 0)
    np.testing.assert_allclose(
        output[:, :6], to_numpy(layer(x[:, :6])), atol=1e-6
    )
    # A memory of which the first three are nothing, and the end padding.
    there = mask.copy()
    there[:, :3] = False
    found = layer(x[:, 5:], key=x, mask=mask[:, 5:], key_mask=there)
    expected = layer(x[:, 5:6], key=x[:, 3:6])
    np.testing.assert_allclose(
        to_numpy(found)[:, :1], to_numpy(expected), atol=1e-6
    )
    assert np.all(to_numpy(found)[:, 1:] == 0)
    found = layer(x[:, 3:], key=x, mask=mask[:, 3:])
    np.testing.assert_allclose(to_numpy(found), output[:, 3:], atol=1e-6)


def model(batch, length, span, memory):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((length, 6), batch_size=batch)
    for _ in range(2):
        named = {}
        if memory:
            key, key_mask = attention.SegmentMemory(span)(x)
            named = {"key": key, "key_mask": key_mask}
        attend = attention.CausalSpanAttention(
            span, 2, num_heads=2, initial_span=0.5
        )
        x = keras.layers.Add()([x, attend(x, **named)])
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "in_a_graph", [pytest.param(False, marks=pytest.mark.thorough), True]
)
def test_segments_are_one_text(in_a_graph):
    """Two layers, a memory longer than a segment, and a new text."""
    x, size = random(2, 12, 6), 3
    whole = model(2, 12, 4, memory=False)
    parts = model(2, size, 4, memory=True)

    for ours, theirs in zip(
        parts.trainable_variables, whole.trainable_variables, strict=True
    ):
        ours.assign(theirs)
    call = parts.predict_on_batch if in_a_graph else parts
    expected = to_numpy(whole(x))
    for _ in range(2):
        found = [to_numpy(call(x[:, i : i + size])) for i in range(0, 12, size)]
        np.testing.assert_allclose(
            np.concatenate(found, 1), expected, atol=1e-5
        )
        for layer in parts.layers:
            if isinstance(layer, attention.SegmentMemory):
                assert int(to_numpy(layer.filled)) == 4
                layer.reset_state()


def test_a_memory_is_kept_in_fit():
    x = random(6, 3, 6)
    parts = model(2, 3, 4, memory=True)
    parts.compile("sgd", "mse", run_eagerly=True)
    parts.fit(x, x, batch_size=2, shuffle=False, verbose=0)
    memory = parts.layers[1]
    kept = np.concatenate([x[2:4], x[4:]], axis=1)[:, -4:]
    np.testing.assert_allclose(to_numpy(memory.memory), kept, atol=1e-6)


def test_a_memory_has_no_gradient_and_is_cast():
    memory = attention.SegmentMemory(2, dtype="mixed_float16")
    keys, there = memory(random(1, 3, 4))
    assert keys.dtype == "float16" or "float16" in str(keys.dtype)
    assert to_numpy(there).tolist() == [[False, False, True, True, True]]
    memory = attention.SegmentMemory(2)
    memory(random(1, 1, 4))
    _, there = memory(random(1, 1, 4))
    assert to_numpy(there).tolist() == [[False, True, True]]
    with pytest.raises(ValueError, match="drop_remainder.* 2, .* batch 1"):
        memory(random(2, 1, 4))
    copy = attention.SegmentMemory.from_config(memory.get_config())
    assert copy.size == 2
    symbolic = memory(keras.Input((5, 4), batch_size=1))
    assert [t.shape for t in symbolic] == [(1, 7, 4), (1, 7)]


def test_symbolic_calls():
    layer = make()
    key = keras.Input((9, 6))
    query = keras.Input((4, 6))
    output, scores = layer(query, key=key, return_attention_scores=True)
    assert output.shape == (None, 4, 6) and scores.shape == (None, 2, 4, 9)
    layer = make()
    built = keras.Model([query, key], layer(query, key=key))
    x = random(2, 9, 6)
    np.testing.assert_allclose(
        to_numpy(built([x[:, 5:], x])), to_numpy(layer(x))[:, 5:], atol=1e-5
    )


@pytest.mark.thorough
@needs_tensorflow
def test_open_sizes_with_a_memory():
    import tensorflow as tf

    layer = filled(make(), (1, 4, 6))
    function = tf.function(
        lambda query, key: layer(query, key=key),
        input_signature=[tf.TensorSpec((None, None, 6))] * 2,
    )
    for length in (1, 4, 13):
        x = random(2, 17, 6)
        found = to_numpy(function(x[:, -length:], x))
        expected = to_numpy(layer(x))[:, -length:]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_errors():
    x = random(2, 5, 6)
    for call, text in (
        (lambda: make()(x, value=x), "Received: value"),
        (lambda: make()(random(2, 3, 5, 6)), r"query must be.*2, 3, 5, 6"),
        (lambda: make()(x, key=x[0]), r"key must be.*\(5, 6\)"),
        (lambda: make()(x, key=x[:, :3]), r"came before.*\(2, 3, 6\)"),
        (lambda: make()(x, key_mask=x), r"mask must be.*\(2, 5, 6\)"),
        (lambda: attention.SegmentMemory(0), "size=0"),
        (
            lambda: attention.SegmentMemory(3)(keras.Input((5, 6))),
            r"known batch.*\(None, 5, 6\)",
        ),
        (lambda: make(sees_itself="no"), "sees_itself='no'"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
