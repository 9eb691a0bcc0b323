"""kanets.export.export_savedmodel: the SavedModel against the Keras model."""

import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import ylg
from kanets.export import export_savedmodel, is_generator
from tests.backends import BACKEND, to_numpy

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
CLIENT = """
import sys
sys.modules.update(keras=None, kanets=None, ylg=None)  # not importable
import numpy as np
import tensorflow as tf
given = np.load(sys.argv[2])
inputs = {name: tf.constant(given[name]) for name in given.files}
served = tf.saved_model.load(sys.argv[1])
outputs = served.signatures["serving_default"](**inputs)
np.savez(sys.argv[3], **{k: v.numpy() for k, v in outputs.items()})
"""


def make(num_classes=None):
    model = ylg.gan.generator(32, 2, num_classes, latent_size=8, num_heads=2)
    model.get_layer("attention").sigma.assign(1.0)
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return export_savedmodel(model, tmp_path_factory.mktemp("new"), version=3)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "num_classes", (None, pytest.param(3, marks=pytest.mark.slow))
)
def test_a_client_without_keras_gets_the_pictures(tmp_path, num_classes):
    model = make(num_classes)
    model.class_names = ("ant", "bee", "cat") if num_classes else ()
    folder = export_savedmodel(model, tmp_path / "bundle")
    assert folder == tmp_path / "bundle" / "1"
    z = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    given = {"z": z}
    inputs = z
    if num_classes:
        given["label"] = np.array([0, 1, 2, 0, 1], "int32")
        inputs = [z, given["label"]]
        labels = folder / "assets.extra" / "labels.txt"
        assert labels.read_text() == "ant\nbee\ncat\n"
    np.savez(tmp_path / "in.npz", **given)
    paths = [str(path) for path in (folder, tmp_path / "in.npz")]
    command = [sys.executable, "-c", CLIENT, *paths, str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True)
    found = np.load(tmp_path / "out.npz", allow_pickle=True)
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(found["images"], expected, atol=1e-5)
    assert expected.std() > 0.05
    for png, picture in zip(found["png"], found["images"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(png)), np.float32)
        np.testing.assert_allclose(
            pixels, (picture + 1) * 127.5, atol=0.5 + 1e-3
        )


@pytest.mark.thorough
def test_warm_up_requests_name_every_input(tmp_path):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2"
    )
    import tensorflow as tf

    folder = export_savedmodel(make(3), tmp_path)
    [record] = tf.data.TFRecordDataset(
        str(folder / "assets.extra" / "tf_serving_warmup_requests")
    )
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    request = log.predict_log.request
    inputs = {
        name: tf.constant(tf.make_ndarray(value))
        for name, value in request.inputs.items()
    }
    assert set(inputs) == {"z", "label"}
    served = tf.saved_model.load(str(folder))
    outputs = served.signatures[request.model_spec.signature_name](**inputs)
    assert outputs["images"].shape == (1, 32, 32, 3)


def test_any_batch_size(folder):
    import tensorflow as tf

    served = tf.saved_model.load(str(folder))
    serve = served.signatures["serving_default"]
    for count in (0, 1, 7):
        outputs = serve(z=tf.zeros((count, 8)))
        assert outputs["images"].shape == (count, 32, 32, 3)
        assert outputs["png"].shape == (count,)


def test_versions_and_errors(model, folder):
    with pytest.raises(FileExistsError, match="nothing is overwritten.*/3'"):
        export_savedmodel(model, folder.parent, version=3)
    classifier = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    assert not is_generator(classifier) and is_generator(make(2))
    for name, value in (("image_size", (32, 32)), ("top_k", 3)):
        with pytest.raises(ValueError, match=f"takes no `{name}`.*{name}="):
            export_savedmodel(model, folder.parent, **{name: value})
    assert [path.name for path in folder.parent.iterdir()] == ["3"]
    assert to_numpy(model(np.zeros((1, 8), "float32"))).shape[1] == 32
