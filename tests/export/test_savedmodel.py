"""kanets.export: the bundle against the model, Pillow and a strict client."""

import functools
import io
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402

from kanets.data import graph_pictures  # noqa: E402
from kanets.data.pictures import fit_picture, read_picture  # noqa: E402
from kanets.export import bundle as export_bundle  # noqa: E402
from kanets.export import (  # noqa: E402
    classifier,  # noqa: E402
    export_savedmodel,
    load_savedmodel,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="exporting needs the TensorFlow backend",
)

ROOT = pathlib.Path(__file__).parents[2]
SIZE = (29, 37)
NAMES = ["ant", "bee", "c\u00f4te", "fly", "moth", "wasp", "zebra"]


def make_model(activation="softmax", size=SIZE, classes=7, dtype="float32"):
    """A small classifier whose training and inference modes differ."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((*size, 3)),
            keras.layers.Rescaling(1 / 127.5, -1, dtype=dtype),
            keras.layers.Conv2D(8, 3, strides=2, dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.Dropout(0.5, dtype=dtype),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
            keras.layers.Dense(classes, activation=activation, dtype=dtype),
        ]
    )
    norm = model.layers[2]
    norm.moving_mean.assign(np.linspace(-0.3, 0.3, 8))
    norm.moving_variance.assign(np.linspace(0.1, 0.4, 8))
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 6)
    return model


def make_picture(height, width, seed=0):
    """A smooth picture with some noise, uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3))
    image = Image.fromarray(coarse.astype(np.uint8)).resize((width, height))
    noise = rng.integers(-9, 10, (height, width, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def encode(image, format="JPEG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def train_view(encoded, size=SIZE):
    """What the training loader makes of a file."""
    return fit_picture(read_picture(io.BytesIO(encoded)), size)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def run(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


JPEGS = [
    encode(make_picture(71, 97, 1), quality=90),
    encode(make_picture(120, 53, 2), quality=75),
    encode(make_picture(29, 37, 3), quality=95),
    encode(make_picture(17, 300, 4), quality=90, progressive=True),
]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "insects"
    return export_savedmodel(model, directory, NAMES, batch_sizes=[1, 4])


@pytest.fixture(scope="module")
def bundle(folder):
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="module")
def predict(folder):
    return load_savedmodel(folder)


def test_layout(folder):
    assert folder.name == "1"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert (folder / "saved_model.pb").is_file()
    assert (folder / "variables" / "variables.index").is_file()
    labels = (folder / "assets.extra" / "labels.txt").read_bytes()
    assert labels.decode().split("\n") == [*NAMES, ""]


def test_weights_are_stored_once(folder, model):
    """Kernels and biases, with batch normalisation inside, as constants."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.dtypes import float32

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    tensors = [
        node.attr["value"].tensor
        for function in graph.graph_def.library.function
        for node in function.node_def
        if node.op == "Const"
    ]
    sizes = [
        np.prod([dim.size for dim in tensor.tensor_shape.dim])
        for tensor in tensors
        if tensor.dtype == float32.as_datatype_enum and tensor.tensor_shape.dim
    ]
    layers = [x for x in model.layers if hasattr(x, "kernel")]
    expected = [np.prod(w.shape) for x in layers for w in x.weights]
    assert len(expected) == 4
    assert sorted(n for n in sizes if n > 4) == sorted(expected)


def test_signatures(folder):
    """Names, dtypes and shapes as `saved_model_cli show` reads them."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.dtypes import as_dtype

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]

    def describe(tensors):
        return {
            name: (
                as_dtype(info.dtype).name,
                [dim.size for dim in info.tensor_shape.dim],
            )
            for name, info in tensors.items()
        }

    outputs = {
        "classes": ("string", [-1, 5]),
        "scores": ("float32", [-1, 5]),
        "probabilities": ("float32", [-1, 7]),
    }
    inputs = {
        "serving_default": {"image_bytes": ("string", [-1])},
        "serve_images": {"images": ("uint8", [-1, -1, -1, 3])},
    }
    signatures = dict(graph.signature_def)
    signatures.pop("__saved_model_init_op", None)
    assert set(signatures) == set(inputs)
    for name, signature in signatures.items():
        assert describe(signature.inputs) == inputs[name]
        assert describe(signature.outputs) == outputs
        assert signature.method_name == "tensorflow/serving/predict"


def test_agrees_with_the_model_on_jpeg(predict, model):
    classes, scores, probabilities = predict(JPEGS)
    pixels = np.stack([train_view(encoded) for encoded in JPEGS])
    # Half a level apart at a few pixels is all that resizing may cost.
    expected = model.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=2e-4)
    assert np.ptp(expected, axis=0).max() > 0.01, "pictures look the same"
    order = np.argsort(-probabilities, axis=-1)[:, :5]
    np.testing.assert_array_equal(classes, np.array(NAMES)[order])
    np.testing.assert_array_equal(
        scores, np.take_along_axis(probabilities, order, -1)
    )
    assert scores.dtype == probabilities.dtype == np.float32


def test_agrees_exactly_where_nothing_is_resized(predict, model):
    encoded = [encode(make_picture(*SIZE, seed), quality=90) for seed in (6, 7)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(e))) for e in encoded])
    expected = model.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(predict(encoded)[2], expected, atol=1e-5)


