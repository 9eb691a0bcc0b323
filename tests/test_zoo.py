"""Model folders, zoo entries, new heads and new sizes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import zoo
from tests.backends import BACKEND, to_numpy

ROOT = Path(__file__).parents[1]
NAMES = ("ant", "bee", "wasp")
PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
PICTURES = PICTURES.astype("float32")


def make_model():
    keras.utils.set_random_seed(0)
    return kanets.KANet(
        (16, 16, 3), alpha=0.1, classes=3, strides=(2, 1, 2, 1, 1)
    )


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def folder(model, tmp_path):
    return kanets.save_model(model, tmp_path / "insects", NAMES)


@pytest.fixture
def entry(model, tmp_path, monkeypatch):
    """A zoo with one entry."""
    folder = kanets.save_model(model, tmp_path / "zoo" / "kanet_x", NAMES)
    fields = dataclasses.asdict(
        zoo.Entry(
            name="kanet_x",
            task="classification",
            data="insects",
            metric="top-1 accuracy, test",
            value=0.5,
            parameters=model.count_params(),
            input_shape=(16, 16, 3),
            recipe="none.toml",
            licence="Apache-2.0",
            sha256=zoo.sha256(folder / "model.weights.h5"),
        )
    )
    (folder / "entry.json").write_text(json.dumps(fields))
    monkeypatch.setattr(zoo, "models_directory", lambda: tmp_path / "zoo")
    return folder


def predict(model, pictures=PICTURES):
    return to_numpy(model(pictures, training=False))


def test_a_folder_gives_the_same_model(model, folder):
    loaded = kanets.load_model(folder)
    assert loaded.class_names == NAMES
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "labels.txt",
        "metadata.json",
        "model.weights.h5",
    }


def test_keras_alone_loads_a_folder(model, folder):
    loaded = keras.saving.load_model(folder)
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)


def test_a_fresh_process_loads_a_folder(model, folder):
    np.save(folder.parent / "pictures.npy", PICTURES)
    code = f"""
import numpy as np, kanets
model = kanets.load_model({str(folder)!r})
pictures = np.load({str(folder.parent / "pictures.npy")!r})
np.save({str(folder.parent / "out.npy")!r}, model(pictures))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    np.testing.assert_allclose(
        np.load(folder.parent / "out.npy"), predict(model), atol=1e-5
    )


def test_the_optimizer_is_not_saved(tmp_path):
    trained = make_model()
    trained.compile("adam", "sparse_categorical_crossentropy")
    trained.fit(PICTURES, np.array([0, 1]), verbose=0)
    folder = kanets.save_model(trained, tmp_path / "trained", NAMES)
    plain = kanets.save_model(make_model(), tmp_path / "plain", NAMES)
    size = (folder / "model.weights.h5").stat().st_size
    assert size == (plain / "model.weights.h5").stat().st_size
    assert trained.optimizer is not None
    loaded = kanets.load_model(folder)
    np.testing.assert_allclose(predict(loaded), predict(trained), atol=1e-6)


def test_saving_replaces_whole_or_not_at_all(model, folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    before = (folder / "model.weights.h5").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(keras.saving, "save_model", fail)
        with pytest.raises(OSError, match="disk full"):
            kanets.save_model(model, folder, ("a", "b", "c"))
    assert (folder / "model.weights.h5").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["insects"]

    original = Path.rename

    def fail_at_last(self, target):
        if Path(target) == folder and not self.name.endswith(".old"):
            raise OSError("moved away")
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_at_last)
        with pytest.raises(OSError, match="moved away"):
            kanets.save_model(model, folder, ("a", "b", "c"))
    assert (folder / "model.weights.h5").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["insects"]
    kanets.save_model(model, folder, ("a", "b", "c"))
    assert kanets.load_model(folder).class_names == ("a", "b", "c")
    assert [p.name for p in folder.parent.iterdir()] == ["insects"]


