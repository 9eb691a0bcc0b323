"""kanets.export.export_savedmodel: the SavedModel against the Keras model."""

import io
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import ylg
from kanets.data.pictures import fit_picture, read_picture
from kanets.export import (
    bundle,
    export_savedmodel,
    is_generator,
    is_segmenter,
    load_segmenter_savedmodel,
)
from tests.backends import BACKEND

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
SIZE = (23, 31)
NAMES = ["sky", "road", "c\u00f4te", "tree", "sign"]
CLIENT = """
import sys
sys.modules.update(keras=None, kanets=None, ylg=None)  # not importable
import numpy as np
import tensorflow as tf
files = [open(path, "rb").read() for path in sys.argv[3:]]
served = tf.saved_model.load(sys.argv[1])
outputs = served.signatures["serving_default"](image_bytes=tf.constant(files))
np.savez(sys.argv[2], **{k: v.numpy() for k, v in outputs.items()})
"""


def make(size=SIZE, classes=5, activation="softmax"):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((*size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same")(x)
    x = keras.layers.UpSampling2D(2)(x)
    if None not in size:
        x = keras.layers.CenterCrop(*size)(x)
    x = keras.layers.Conv2D(classes, 1, activation=activation)(x)
    model = keras.Model(inputs, x, name="segmenter")
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 6)
    return model


def make_picture(height, width, seed):
    """Coarse patches of colour, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3))
    image = Image.fromarray(coarse.astype("uint8"))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    sizes = {"wide.jpg": (40, 97), "tall.png": (120, 53), "fits.png": SIZE}
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(make_picture(*size, seed)).save(folder / name)
    return [folder / name for name in sizes]


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "streets"
    return export_savedmodel(model, directory, class_names=NAMES)


@pytest.fixture(scope="module")
def served(folder):
    import tensorflow as tf

    return tf.saved_model.load(str(folder)).signatures


@pytest.mark.thorough
def test_a_client_without_keras_gets_the_labels(folder, files, model, tmp_path):
    command = [sys.executable, "-c", CLIENT, folder, tmp_path / "out.npz"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    found = np.load(tmp_path / "out.npz", allow_pickle=True)
    check_labels(found, files, model)


def test_what_is_served_is_what_the_model_says(served, files, model):
    data = [path.read_bytes() for path in files]
    found = served["serving_default"](image_bytes=data)
    check_labels({k: v.numpy() for k, v in found.items()}, files, model)


def check_labels(found, files, model):
    label_map = found["label_map"]
    assert label_map.dtype == np.int32 and label_map.shape == (3, *SIZE)
    pixels = [fit_picture(read_picture(path), SIZE) for path in files]
    scores = model.predict(np.stack(pixels).astype("float32"), verbose=0)
    expected = scores.argmax(-1)
    assert len(np.unique(expected)) > 2, "the classes are hardly used"
    # Where nothing is resized, all agree; elsewhere one level of one pixel
    # may decide between two classes that are as likely.
    np.testing.assert_array_equal(label_map[2], expected[2])
    best_two = np.sort(scores, axis=-1)[..., -2:]
    certain = best_two[..., 1] - best_two[..., 0] > 0.01
    assert certain.mean() > 0.9
    np.testing.assert_array_equal(label_map[certain], expected[certain])
    for png, labels in zip(found["png"], label_map, strict=True):
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG" and image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), labels)


def test_the_folder_is_a_bundle_as_others_are(folder, served):
    import tensorflow as tf

    assert folder.name == "1" and folder.parent.name == "streets"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    labels = folder / "assets.extra" / "labels.txt"
    assert labels.read_text(encoding="utf-8").split("\n") == [*NAMES, ""]
    assert set(served) == {"serving_default", "serve_images"}
    outputs = {"label_map": (tf.int32, (None, *SIZE)), "png": (tf.string, None)}
    for signature in served.values():
        for name, (dtype, shape) in outputs.items():
            spec = signature.structured_outputs[name]
            assert spec.dtype == dtype
            assert shape is None or tuple(spec.shape) == shape


def test_serve_images_is_serving_default_without_the_decoding(served, files):
    by_file = served["serving_default"](
        image_bytes=[files[1].read_bytes()],
    )
    pixels = read_picture(files[1])
    by_pixels = served["serve_images"](images=pixels[None])
    for name in ("label_map", "png"):
        np.testing.assert_array_equal(by_file[name], by_pixels[name])


def test_any_batch_size(served, files):
    import tensorflow as tf

    data = files[0].read_bytes()
    for count in (0, 1, 4):
        for outputs in (
            served["serving_default"](tf.constant([data] * count, tf.string)),
            served["serve_images"](tf.zeros((count, 9, 8, 3), tf.uint8)),
        ):
            assert outputs["label_map"].shape == (count, *SIZE)
            assert outputs["png"].shape == (count,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG or PNG"):
        served["serving_default"](tf.constant([b"GIF89a"]))


def test_warm_up_requests_replay(folder, served):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2"
    )
    import tensorflow as tf

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    replayed = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        signature = request.model_spec.signature_name
        inputs = {
            name: tf.constant(tf.make_ndarray(value))
            for name, value in request.inputs.items()
        }
        assert served[signature](**inputs)["label_map"].shape == (1, *SIZE)
        replayed.append(signature)
    assert replayed == ["serving_default", "serve_images"]


@pytest.mark.thorough
def test_loading_takes_the_highest_version(tmp_path, files, folder, served):
    data = [path.read_bytes() for path in files]
    shutil.copytree(folder, tmp_path / "1")
    open_size = make((None, None), activation=None)
    open_size.class_names = NAMES
    second = export_savedmodel(open_size, tmp_path, image_size=(14, 18))
    assert second == tmp_path / "2"
    found = load_segmenter_savedmodel(tmp_path / "1")(data)
    expected = served["serving_default"](image_bytes=data)["label_map"]
    np.testing.assert_array_equal(found, expected)
    small = load_segmenter_savedmodel(tmp_path)(data)
    assert small.shape == (3, 14, 18) and small.dtype == np.int32
    pixels = [fit_picture(read_picture(path), (14, 18)) for path in files]
    logits = open_size.predict(np.stack(pixels).astype("float32"), verbose=0)
    assert (small == logits.argmax(-1)).mean() > 0.98


def test_a_savedmodel_that_returns_no_labels(tmp_path):
    import tensorflow as tf

    scores = tf.function(
        lambda image_bytes: {"scores": tf.zeros(tf.shape(image_bytes))},
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    for name, signatures in (("other", {"serving_default": scores}), ("", {})):
        path = tmp_path / f"foreign {name}"
        tf.saved_model.save(tf.Module(), str(path), signatures)
        with pytest.raises(
            ValueError, match=rf"returns `label_map`.*foreign {name}"
        ):
            load_segmenter_savedmodel(path)
    with pytest.raises(FileNotFoundError, match="an exported version"):
        load_segmenter_savedmodel(tmp_path)


def test_what_is_a_segmenter(model):
    classifier = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    generator = ylg.gan.generator(32, 2, latent_size=8, num_heads=2)
    conditional = ylg.gan.generator(32, 2, 3, latent_size=8, num_heads=2)
    models = (model, make((None, None)), classifier, generator, conditional)
    found = [is_segmenter(m) for m in models]
    assert found == [True, True, False, False, False]
    assert not is_generator(model)


@pytest.mark.parametrize(
    "options, change, message",
    [
        ({}, {"class_names": None}, "must be given.*class_names=None"),
        ({}, {"class_names": NAMES[1:]}, r"each of the 5 .*names\)=4"),
        ({}, {"image_size": (23, 32)}, r"model's input size.*=\(23, 32\)"),
        ({}, {"version": 0}, "positive integer. Received: version=0"),
        ({"classes": 257}, {}, "2 to 256 classes.*Received: 257 classes"),
        (
            {"classes": 1, "activation": None},
            {},
            "2 to 256 classes.*Received: 1 classes",
        ),
        ({"size": (None, None)}, {}, "leaves them open.*image_size=.None"),
        (
            {"size": (None, None)},
            {"image_size": (9, 8)},
            r"for pictures of \(9, 8\).*outputs=\(None, 10, 8, 5\)",
        ),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, options, change, message):
    arguments = {"class_names": NAMES} | change
    with pytest.raises(ValueError, match=message):
        export_savedmodel(make(**options), tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_models_that_are_no_segmenters(tmp_path):
    inputs = keras.Input((5, 4, 3))
    message = "must return one tensor.*outputs=dict"
    with pytest.raises(ValueError, match=message):
        export_savedmodel(keras.Model(inputs, {"a": inputs}), tmp_path)
    with pytest.raises(ValueError, match="segmenter takes no `top_k`.*top_k=2"):
        export_savedmodel(make(), tmp_path, NAMES, top_k=2)
    assert not list(tmp_path.iterdir())


def test_versions_are_never_overwritten_and_whole(
    tmp_path, folder, model, monkeypatch
):
    shutil.copytree(folder, tmp_path / "3")
    with pytest.raises(FileExistsError, match="nothing is overwritten.*/3'"):
        export_savedmodel(model, tmp_path, NAMES, 3)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(bundle, "write_warmup", fail)
    with pytest.raises(OSError, match="disk full"):
        export_savedmodel(model, tmp_path, class_names=NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