def test_serve_images_is_serving_default_without_the_decoding(bundle, predict):
    picture = make_picture(64, 101, 8)
    outputs = bundle.signatures["serve_images"](images=picture[None])
    classes, scores, probabilities = predict([encode(picture, "PNG")])
    np.testing.assert_allclose(
        outputs["probabilities"], probabilities, atol=1e-6
    )
    np.testing.assert_allclose(outputs["scores"], scores, atol=1e-6)
    assert [n.decode() for n in outputs["classes"].numpy()[0]] == [*classes[0]]


def test_empty_batches(bundle):
    import tensorflow as tf

    for outputs in (
        bundle.signatures["serving_default"](tf.constant([], tf.string)),
        bundle.signatures["serve_images"](tf.zeros((0, 50, 60, 3), tf.uint8)),
        bundle.signatures["serve_images"](tf.zeros((0, *SIZE, 3), tf.uint8)),
    ):
        assert outputs["classes"].shape == outputs["scores"].shape == (0, 5)
        assert outputs["probabilities"].shape == (0, 7)


@pytest.fixture(scope="module")
def decode():
    """The first half of `serving_default`: files to fitted pixels."""
    import tensorflow as tf

    @functools.cache
    def graph(size):
        files = tf.TensorSpec((None,), tf.string)
        return tf.function(
            lambda files: graph_pictures.decode_pictures(files, size),
            [files],
            False,
        )

    def decode(encoded, size=None):
        if size is None:
            size = read_picture(io.BytesIO(encoded)).shape[:2]
        (pixels,) = graph(size)(tf.constant([encoded])).numpy()
        assert pixels.dtype == np.float32
        return pixels

    return decode


def transparent(mode):
    alpha = Image.fromarray(make_picture(23, 31, 9)[..., 0])
    bands = Image.fromarray(make_picture(23, 31, 10)).convert(mode[:-1])
    return Image.merge(mode, [*bands.split(), alpha])


def converted(mode):
    return Image.fromarray(make_picture(23, 31, 11)).convert(mode)