def test_a_new_head(folder, model):
    tuned = kanets.create_model(folder, num_classes=5)
    assert tuned.output_shape == (None, 5)
    assert getattr(tuned, "class_names", None) is None
    body = keras.Model(tuned.input, tuned.get_layer("pool").output)
    reference = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(predict(body), predict(reference), atol=1e-6)
    np.testing.assert_allclose(predict(tuned).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 20, 3), (None, None, 3)])
def test_a_new_size(folder, model, shape):
    resized = kanets.create_model(folder, input_shape=shape)
    assert resized.input_shape == (None, *shape)
    assert resized.class_names == NAMES
    for old, new in zip(
        model.get_weights(), resized.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    if shape[0] is None:
        np.testing.assert_allclose(predict(resized), predict(model), atol=1e-5)
    else:
        picture = np.zeros((1, *shape), "float32")
        assert predict(resized, picture).shape == (1, 3)


def test_not_pretrained_has_fresh_weights(folder, model):
    fresh = kanets.create_model(folder, pretrained=False)
    kernel = "stem_conv"
    assert not np.allclose(
        to_numpy(fresh.get_layer(kernel).kernel),
        to_numpy(model.get_layer(kernel).kernel),
    )


def test_an_entry_by_name(entry, model):
    [listed] = kanets.list_models()
    assert (listed.name, listed.input_shape) == ("kanet_x", (16, 16, 3))
    assert kanets.list_models("other*") == []
    created = kanets.create_model("kanet_x")
    assert created.class_names == NAMES
    np.testing.assert_allclose(predict(created), predict(model), atol=1e-6)


def test_an_unknown_name_suggests_the_nearest(entry):
    with pytest.raises(ValueError, match="Nearest: kanet_x.*'kanet_y'"):
        kanets.create_model("kanet_y")


def test_altered_weights_are_refused(entry):
    weights = entry / "model.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="do not match their checksum"):
        kanets.create_model("kanet_x")
    weights.unlink()
    with pytest.raises(ValueError, match="weights are missing"):
        kanets.create_model("kanet_x")


def test_a_truncated_folder_is_named(folder):
    os.truncate(folder / "model.weights.h5", 1000)
    with pytest.raises(ValueError, match="cannot load this model.*insects"):
        kanets.load_model(folder)


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"with \['notes.txt'\]"):
        kanets.load_model(tmp_path)


def test_bad_arguments_are_named(folder, model):
    with pytest.raises(ValueError, match="num_classes=0"):
        kanets.create_model(folder, num_classes=0)
    with pytest.raises(ValueError, match=r"one line. Received: 'a\\nb'"):
        kanets.save_model(model, folder, ("a\nb", "c", "d"))


def test_every_entry_of_the_zoo_is_whole():
    for listed in kanets.list_models():
        model = kanets.create_model(listed.name)
        assert model.count_params() == listed.parameters
        assert model.input_shape[1:] == listed.input_shape
        assert len(model.class_names) == model.output_shape[-1]
        assert (ROOT / "training" / listed.recipe).exists()
        assert (zoo.models_directory() / listed.name / "README.md").exists()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="one crossing is enough")
def test_weights_cross_backends_without_tensorflow(tmp_path, model):
    """Trained a step on JAX, where TensorFlow cannot be imported."""
    pytest.importorskip("jax")
    np.savez(tmp_path / "x.npz", pictures=PICTURES, labels=[0, 1])
    code = f"""
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError("TensorFlow is not to be imported here")

sys.meta_path.insert(0, NoTensorFlow())
import numpy as np, keras, kanets
assert keras.backend.backend() == "jax"
from tests.test_zoo import make_model
data = np.load({str(tmp_path / "x.npz")!r})
model = make_model()
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(data["pictures"], data["labels"], epochs=1, verbose=0)
kanets.save_model(model, {str(tmp_path / "jax")!r}, ("a", "b", "c"))
np.save({str(tmp_path / "out.npy")!r}, model(data["pictures"]))
assert not any(m.split(".")[0] == "tensorflow" for m in sys.modules)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = kanets.load_model(tmp_path / "jax")
    np.testing.assert_allclose(
        predict(loaded), np.load(tmp_path / "out.npy"), atol=1e-4
    )
    before = predict(model)
    assert not np.allclose(predict(loaded), before, atol=1e-4)
