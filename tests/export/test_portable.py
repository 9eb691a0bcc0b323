"""LiteRT, ONNX and OpenVINO exports, run by their own runtimes."""

import sys
import types

import keras
import numpy as np
import pytest

import kanets
import ylg
from kanets.evaluation.files import representative, sample
from kanets.export import (
    export_litert,
    export_onnx,
    export_openvino,
    export_savedmodel,
    runtimes,
)
from kanets.export.precision import in_precision
from tests.backends import BACKEND
from tests.photos import write_streets

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
NAMES = ["ant", "bee", "c\u00f4te"]
EXPORTS = {
    "litert": (export_litert, {"model.tflite"}),
    "onnx": (export_onnx, {"model.onnx"}),
    "openvino": (export_openvino, {"model.xml", "model.bin"}),
}


def classifier(size=(16, 20), activation="softmax"):
    """Convolutions, normalisation and Kronecker attention, some trained."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((*size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = kanets.layers.KroneckerAttention(num_heads=2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, activation=activation)(x)
    model = keras.Model(inputs, x, name="small")
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 5)
    model.class_names = NAMES
    return model


def kanet(attention="kao_qkv"):
    """A KANet that is sure of itself, so that errors show."""
    keras.utils.set_random_seed(0)
    strides = (2, 1, 1, 2, 1)
    net = kanets.KANet(
        (32, 32, 3), 0.25, classes=3, attention=attention, strides=strides
    )
    head = net.get_layer("predictions")
    features = keras.Model(net.input, head.input).predict(
        pictures(8, (32, 32)), verbose=0
    )
    head.kernel.assign(head.kernel / features.std(0).mean())
    head.bias.assign(-features.mean(0) @ head.kernel)
    net.class_names = NAMES
    return net


@pytest.fixture(scope="module")
def model():
    return classifier()


def pictures(n, size=(16, 20), seed=0):
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(0, 255, (n, 4, 4, 3))
    rows = np.arange(size[0]) * 4 // size[0]
    columns = np.arange(size[1]) * 4 // size[1]
    return coarse[:, rows][:, :, columns].astype("float32")


def interpreter(folder):
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(str(folder / "model.tflite"))
    found.allocate_tensors()
    return found


@pytest.mark.parametrize("name", EXPORTS)
def test_a_classifier(name, model, tmp_path):
    export, files = EXPORTS[name]
    folder = export(model, tmp_path / "deep" / "small")
    assert folder == tmp_path / "deep" / "small"
    assert {path.name for path in folder.iterdir()} == files | {"labels.txt"}
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
    labels = (folder / "labels.txt").read_text(encoding="utf-8")
    assert labels.split("\n") == [*NAMES, ""]
    run = runtimes.load(folder)
    batch = 1 if name == "litert" else None
    assert run.inputs == {"images": ((batch, 16, 20, 3), "float32")}
    assert list(run.outputs) == ["probabilities"]
    expected = model.predict(pictures(5), verbose=0)
    assert expected.std(0).min() > 0.01, "the model hardly looks"
    for n in (1, 5):
        found = run(images=pictures(5)[:n])["probabilities"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:n], atol=1e-5)


@pytest.mark.parametrize("name", EXPORTS)
def test_mixed_precision_leaves_in_float32(name, model, tmp_path):
    mixed = kanets.create_model(
        kanets.save_model(model, tmp_path / "model"), dtype="mixed_bfloat16"
    )
    assert mixed.layers[2].compute_dtype == "bfloat16"
    run = runtimes.load(EXPORTS[name][0](mixed, tmp_path / "small"))
    found = run(images=pictures(1))["probabilities"]
    expected = model.predict(pictures(1), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_segmenter(name, tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 16, 3))
    maps = keras.layers.Conv2D(4, 3, 2, padding="same")(inputs)
    maps = kanets.layers.ResizeLike()([maps, inputs])
    scores = keras.layers.Conv2D(4, 1)(maps)
    model = keras.Model(inputs, scores, name="logits")
    folder = EXPORTS[name][0](model, tmp_path / "s", list("abcd"))
    found = runtimes.load(folder)(images=pictures(2, (12, 16)))
    logits = model.predict(pictures(2, (12, 16)), verbose=0)
    assert found["label_map"].dtype == np.int32
    np.testing.assert_array_equal(found["label_map"], logits.argmax(-1))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    if name == "litert":  # not by products, which are slow in 8 bits
        operations = operations_of(folder)
        assert "RESIZE_BILINEAR" in operations
        assert "BATCH_MATMUL" not in operations


def operations_of(folder):
    """The names of the operations of LiteRT's file in a folder."""
    return {op["op_name"] for op in interpreter(folder)._get_ops_details()}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, num_classes",
    [
        ("litert", 3),
        ("onnx", None),
        pytest.param("onnx", 3, marks=pytest.mark.slow),
        pytest.param("openvino", 3, marks=pytest.mark.slow),
    ],
)
def test_a_generator(name, num_classes, tmp_path):
    model = ylg.gan.generator(32, 2, num_classes, latent_size=8, num_heads=2)
    model.get_layer("attention").sigma.assign(1.0)
    model.class_names = NAMES if num_classes else ()
    folder = EXPORTS[name][0](model, tmp_path / "g")
    z = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    given = {"z": z}
    inputs = z
    if num_classes:
        given["label"] = np.array([0, 1, 2], "int32")
        inputs = [z, given["label"]]
    assert (folder / "labels.txt").exists() == bool(num_classes)
    found = runtimes.load(folder)(**given)["images"]
    expected = model.predict(inputs, verbose=0)
    assert expected.std() > 0.05
    # A convolution's rounding grows on its way through the untrained net.
    np.testing.assert_allclose(found, expected, atol=1e-3)


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attention",
    (
        *("kao_qkv", "kao_kv", "ylg", "window", "neighborhood"),
        *("dense", "dense_pool", None),
    ),
)
def test_litert_has_the_operators_of_every_kanet(attention, tmp_path):
    keras.utils.set_random_seed(0)
    net = kanet(attention)
    folder = export_litert(net, tmp_path / "net")
    operators = operations_of(folder)
    from ai_edge_litert import schema_py_generated

    builtin = set(schema_py_generated.BuiltinOperator.__dict__)
    assert "CONV_2D" in operators and operators <= builtin
    batch = pictures(2, (32, 32))
    found = runtimes.load(folder)(images=batch)["probabilities"]
    expected = net.predict(batch, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_litert_in_half_the_bytes(tmp_path):
    net = kanet()
    sizes = {}
    for precision in ("float32", "float16"):
        folder = export_litert(net, tmp_path / precision, precision=precision)
        sizes[precision] = (folder / "model.tflite").stat().st_size
    assert 0.45 < sizes["float16"] / sizes["float32"] < 0.6
    batch = pictures(2, (32, 32))
    found = runtimes.load(folder)(images=batch)["probabilities"]
    expected = net.predict(batch, verbose=0)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - expected).max() > 0, "nothing was rounded"