SOURCES = {
    "jpeg 4:2:0": encode(make_picture(23, 31, 12), quality=90),
    "jpeg 4:2:2": encode(make_picture(23, 31, 12), quality=90, subsampling=1),
    "jpeg 4:4:4": encode(make_picture(23, 31, 12), quality=90, subsampling=0),
    "jpeg progressive": encode(make_picture(23, 31, 13), progressive=True),
    "jpeg grey": encode(converted("L")),
    "jpeg cmyk": encode(converted("CMYK")),
    "png": encode(converted("RGB"), "PNG"),
    "png grey": encode(converted("L"), "PNG"),
    "png grey with a clear level": encode(
        converted("L"), "PNG", transparency=100
    ),
    "png 1 bit": encode(converted("1"), "PNG"),
    "png palette": encode(converted("P"), "PNG"),
    "png palette with a clear entry": encode(
        converted("P"), "PNG", transparency=3
    ),
    "png with a clear colour": encode(
        Image.new("RGB", (31, 23), (9, 8, 7)), "PNG", transparency=(9, 8, 7)
    ),
    "png rgba": encode(transparent("RGBA"), "PNG"),
    "png grey and alpha": encode(transparent("LA"), "PNG"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_decodes_as_training_does(name, decode):
    expected = read_picture(io.BytesIO(SOURCES[name]))
    np.testing.assert_array_equal(decode(SOURCES[name]), expected)


def test_16_bit_grey_is_scaled_not_clipped(decode):
    grey = np.arange(23 * 31, dtype=np.uint16).reshape(23, 31) * 91
    pixels = decode(encode(grey, "PNG"))
    expected = np.repeat(grey[..., None] / 257, 3, axis=-1)
    np.testing.assert_allclose(pixels, expected, atol=1)


def exif(orientation, byte_order):
    """EXIF with entries around the orientation, in either byte order."""
    data = Image.Exif()
    data.endian = byte_order
    data[0x010F], data[0x0112], data[0x0131] = "maker", orientation, "program"
    return data.tobytes()


@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_turns_jpeg_upright_as_training_does(orientation, byte_order, decode):
    encoded = encode(
        make_picture(23, 31, 14),
        exif=exif(orientation, byte_order),
        icc_profile=bytes(3000),  # a segment more to step over
    )
    expected = read_picture(io.BytesIO(encoded))
    turned = 5 <= orientation <= 8
    assert expected.shape == ((31, 23, 3) if turned else (23, 31, 3))
    np.testing.assert_array_equal(decode(encoded), expected)


def test_damaged_exif_counts_as_upright(decode):
    plain = encode(make_picture(23, 31, 15))
    whole = exif(6, ">")
    for data in (whole[:9], whole[:17], b"Exif\0\0", b"Exif\0\0MM\0*\xff" * 2):
        segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2) + data
        encoded = plain[:2] + segment + plain[2:]
        size = (23, 31)
        np.testing.assert_array_equal(decode(encoded, size), decode(plain))


@pytest.mark.parametrize(
    "source, target",
    [
        ((71, 97), (32, 32)),
        ((200, 301), (64, 64)),
        ((500, 333), (160, 96)),
        ((40, 51), (64, 64)),
        ((3, 200), (31, 17)),
        ((200, 3), (31, 17)),
        ((1, 1), (5, 7)),
        ((1, 64), (5, 64)),
        ((64, 64), (64, 64)),
        ((67, 64), (64, 64)),
    ],
)
def test_fits_as_pillow_does(source, target, decode):
    encoded = encode(make_picture(*source, 16), "PNG")
    difference = np.abs(decode(encoded, target) - train_view(encoded, target))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03


def test_bad_requests_fail_alone(predict, bundle):
    import tensorflow as tf

    before = predict(JPEGS[:1])[2]
    for encoded in (b"", b"\xff", b"GIF89a", encode(make_picture(9, 9), "BMP")):
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match=r"must hold JPEG or PNG pictures(.|\n)*batch:\] \[1\]",
        ):
            predict([JPEGS[0], encoded])
    png = encode(make_picture(9, 9), "PNG")
    for encoded in (JPEGS[0][:-300], b"\xff\xd8\xff\xe0", png[:-40], png[:8]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG|PNG"):
            predict([encoded])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one pixel"):
        bundle.signatures["serve_images"](tf.zeros((1, 0, 9, 3), tf.uint8))
    np.testing.assert_array_equal(predict(JPEGS[:1])[2], before)


def test_body_compiles_with_xla(model):
    size = (1, *SIZE, 3)
    pixels = np.random.default_rng(0).uniform(0, 255, size).astype("float32")
    body = classifier.make_body(model, SIZE, False, jit_compile=True)
    plain = classifier.make_body(model, SIZE, False)
    hlo = body.experimental_get_compiler_ir(pixels)(stage="hlo")
    assert "convolution" in hlo
    np.testing.assert_allclose(body(pixels), plain(pixels), atol=1e-5)


def test_nothing_is_forced_through_xla(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        assert not function.attr["_XlaMustCompile"].b


@pytest.mark.thorough
def test_loads_where_keras_and_kanets_cannot_be_imported(folder, predict):
    code = f"""
import sys
from importlib.machinery import ModuleSpec
class Hook:  # TensorFlow looks whether Keras is there; importing it fails
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "tf_keras", "kanets"):
            return ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(spec.name)
    def exec_module(self, module):
        raise AssertionError
sys.meta_path.insert(0, Hook())
import tensorflow as tf
serve = tf.saved_model.load({str(folder)!r}).signatures["serving_default"]
outputs = serve(image_bytes=tf.constant([{JPEGS[0]!r}]))
assert not {{"keras", "kanets"}} & set(sys.modules)
print(outputs["probabilities"].numpy()[0].tolist())
"""
    probabilities = eval(finish(run(code)).splitlines()[-1])
    np.testing.assert_allclose(
        probabilities, predict(JPEGS[:1])[2][0], atol=1e-6
    )


def test_warmup_requests_replay(folder, bundle):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    assert path.stat().st_size < 20_000
    replayed = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "insects"
        serve = bundle.signatures[request.model_spec.signature_name]
        inputs = {
            name: tf.constant(tf.make_ndarray(tensor))
            for name, tensor in request.inputs.items()
        }
        assert list(inputs) == list(serve.structured_input_signature[1])
        outputs = serve(**inputs)
        assert outputs["classes"].shape[1] == 5
        # Parsed and written again by protobuf: nothing unknown, nothing lost.
        assert log.SerializeToString(deterministic=True) == record.numpy()
        size = outputs["classes"].shape[0]
        replayed.append((request.model_spec.signature_name, size))
    assert replayed == [
        ("serving_default", 1),
        ("serve_images", 1),
        ("serving_default", 4),
        ("serve_images", 4),
    ]


def serve_model(model, tmp_path, class_names=NAMES, **options):
    folder = export_savedmodel(model, tmp_path / "m", class_names, **options)
    return load_savedmodel(folder)


def plain_pixels(size=SIZE):
    picture = make_picture(*size, 17)
    return [encode(picture, "PNG")], picture[None].astype("float32")


def test_logits_get_a_softmax(tmp_path):
    model = make_model(activation=None)
    files, pixels = plain_pixels()
    probabilities = serve_model(model, tmp_path)(files)[2]
    expected = softmax(model.predict(pixels, verbose=0))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.thorough
def test_sigmoid_is_left_alone(tmp_path):
    model = make_model(activation="sigmoid")
    files, pixels = plain_pixels()
    probabilities = serve_model(model, tmp_path)(files)[2]
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "dtype, activation",
    [
        pytest.param("mixed_float16", "softmax", marks=pytest.mark.thorough),
        ("float16", None),
    ],
)
def test_half_models_give_float32(tmp_path, dtype, activation):
    model = make_model(activation, dtype=dtype)
    files, pixels = plain_pixels()
    _, scores, probabilities = serve_model(model, tmp_path)(files)
    expected = model.predict(pixels, verbose=0).astype("float32")
    if activation is None:
        expected = softmax(expected)
        np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-6)
    assert scores.dtype == probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)


