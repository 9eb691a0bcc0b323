"""Model folders and entries: written, read, and refused when damaged."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import zoo
from kanets.zoo.entries import REPLACED
from tests.backends import BACKEND
from tests.zoo.common import (
    NAMES,
    PICTURES,
    make_entry,
    make_gan,
    make_model,
    make_plain,
    predict,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(tmp_path):
    """The folder of a model that is read at once."""
    return kanets.save_model(make_plain(), tmp_path / "insects", NAMES)


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


def test_a_model_takes_the_place_of_a_model_alone(tmp_path, plain):
    model = make_plain()
    kept = tmp_path / "photos" / "a.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    for place in (kept.parent, kept):
        with pytest.raises(FileExistsError, match=f"Received: '{place}', whi"):
            kanets.save_model(model, place, NAMES)
    assert kept.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    for place in ("empty", "insects"):
        kanets.save_model(model, tmp_path / place, ("x", "y", "z"))
        assert kanets.load_model(tmp_path / place).class_names == (*"xyz",)


def test_a_model_folder_where_one_is(tmp_path, monkeypatch, plain):
    monkeypatch.chdir(plain)
    folder = kanets.save_model(make_plain(), ".", ("x", "y", "z"))
    assert folder == plain
    assert kanets.load_model(plain).class_names == (*"xyz",)


def test_labels_are_text(tmp_path):
    with pytest.raises(ValueError, match="one line of text. Received: 1"):
        kanets.save_model(make_plain(), tmp_path / "a", [1, 2, 3])


@pytest.mark.thorough
def test_an_entry_may_have_the_weights_of_another(model, entry):
    folder = kanets.save_model(model, entry.parent / "kanet_y", NAMES)
    (folder / "model.weights.h5").unlink()
    make_entry(folder, weights_of="kanet_x")
    loaded = kanets.load_model("kanet_y")
    assert loaded.class_names == NAMES
    np.testing.assert_array_equal(predict(loaded), predict(model))
    tuned = kanets.create_model("kanet_y", dropout_rate=0.1)
    np.testing.assert_allclose(predict(tuned), predict(model), atol=1e-6)
    (folder / "labels.txt").write_text("bee\nant\nwasp\n")
    with pytest.raises(ValueError, match="do not match .*kanet_y/labels"):
        kanets.load_model("kanet_y")


@pytest.mark.thorough
def test_keras_alone_loads_a_folder(model, folder):
    loaded = keras.saving.load_model(folder)
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_the_optimizer_is_not_saved(tmp_path):
    trained = make_model()
    trained.compile("adam", "sparse_categorical_crossentropy")
    trained.optimizer.build(trained.trainable_variables)
    folder = kanets.save_model(trained, tmp_path / "trained", NAMES)
    plain = kanets.save_model(make_model(), tmp_path / "plain", NAMES)
    size = (folder / "model.weights.h5").stat().st_size
    assert size == (plain / "model.weights.h5").stat().st_size
    assert trained.optimizer is not None
    loaded = kanets.load_model(folder)
    np.testing.assert_allclose(predict(loaded), predict(trained), atol=1e-6)


@pytest.mark.thorough
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


def test_weights_that_are_not_finite_are_refused(folder):
    broken = make_plain()
    variable = broken.weights[0]
    variable.assign(np.full(variable.shape, np.nan))
    before = (folder / "model.weights.h5").read_bytes()
    with pytest.raises(ValueError, match=f"must be finite.*{folder}"):
        kanets.save_model(broken, folder)
    assert (folder / "model.weights.h5").read_bytes() == before
    # As an earlier version saved them, and Keras does.
    broken.save(folder.parent / "broken.keras")
    message = f"must be finite.*broken.keras' with NaN .*{variable.path}"
    with pytest.raises(ValueError, match=message):
        kanets.load_model(folder.parent / "broken.keras")


def test_what_was_removed_names_what_to_use():
    for name, better in REPLACED.items():
        with pytest.raises(ValueError, match=f"to '{better}'.*: '{name}'"):
            zoo.load_model(name)
        assert better in {entry.name for entry in zoo.list_models()}


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


@pytest.mark.parametrize("name", ["config.json", "labels.txt"])
def test_other_altered_files_are_refused(entry, name):
    text = (entry / name).read_text()
    (entry / name).write_text(text.replace("a", "b", 1))
    with pytest.raises(ValueError, match=f"contents do not match.*{name}"):
        kanets.load_model("kanet_x")


@pytest.mark.parametrize("text", ["ant\nbee\n", "ant\n\nbee\nwasp\n"])
def test_labels_that_are_too_few_or_many_are_refused(plain, text):
    (plain / "labels.txt").write_text(text)
    with pytest.raises(ValueError, match="each of the 3 outputs. Received: "):
        kanets.load_model(plain)
    with pytest.raises(ValueError, match="2 names"):
        kanets.save_model(make_plain(), plain, ["ant", "bee"])


def test_labels_of_another_encoding_are_named(plain):
    (plain / "labels.txt").write_bytes("ant\nbée\nwasp".encode("latin-1"))
    fault = r"in UTF-8: .*Received: '.*labels.txt', where line 2 is not"
    with pytest.raises(ValueError, match=fault):
        kanets.load_model(plain)


def test_labels_need_no_last_line_break(plain):
    (plain / "labels.txt").write_text("ant\nbee\nwasp")
    assert kanets.load_model(plain).class_names == NAMES


@pytest.mark.thorough
def test_the_name_of_an_entry_means_the_entry(entry, tmp_path, monkeypatch):
    other = kanets.save_model(make_plain(), tmp_path / "here" / "kanet_x")
    monkeypatch.chdir(other.parent)
    assert kanets.load_model("kanet_x").class_names == NAMES
    assert kanets.load_model("./kanet_x").name == "plain"


def test_a_truncated_folder_is_named(folder):
    os.truncate(folder / "model.weights.h5", 1000)
    with pytest.raises(
        ValueError, match="cannot load this model.*truncated.*insects"
    ):
        kanets.load_model(folder)


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"with \['notes.txt'\]"):
        kanets.load_model(tmp_path)


@pytest.mark.slow
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
from tests.zoo.common import make_model
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


def test_truncated_weights_of_an_entry_are_refused(entry):
    os.truncate(entry / "model.weights.h5", 1000)
    with pytest.raises(ValueError, match="cut short.*kanet_x"):
        kanets.load_model("kanet_x")


def test_missing_weights_of_a_folder_are_named(folder):
    (folder / "model.weights.h5").unlink()
    with pytest.raises(ValueError, match="are missing.*model.weights.h5'"):
        kanets.load_model(folder)


def test_an_entry_without_the_checksum_is_refused(entry):
    make_entry(entry, files={})
    with pytest.raises(ValueError, match="sha256 of its .*'kanet_x' .*{}"):
        kanets.load_model("kanet_x")


def test_a_label_is_one_line(folder, model):
    with pytest.raises(
        ValueError, match=r"one line of text. Received: 'a\\nb'"
    ):
        kanets.save_model(model, folder, ("a\nb", "c", "d"))


def break_architecture(folder):
    """A layer that this version does not know, from a later Keras."""
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace("kanets>BaseModule", "kanets>Later").replace(
            '"BaseModule"', '"Later"'
        )
    )


@pytest.mark.thorough
def test_a_newer_keras_is_named(folder):
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["keras_version"] = "99.0.1"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    # What can be read is read.
    assert kanets.load_model(folder).class_names == NAMES
    break_architecture(folder)
    newer = (
        f"made by keras 99.0.1, newer than the installed {keras.__version__}"
    )
    with pytest.raises(ValueError, match=newer) as caught:
        kanets.load_model(folder)
    assert "\n" not in str(caught.value)
    file = folder / "insects.keras"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.write(folder / name, name)
    with pytest.raises(ValueError, match=newer):
        kanets.load_model(file)


def test_a_newer_kanets_is_named(entry):
    break_architecture(entry)
    make_entry(entry)
    with pytest.raises(ValueError, match="cannot load this model") as caught:
        kanets.load_model("kanet_x")
    assert "newer than" not in str(caught.value)
    make_entry(entry, versions={"kanets": "9.0.0"})
    with pytest.raises(ValueError, match="made by kanets 9.0.0, newer"):
        kanets.load_model("kanet_x")


def test_a_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = kanets.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    fresh = kanets.create_model(tmp_path / "model.keras", pretrained=False)
    assert not np.allclose(predict(fresh), predict(model), atol=1e-6)


@pytest.mark.thorough
def test_a_gan_is_one_entry(directory):
    gan = make_gan()
    folder = kanets.save_model(gan.generator, directory / "gan_x", NAMES)
    kanets.save_model(gan.discriminator, folder / "discriminator", NAMES)
    make_entry(folder, task="generation", net="SAGAN")
    assert kanets.load_model("gan_x").output_shape == (None, 32, 32, 3)
    discriminator = kanets.load_model("gan_x/discriminator")
    assert discriminator.output_shape == (None, 1)
    assert discriminator.class_names == NAMES
    with pytest.raises(ValueError, match="Nearest: gan_x/discriminator"):
        kanets.load_model("gan_x/discriminato")
    os.truncate(folder / "discriminator" / "model.weights.h5", 1000)
    kanets.load_model("gan_x")
    for source in ("gan_x/discriminator", folder / "discriminator"):
        with pytest.raises(ValueError, match="do not match .*discriminator"):
            kanets.load_model(source)