def test_litert_in_8_bits(model, tmp_path):
    folder = export_litert(
        model,
        tmp_path / "q",
        precision="int8",
        representative=pictures(39),
        batch_size=4,
    )
    found = interpreter(folder)
    details = {d["index"]: d for d in found.get_tensor_details()}
    convolutions = [
        op for op in found._get_ops_details() if "CONV_2D" in op["op_name"]
    ]
    assert len(convolutions) >= 2
    for op in convolutions:
        kinds = [details[i]["dtype"] for i in [*op["inputs"], *op["outputs"]]]
        # Activations, kernel, bias, result.
        assert kinds == [np.int8, np.int8, np.int32, np.int8]
    floats = [d["name"] for d in details.values() if d["dtype"] == np.float32]
    assert len(floats) == 2, floats  # the ends
    batch = pictures(20, seed=9)
    got = runtimes.load(folder)(images=batch)["probabilities"]
    expected = model.predict(batch, verbose=0)
    assert 0 < np.abs(got - expected).max() < 0.15
    assert (got.argmax(-1) == expected.argmax(-1)).mean() >= 0.9


def test_a_hard_swish_in_8_bits_is_delegated(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="hard_swish")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    net = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    options = {"int8": {"representative": pictures(8, (8, 8))}, "float32": {}}
    for precision, given in options.items():
        folder = export_litert(
            net, tmp_path / precision, ["a", "b"], precision=precision, **given
        )
        names = operations_of(folder)
        assert ("HARD_SWISH" in names) == (precision == "float32")


def test_what_represents_a_model(model, tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 16, 3))
    segmenter = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    write_streets(tmp_path, 5, 1, (24, 32))
    files = sample(segmenter, [tmp_path / "train"], 3)
    assert [path.parent.name for path in files] == ["images"] * 3
    assert len({*files}) == 3
    assert representative(segmenter, tmp_path / "train").shape == (5, 12, 16, 3)
    found = representative(classifier((None, None)), files[0], (16, 20))
    assert found.shape == (1, 16, 20, 3) and found.max() > 200
    with pytest.raises(ValueError, match="open size need an image_size.*None"):
        representative(classifier((None, None)), files[0])
    generator = ylg.gan.generator(32, 2, latent_size=8, num_heads=2)
    with pytest.raises(ValueError, match="must take pictures.*generator"):
        sample(generator, files, 3)