@pytest.mark.thorough
def test_subclassed_model_needs_two_arguments(tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.mean(x, (1, 2)) / 255)

    model = Subclassed()
    with pytest.raises(ValueError, match="must be built.*Received: model="):
        export_savedmodel(model, tmp_path, "abc")
    files, pixels = plain_pixels((6, 7))
    logits = model(pixels).numpy()
    with pytest.raises(ValueError, match="`image_size` must be a height"):
        export_savedmodel(model, tmp_path, list("abc"))
    with pytest.raises(ValueError, match="`from_logits` must be given"):
        export_savedmodel(model, tmp_path, list("abc"), image_size=(6, 7))
    for from_logits in (True, False):
        options = {"image_size": (6, 7), "from_logits": from_logits}
        outputs = serve_model(model, tmp_path, list("abc"), **options)(files)
        expected = softmax(logits) if from_logits else logits
        np.testing.assert_allclose(outputs[2], expected, atol=1e-5)


def test_open_size_needs_image_size(tmp_path):
    model = make_model(size=(None, None))
    with pytest.raises(
        ValueError, match=r"leaves them open. Received: image_size=\(None"
    ):
        export_savedmodel(model, tmp_path, NAMES)
    predict = serve_model(model, tmp_path, image_size=[33, 21])
    files, pixels = plain_pixels((33, 21))
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(predict(files)[2], expected, atol=1e-5)


