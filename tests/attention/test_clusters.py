"""What all layers of hashed attention share: hashes, files, nets, runtimes."""

from functools import partial

import keras
import numpy as np
import pytest

import kanets
from kanets import attention
from tests.backends import needs_tensorflow, to_numpy
from tests.layer_checks import (
    check_config,
    check_jit,
    check_layer,
    check_precision,
    check_training,
    random,
)

LAYERS = {
    "lsh": lambda **a: attention.LSHAttention(
        **{"num_buckets": 4, "chunk_length": 4, **a}
    ),
    "smyrf": lambda **a: attention.SMYRFAttention(
        **{"cluster_size": 4, "num_rounds": 2, **a}
    ),
}
WHOLE = {"lsh": {"chunk_length": 99}, "smyrf": {"cluster_size": 99}}
SHAPE = (2, 5, 7, 6)
each = pytest.mark.parametrize("name", LAYERS)


def make(name, **arguments):
    projections = "qvo" if name == "lsh" else "qkvo"
    return LAYERS[name](num_heads=2, projections=projections, **arguments)


@pytest.mark.parametrize(
    "name", [pytest.param("lsh", marks=pytest.mark.thorough), "smyrf"]
)
def test_checks_of_every_layer(name):
    check_layer(
        partial(make, name),
        SHAPE,
        opt_out={"precision": "rounding moves cells to other clusters"},
    )
    check_precision(lambda **more: LAYERS[name](**WHOLE[name], **more), SHAPE)


def test_checks_of_lsh():
    for check in (check_config, check_training, check_jit):
        check(partial(make, "lsh"), SHAPE)


@each
def test_hashes_are_drawn_in_training(name):
    x = random(*SHAPE)

    def outputs(**arguments):
        keras.utils.set_random_seed(1)  # of the maps
        layer = LAYERS[name](**arguments)
        found = [layer(x, training=t) for t in (False, True, True, False)]
        return [to_numpy(y) for y in found]

    first, *drawn, last = outputs(seed=3)
    np.testing.assert_array_equal(first, last)
    for other in (drawn[1], first):
        assert np.abs(drawn[0] - other).max() > 1e-2
    for found, again in zip([first, *drawn], outputs(seed=3), strict=False):
        np.testing.assert_array_equal(found, again)
    assert np.abs(outputs(seed=4)[0] - first).max() > 1e-2
    first, *others = outputs(seed=3, fresh_hashes=False)
    for other in others:
        np.testing.assert_array_equal(first, other)


@each
def test_a_file_holds_the_hashes(name, tmp_path):
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, LAYERS[name]()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = random(*SHAPE)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


def test_padding_changes_nothing_that_is_valid():
    """Of 14 tokens 13 are valid: as many clusters as 13 tokens have."""
    layer = LAYERS["smyrf"](num_heads=2, projections="qkvo")
    x, mask = random(2, 14, 6), np.ones((2, 14), bool)
    mask[:, 5] = False
    found, scores = layer(x, mask=mask, return_attention_scores=True)
    expected = layer(np.delete(x, 5, axis=1))
    np.testing.assert_allclose(
        to_numpy(found), np.insert(to_numpy(expected), 5, 0, 1), atol=1e-5
    )
    assert np.all(to_numpy(scores)[..., 5] == 0)


@needs_tensorflow
@each
def test_nothing_is_as_large_as_dense_attention(name):
    import tensorflow as tf

    cells = 2048
    layer = LAYERS[name](chunk_length=16) if name == "lsh" else LAYERS[name]()
    spec = tf.TensorSpec((1, cells, 4))
    graph = tf.function(lambda x: layer(x)).get_concrete_function(spec).graph
    sizes = [
        t.shape.num_elements()
        for op in graph.get_operations()
        for t in op.outputs
    ]
    assert None not in sizes and cells * 8 <= max(sizes) < cells**2 / 8


@each
def test_inserted(name):
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(x))
    x = random(2, 6, 8, 3)
    copy = kanets.insert_attention(model, "conv", name)
    np.testing.assert_array_equal(to_numpy(copy(x)), to_numpy(model(x)))
    copy = kanets.insert_attention(model, "conv", name, gate=None)
    assert np.abs(to_numpy(copy(x)) - to_numpy(model(x))).max() > 1e-3


NETS = {
    "kanet": lambda **a: kanets.KANet(
        (32, 32, 3), 0.25, strides=(2, 1, 2, 2, 2), **a
    ),
    "lite": lambda **a: kanets.EfficientNetLite(
        (32, 32, 3), strides=(2, 2, 2, 1, 1), **a
    ),
}


@pytest.mark.parametrize(
    ("net", "name"),
    [
        ("kanet", "smyrf"),
        pytest.param("kanet", "lsh", marks=pytest.mark.thorough),
        pytest.param("lite", "lsh", marks=pytest.mark.thorough),
        pytest.param("lite", "smyrf", marks=pytest.mark.thorough),
    ],
)
def test_in_nets_by_name(net, name):
    model = NETS[net](attention=name, classes=3)
    kind = attention.MECHANISMS[name].layer
    layers = model._flatten_layers()
    assert sum(isinstance(layer, kind) for layer in layers) > 3
    assert np.all(np.isfinite(to_numpy(model(random(1, 32, 32, 3)))))


@pytest.mark.slow
@needs_tensorflow
def test_runtimes_have_all_operators(tmp_path):
    """Both layers in one model, of sizes that no cluster divides."""
    runtimes = pytest.importorskip("ai_edge_litert.interpreter")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6, 3))
    x = keras.layers.Rescaling(1 / 256)(inputs)
    x = keras.layers.Conv2D(4, 1, name="conv")(x)
    for name in LAYERS:
        x = LAYERS[name](num_heads=2)(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).uniform(0, 255, (2, 5, 6, 3))
    x = x.astype("float32")
    expected = model.predict(x, verbose=0)
    assert expected.std(0).min() > 1e-3
    folder = kanets.export_litert(
        model, tmp_path / "lite", list("abc"), batch_size=None
    )
    runtime = runtimes.Interpreter(str(folder / "model.tflite"))
    [given] = runtime.get_input_details()
    runtime.resize_tensor_input(given["index"], x.shape)
    runtime.allocate_tensors()  # refuses what is not built in
    runtime.set_tensor(given["index"], x)
    runtime.invoke()
    [found] = runtime.get_output_details()
    found = runtime.get_tensor(found["index"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = kanets.export_onnx(model, tmp_path / "onnx", list("abc"))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    [found] = session.run(None, {"images": x})
    np.testing.assert_allclose(found, expected, atol=1e-5)
