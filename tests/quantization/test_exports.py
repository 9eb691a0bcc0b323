"""What prepared nets leave as, and that it answers as they do."""

import collections
import functools
import io

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import quantization
from kanets.export import runtimes
from kanets.layers.batch_normalization import set_norm_momentum
from tests.backends import BACKEND
from tests.layer_checks import fill_weights
from tests.quantization import nets

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
NAMES = list("abcd")


def pictures(n, shape, seed=0):
    """Pictures of four colours, so that a few steps tell them apart."""
    draw = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [128] * 3])
    x = colours[np.arange(n) % 4][:, None, None] + draw.normal(
        scale=20, size=(n, *shape)
    )
    return np.clip(x, 0, 255).astype("float32")


def seen(model, steps=2, n=16):
    """The model prepared, after so many batches in training."""
    prepared = quantization.prepare(model)
    for step in range(steps):
        prepared(pictures(n, model.input_shape[1:], step), training=True)
    prepared.class_names = NAMES
    return prepared


def taught(model):
    """The model prepared, and trained until it is sure of some colours."""
    set_norm_momentum(model, 0.5)
    prepared = quantization.prepare(model, momentum=0.8)
    x = pictures(32, model.input_shape[1:])
    y = np.eye(4, dtype="float32")[np.arange(32) % 4]
    prepared.compile(keras.optimizers.Adam(2e-3), "categorical_crossentropy")
    prepared.fit(x, y, batch_size=16, epochs=30, verbose=0)
    prepared.class_names = NAMES
    return prepared


def operations(folder):
    """How many operations of each kind and dtype of the output a file has."""
    from ai_edge_litert.interpreter import Interpreter

    file = Interpreter(str(folder / "model.tflite"))
    file.allocate_tensors()
    dtypes = {
        t["index"]: t["dtype"].__name__ for t in file.get_tensor_details()
    }
    return collections.Counter(
        (operation["op_name"], dtypes[operation["outputs"][0]])
        for operation in file._get_ops_details()
        if operation["op_name"] != "DELEGATE"
    )


def check_is_of_integers(folder, floats):
    found = operations(folder)
    left = {name for name, dtype in found if dtype != "int8"}
    assert left == {*floats, "DEQUANTIZE"}
    kinds = {name for name, dtype in found if dtype == "int8"}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= kinds


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture.astype("uint8")).save(file, "png")
    return file.getvalue()


def answers(folder, x):
    return runtimes.load(folder)(images=x)["probabilities"]


@pytest.mark.parametrize("make", [nets.blocks, nets.module])
def test_int8_without_pictures(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = make()
    fill_weights(model.weights)
    prepared = seen(model)
    folder = kanets.export_litert(prepared, tmp_path / "f", precision="int8")
    check_is_of_integers(folder, {"MUL", "ADD"})
    run = runtimes.load(folder)
    assert run.inputs == {"images": ((1, *model.input_shape[1:]), "float32")}
    x = pictures(8, model.input_shape[1:], seed=7)
    expected = prepared.predict(x, verbose=0)
    assert expected.std(0).max() > 0.01, "the model hardly looks"
    # Logits two steps apart, and probabilities of 1/256.
    layer = prepared.layers[-1]
    low, high = np.array(layer.ranges)[layer.range_names.index("predictions")]
    atol = (high - low) / 255 + 1 / 256
    np.testing.assert_allclose(answers(folder, x), expected, atol=atol)


@pytest.mark.thorough
def test_other_runtimes_round_alike(tmp_path):
    model = nets.blocks()
    fill_weights(model.weights)
    prepared = seen(model)
    x = pictures(8, nets.SIZE, seed=7).round()
    expected = prepared.predict(x, verbose=0)
    for export in (kanets.export_onnx, kanets.export_openvino):
        folder = export(prepared, tmp_path / export.__name__)
        np.testing.assert_allclose(answers(folder, x), expected, atol=0.02)
    predict = kanets.load_savedmodel(
        kanets.export_savedmodel(prepared, tmp_path / "bundle")
    )
    *_, found = predict([png(picture) for picture in x])
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.thorough
def test_mixed_precision_leaves_alike(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = nets.module()
    finally:
        keras.config.set_dtype_policy(policy)
    fill_weights(model.weights)
    prepared = seen(model)
    folder = kanets.export_litert(prepared, tmp_path / "f", precision="int8")
    check_is_of_integers(folder, {"MUL", "ADD"})
    x = pictures(8, (8, 8, 3), seed=7)
    expected = prepared.predict(x, verbose=0)
    np.testing.assert_allclose(answers(folder, x), expected, atol=0.05)


def test_errors(tmp_path):
    prepared = quantization.prepare(nets.module())
    prepared.class_names = NAMES
    folder = tmp_path / "f"
    for export in (
        functools.partial(kanets.export_litert, precision="int8"),
        kanets.export_savedmodel,
        kanets.export_onnx,
    ):
        with pytest.raises(ValueError, match="seen a batch in training"):
            export(prepared, folder)
    prepared(pictures(2, (8, 8, 3)), training=True)
    with pytest.raises(ValueError, match='leaves in precision="int8"; .*strip'):
        kanets.export_litert(prepared, folder)
    with pytest.raises(ValueError, match="takes no `representative` pictures"):
        kanets.export_litert(
            prepared,
            folder,
            precision="int8",
            representative=pictures(2, (8, 8, 3)),
        )
    assert not folder.exists()


@pytest.mark.slow
def test_mobilenet(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, weights=None, classes=4
    )
    prepared = taught(model)
    folder = kanets.export_litert(prepared, tmp_path / "f", precision="int8")
    check_is_of_integers(folder, set())
    x = pictures(64, model.input_shape[1:], seed=1)
    expected = prepared.predict(x, verbose=0)
    assert len(set(expected.argmax(-1))) == 4
    # It has learned for a few steps, and is less sure than a whole run is.
    check_agreement(answers(folder, x), expected, 0.9)


@pytest.mark.slow
def test_kanet(tmp_path):
    sample = kanets.data.unpack_sample(tmp_path / "sample")
    model = kanets.load_model("kanet_qkv_cifar10")
    train, test = (
        kanets.data.load_test(sample, split=part, class_names=model.class_names)
        for part in ("train", "val")
    )
    prepared = quantization.prepare(model)
    for rows in np.random.default_rng(0).permutation(900)[:256].reshape(4, 64):
        x = train.pictures.take(rows).astype("float32")
        prepared(x, training=True)
    folder = kanets.export_litert(prepared, tmp_path / "f", precision="int8")
    check_is_of_integers(folder, {"MUL", "ADD"})
    x = test.pictures.take(np.arange(200)).astype("float32")
    expected = prepared.predict(x, verbose=0)
    unrounded = model.predict(x, verbose=0)
    assert np.mean(unrounded.argmax(-1) == expected.argmax(-1)) > 0.85
    check_agreement(answers(folder, x), expected)


def check_agreement(found, expected, least=0.98):
    assert np.mean(found.argmax(-1) == expected.argmax(-1)) >= least
    assert np.abs(found - expected).mean() < 0.02