def test_class_names_of_the_model_and_few_classes(tmp_path):
    model = make_model(classes=2)
    model.class_names = ["bee", "ant"]
    classes, scores, _ = serve_model(model, tmp_path, None, top_k=9)(JPEGS)
    assert classes.shape == scores.shape == (4, 2)
    assert set(classes.flat) == {"ant", "bee"}
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_names": None}, "must be given.*Received: class_names=None"),
        ({"class_names": NAMES[1:]}, r"each of the 7 outputs.*names\)=6"),
        ({"class_names": "insects"}, "must be a sequence.*='insects'"),
        ({"class_names": [*NAMES[1:], "bee"]}, "repeat.*Received: bee more"),
        ({"class_names": [*NAMES[1:], 7]}, "of one line. Received: 7 in"),
        ({"class_names": [*NAMES[1:], "a\nb"]}, r"of one line.*'a\\nb'"),
        ({"class_names": [*NAMES[1:], ""]}, "of one line. Received: ''"),
        ({"version": 0}, "`version` must be a positive.*version=0"),
        ({"version": "3"}, "`version` must be a positive.*version='3'"),
        ({"version": True}, "`version` must be a positive.*version=True"),
        ({"top_k": 0}, "`top_k` must be a positive.*top_k=0"),
        ({"top_k": 1.5}, "`top_k` must be a positive.*top_k=1.5"),
        ({"image_size": (29, 36)}, r"model's input size.*=\(29, 36\)"),
        ({"image_size": (29,)}, r"a height and a width.*=\(29,\)"),
        ({"image_size": (0, 9)}, "`image_size` must be a positive.*=0"),
    ],
)
def test_bad_arguments_leave_nothing(model, tmp_path, change, message):
    arguments = {"class_names": NAMES} | change
    with pytest.raises(ValueError, match=message):
        export_savedmodel(model, tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_models_that_are_no_classifiers(tmp_path):
    inputs = keras.Input((5, 4, 3))
    rows = keras.layers.Reshape((20, 3))(inputs)
    for output in (rows, {"a": keras.layers.Flatten()(rows)}):
        with pytest.raises(ValueError, match="must return one tensor"):
            export_savedmodel(
                keras.Model(inputs, output), tmp_path, NAMES, from_logits=True
            )
    grey = keras.Input((5, 4, 1))
    with pytest.raises(ValueError, match=r"must take pictures.*5, 4, 1\)"):
        export_savedmodel(keras.Model(grey, grey), tmp_path, NAMES)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_versions_count_on_and_are_never_overwritten(tmp_path):
    model = make_model()
    for name in ("007", "x8", "-9", ".tmp-12-ab"):
        (tmp_path / name).mkdir()
    assert export_savedmodel(model, tmp_path, NAMES) == tmp_path / "8"
    assert export_savedmodel(model, tmp_path, NAMES, 3) == tmp_path / "3"
    before = sorted(tmp_path.rglob("*"))
    for version, name in ((8, "8"), (7, "007")):
        path = re.escape(str(tmp_path / name))
        with pytest.raises(FileExistsError, match=f"nothing is overwr.*{path}"):
            export_savedmodel(model, tmp_path, NAMES, version)
    assert sorted(tmp_path.rglob("*")) == before
    predict = load_savedmodel(tmp_path)
    (tmp_path / "8").rename(tmp_path / "saved")
    assert predict(JPEGS)[0].shape == (4, 5)


@pytest.mark.thorough
def test_of_two_exports_at_once_one_wins(tmp_path, monkeypatch):
    model, write = make_model(), export_bundle.write_warmup
    others = [["other", *NAMES[1:]]]

    def overtake(*arguments):
        write(*arguments)
        if others:
            export_savedmodel(model, tmp_path, others.pop(), 4)

    monkeypatch.setattr(export_bundle, "write_warmup", overtake)
    with pytest.raises(FileExistsError, match="nothing is overwritten.*/4'"):
        export_savedmodel(model, tmp_path, NAMES, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["4"]
    labels = tmp_path / "4" / "assets.extra" / "labels.txt"
    assert labels.read_text().startswith("other\n")


def test_weights_that_are_not_finite_are_not_served(tmp_path):
    model = make_model()
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * 1e6)
    with pytest.raises(ValueError, match="finite.*in float16' with NaN or inf"):
        export_savedmodel(model, tmp_path, NAMES, precision="float16")
    kernel.assign(kernel * np.nan)
    with pytest.raises(ValueError, match="must be finite.*dense.*/kernel'"):
        export_savedmodel(model, tmp_path, NAMES)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / ".tmp-of-another").mkdir()

    def fail(folder, *_):
        assert (folder.parent / "saved_model.pb").is_file()
        raise OSError("disk full")

    monkeypatch.setattr(export_bundle, "write_warmup", fail)
    with pytest.raises(OSError, match="disk full"):
        export_savedmodel(make_model(), tmp_path, NAMES)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"1", ".tmp-of-another"}


