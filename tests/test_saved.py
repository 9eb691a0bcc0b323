"""Files that earlier versions saved load, answer and go on as they did.

`tests/golden/saved/` says how they were made.
"""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import recipes, zoo
from tests.backends import BACKEND, needs_tensorflow
from tests.layer_checks import call_in_a_fresh_process
from tests.photos import write_photos, write_streets

ARCHIVE = Path(__file__).parent / "golden" / "saved" / "saved.zip"
with zipfile.ZipFile(ARCHIVE) as archive:
    NAMES = sorted(
        name.removesuffix(".keras")
        for name in archive.namelist()
        if name.endswith(".keras")
    )
COMPILED = [name for name in NAMES if name.startswith("compiled_")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def test_the_archive_holds_a_file_of_each_kind():
    assert len(NAMES) == 22
    assert len(COMPILED) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_model_answers_as_before(saved, name):
    model = keras.saving.load_model(saved / f"{name}.keras")
    with np.load(saved / f"{name}.npz") as arrays:
        expected = arrays["output"]
        given = [arrays[key] for key in sorted(set(arrays) - {"output"})]
    if name == "sagan":
        if BACKEND != "tensorflow":
            pytest.skip("latents of one seed differ from backend to backend")
        found = model.generate(2, seed=0)
    else:
        found = model.predict_on_batch(given if len(given) > 1 else given[0])
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


@needs_tensorflow
def test_a_model_with_kernels_is_exported_elsewhere(saved, tmp_path):
    """Saved on JAX, where kernels ran: which do so is no part of a model."""
    import tensorflow as tf

    model = keras.saving.load_model(saved / "pallas.keras")
    model.export(tmp_path / "bundle", verbose=False)
    with np.load(saved / "pallas.npz") as arrays:
        x, expected = arrays["input0"], arrays["output"]
    bundle = tf.saved_model.load(str(tmp_path / "bundle"))
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(bundle.serve(x), expected, atol=1e-5 * scale)
    model.save(tmp_path / "again.keras")
    with zipfile.ZipFile(tmp_path / "again.keras") as archive:
        assert b"implementation" not in archive.read("config.json")


@pytest.mark.parametrize("name", COMPILED)
def test_training_goes_on_where_it_was(saved, name):
    """The optimizer's state was saved, too, or the loss would differ."""
    model = keras.saving.load_model(saved / f"{name}.keras")
    with np.load(saved / f"{name}.npz") as arrays:
        x = arrays["input0"]
    labels = (np.arange(32).reshape(2, 4, 4) % 3).astype("int32")
    history = model.fit(x, labels, batch_size=4, verbose=0).history
    expected = json.loads((saved / f"{name}.json").read_text())
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="about runs on PyTorch")
def test_what_pytorch_trained_answers_alike_on_tensorflow(tmp_path):
    photos = write_photos(tmp_path / "photos", 12, 6, (32, 32), "png")
    net = {"name": "KANet", "attention": "kao_kv", "alpha": 0.25}
    plan = recipes.from_dict(
        {"model": net, "epochs": 1, "data": {"source": str(photos)}}
    )
    recipes.train(plan, tmp_path / "run", verbose=0)
    model, path = zoo.load_model(tmp_path / "run"), tmp_path / "model.keras"
    model.save(path)
    x = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3))
    expected = model.predict_on_batch(x.astype("float32"))
    found = call_in_a_fresh_process(path, x.astype("float32"), "tensorflow")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-4


def write_data(name, root):
    if name == "segmenter":
        return write_streets(root / "streets", 6, 2, (16, 24))
    return write_photos(root / "photos", 12, 6, (32, 32), "png")


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="runs of TensorFlow")
@pytest.mark.parametrize("name", ["classifier", "segmenter", "gan"])
def test_a_run_goes_on_where_it_was_stopped(saved, tmp_path, name):
    run = shutil.copytree(saved / f"run_{name}", tmp_path / "run")
    source = write_data(name, tmp_path)
    text = (run / "recipe.toml").read_text()
    text = text.replace(f"<{source.name}>", str(source))
    (run / "recipe.toml").write_text(text)
    recipes.train(recipes.read(run / "recipe.toml"), run, verbose=0)
    with (
        (run / "log.csv").open() as found,
        (run / "log_of_both_epochs.csv").open() as expected,
    ):
        pairs = zip(
            csv.DictReader(found), csv.DictReader(expected), strict=True
        )
        for row, other in pairs:
            assert list(row) == list(other)
            np.testing.assert_allclose(
                [float(value) for value in row.values()],
                [float(value) for value in other.values()],
                rtol=1e-3,
                atol=1e-4,
            )