@pytest.mark.thorough
def test_open_batch_and_size(tmp_path):
    net = classifier((None, None))
    for name, (export, _) in EXPORTS.items():
        options = {"batch_size": None} if name == "litert" else {}
        folder = export(
            net, tmp_path / name, image_size=(None, None), **options
        )
        run = runtimes.load(folder)
        assert run.inputs["images"][0] == (None, None, None, 3)
        for n, size in ((3, (16, 20)), (1, (24, 12)), (2, (16, 20))):
            batch = pictures(n, size)
            np.testing.assert_allclose(
                run(images=batch)["probabilities"],
                net.predict(batch, verbose=0),
                atol=1e-5,
            )


def test_logits_get_a_softmax(tmp_path):
    net = classifier(activation=None)
    folder = export_onnx(net, tmp_path / "a")
    raw = export_onnx(net, tmp_path / "b", from_logits=False)
    batch = pictures(2)
    logits = net.predict(batch, verbose=0)
    found = runtimes.load(folder)(images=batch)["probabilities"]
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = runtimes.load(raw)(images=batch)["probabilities"]
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_openvino_in_half_the_bytes(model, tmp_path):
    sizes = []
    for precision in ("float32", "float16"):
        folder = export_openvino(
            model, tmp_path / precision, precision=precision
        )
        sizes.append((folder / "model.bin").stat().st_size)
    assert 0.4 < sizes[1] / sizes[0] < 0.7
    batch = pictures(2)
    found = runtimes.load(folder)(images=batch)["probabilities"]
    expected = model.predict(batch, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_names_of_a_generators_classes_are_checked(tmp_path):
    model = ylg.gan.generator(32, 2, 3, latent_size=8, num_heads=2)
    for export in (export_onnx, export_savedmodel):
        with pytest.raises(ValueError, match="each of the 3 outputs.*=1"):
            export(model, tmp_path / "new", ["only one"])
        with pytest.raises(ValueError, match="sequence of names.*'horse'"):
            export(model, tmp_path / "new", "horse")
    assert not list(tmp_path.iterdir())


def test_no_name_of_a_model_is_exported(tmp_path):
    with pytest.raises(ValueError, match="kanets.load_model.*'kanet_qkv'"):
        export_onnx("kanet_qkv", tmp_path / "new")


@pytest.mark.thorough
@pytest.mark.parametrize("precision", (slow("float16"), "bfloat16"))
def test_a_savedmodel_in_half_precision(precision, tmp_path):
    net = kanet()
    folder = export_savedmodel(net, tmp_path / "half", precision=precision)
    data = folder / "variables" / "variables.data-00000-of-00001"
    assert 0.45 < data.stat().st_size / (4 * net.count_params()) < 0.55
    batch = pictures(3, (32, 32)).astype("uint8")
    run = runtimes.load(folder, signature="serve_images")
    found = run(images=batch)["probabilities"]
    expected = net.predict(batch.astype("float32"), verbose=0)
    difference = np.abs(found - expected).max()
    assert 0 < difference < {"float16": 0.03, "bfloat16": 0.15}[precision]


def test_another_precision_leaves_the_model_alone(model):
    before = [w.copy() for w in model.get_weights()]
    copy = in_precision(model, "float16")
    assert {str(w.dtype) for w in copy.weights} == {"float16"}
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert copy.class_names == NAMES
    assert in_precision(model, None) is model
    with pytest.raises(ValueError, match="precision='int8'"):
        in_precision(model, "int8")

    inputs = keras.Input((4, 4, 3))
    x = norm = keras.layers.Normalization()
    norm.adapt(pictures(4, (4, 4)))
    x = keras.ops.cast(norm(inputs), "int32")
    x = keras.layers.Flatten()(keras.ops.cast(x, "float32"))
    whole = keras.Model(inputs, keras.layers.Dense(3)(x))
    whole.compile("sgd", loss=lambda y, z: keras.ops.mean(y - z))
    same = in_precision(whole, "float32")
    batch = pictures(2, (4, 4), seed=4)
    expected = whole.predict(batch, verbose=0)
    np.testing.assert_array_equal(same.predict(batch, verbose=0), expected)

    class Mine(keras.Model):
        pass

    with pytest.raises(ValueError, match="layers can be copied.*'mine"):
        in_precision(Mine(name="mine"), "float16")
    attention = kanets.layers.KroneckerAttention(projections="qkvo")
    low_rank = keras.Sequential([keras.Input((4, 4, 8)), attention])
    attention.learned_maps["value"].enable_lora(2)  # in no configuration
    with pytest.raises(ValueError, match="layers can be copied.*sequential"):
        in_precision(low_rank, "float16")


@pytest.mark.parametrize(
    "export, change, message",
    [
        (export_litert, {"precision": "int4"}, "float16, int8.*'int4'"),
        (export_openvino, {"precision": "int8"}, "float32, float16.*'int8'"),
        (export_litert, {"precision": "int8"}, r"\(N, \*\(16, 20, 3\)\).*\(0,"),
        (
            export_litert,
            {"precision": "int8", "representative": np.zeros((2, 16, 16, 3))},
            r"shape \(2, 16, 16, 3\)",
        ),
        (
            export_litert,
            {"representative": np.zeros((2, 16, 20, 3))},
            "Only precision=\"int8\".*'float32'",
        ),
        (
            export_litert,
            {"precision": "int8", "representative": pictures(2) / 255},
            r"must hold 0..255.*from 0\.\d+ to 0\.\d+",
        ),
        (
            export_litert,
            {"precision": "int8", "representative": iter(pictures(2))},
            r"some hundred.*shape \(\)",
        ),
        (export_litert, {"batch_size": 0}, "batch_size=0"),
        (export_onnx, {"class_names": ["a"]}, "each of the 3 outputs"),
        (export_onnx, {"image_size": (None, None)}, r"\(None, None\)"),
        (export_onnx, {"image_size": (8, 8)}, r"image_size=\(8, 8\)"),
        (export_onnx, {"image_size": 16}, "height and a width.*image_size=16,"),
    ],
)
def test_bad_arguments_leave_nothing(export, change, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "new", **change)
    assert not list(tmp_path.iterdir())


def test_what_a_generator_does_not_take(tmp_path):
    model = ylg.gan.generator(32, 2, latent_size=8, num_heads=2)
    for change, message in (
        ({"image_size": (32, 32)}, "generator takes no `image_size`"),
        ({"from_logits": True}, "generator takes no `from_logits`"),
        ({"precision": "int8"}, "finer steps.*'float16'.*model="),
        ({"class_names": NAMES}, "takes no `class_names`. Received.*ant"),
    ):
        with pytest.raises(ValueError, match=message):
            export_litert(model, tmp_path / "new", **change)
    assert not list(tmp_path.iterdir())


def test_what_the_converter_refuses(tmp_path, monkeypatch):
    import tensorflow as tf

    def convert():
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(
        tf.lite.TFLiteConverter,
        "from_saved_model",
        lambda *_, **__: types.SimpleNamespace(convert=convert),
    )
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(12),
            keras.layers.Reshape((2, 2, 3)),
        ]
    )
    for batch_size, hint in ((1, ""), (None, " A fixed batch_size.*of it.")):
        message = (
            f"refuses this model.{hint} Received: .*batch_size={batch_size}, "
            ".*: no such operator$"
        )
        with pytest.raises(ValueError, match=message):
            export_litert(model, tmp_path / "new", batch_size=batch_size)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_the_converter_refuses_an_open_batch_of_a_generator(tmp_path):
    model = ylg.gan.generator(32, 2, latent_size=8, num_heads=2)
    with pytest.raises(ValueError, match="fixed batch_size.*batch_size=None"):
        export_litert(model, tmp_path / "new", batch_size=None)


@pytest.mark.parametrize("name", EXPORTS)
def test_nothing_is_overwritten_or_left_half(
    name, model, tmp_path, monkeypatch
):
    export, _ = EXPORTS[name]
    (tmp_path / "here").mkdir()
    with pytest.raises(FileExistsError, match="nothing is overwritten.*here"):
        export(model, tmp_path / "here")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("kanets.files.write_labels", fail)
    with pytest.raises(OSError, match="disk full"):
        export(model, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_missing_package_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"openvino: pip.*kanets\[openvino\]"):
        export_openvino(model, tmp_path / "o")
    monkeypatch.setitem(sys.modules, "tf2onnx.convert", None)
    with pytest.raises(ImportError, match=r"tf2onnx: pip.*kanets\[onnx\]"):
        export_onnx(model, tmp_path / "o")


def test_an_operator_that_onnx_has_not(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs) / 255.0
    x = keras.ops.erfinv(keras.ops.tanh(x) * 0.5)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    with pytest.raises(ValueError, match=r"lacks an operator.*\['Erfinv'\]"):
        kanets.export_onnx(model, tmp_path / "net", ["a", "b"])
    assert not list(tmp_path.iterdir())