@pytest.mark.thorough
def test_a_killed_export_leaves_no_version(tmp_path, folder):
    code = f"""
import time
from tests.export.test_savedmodel import (
    NAMES, export_bundle, export_savedmodel, make_model
)
def hang(*_):
    print("writing", flush=True)
    time.sleep(100)
export_bundle.write_warmup = hang
export_savedmodel(make_model(), {str(tmp_path)!r}, NAMES)
"""
    process = run(code)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-1-")
    assert (left / "saved_model.pb").is_file()
    with pytest.raises(FileNotFoundError):
        load_savedmodel(tmp_path)
    exported = export_savedmodel(make_model(), tmp_path, NAMES)
    assert exported == tmp_path / "1"
    assert left.is_dir()


@pytest.mark.thorough
def test_load_takes_the_highest_version_or_says_why_not(tmp_path, folder):
    import tensorflow as tf

    for path in (tmp_path, tmp_path / "missing", folder / "saved_model.pb"):
        with pytest.raises(FileNotFoundError, match="folder of versions. Rec"):
            load_savedmodel(path)
    for number, first in ((2, "two"), (10, "ten")):
        names = [first, *NAMES[1:]]
        export_savedmodel(make_model(), tmp_path, names, number, top_k=7)
    (tmp_path / "11").mkdir()  # a copy that has just begun
    assert "ten" in load_savedmodel(tmp_path)(JPEGS)[0]
    assert "two" in load_savedmodel(str(tmp_path / "2"))(JPEGS)[0]
    foreign = tmp_path / "foreign"
    tf.saved_model.save(tf.Module(), str(foreign))
    with pytest.raises(ValueError, match="must have a signature.*foreign"):
        load_savedmodel(foreign)


@pytest.mark.thorough
def test_jax_backend_is_refused_and_tensorflow_is_not_imported(tmp_path):
    pytest.importorskip("jax")
    code = f"""
import sys
from kanets.export import export_savedmodel
import keras
assert "tensorflow" not in sys.modules
model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
try:
    export_savedmodel(model, {str(tmp_path)!r}, list("ab"))
except RuntimeError as error:
    print(error)
assert "tensorflow" not in sys.modules
"""
    message = finish(run(code, KERAS_BACKEND="jax"))
    assert "model.save('model.keras')" in message
    assert "KERAS_BACKEND=tensorflow. Received: backend='jax'" in message
    assert not list(tmp_path.iterdir())


def test_a_single_logit_is_of_a_sigmoid(tmp_path):
    import tensorflow as tf

    inputs = keras.Input((6, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="predictions")(x))
    model.layers[-1].set_weights([np.full((3, 1), 0.01), np.array([-3.0])])
    folder = export_savedmodel(model, tmp_path / "one", ["red"])
    images = np.random.default_rng(0).uniform(0, 255, (4, 6, 8, 3))
    images = (images * np.arange(4)[:, None, None, None] / 4).round()
    images = images.astype("float32")
    expected = 1 / (1 + np.exp(-np.asarray(model(images))))
    served = tf.saved_model.load(str(folder)).signatures["serve_images"]
    found = served(images=images.astype("uint8"))["probabilities"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.1
