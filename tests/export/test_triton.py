"""What a Triton model repository gets."""

import re

import keras
import numpy as np
import pytest

import kanets
from kanets import cli
from tests.backends import needs_tensorflow, to_numpy

pytestmark = needs_tensorflow
NAMES = ["blue", "red"]


def tiny(size=(6, 8)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, activation="softmax")(x)
    return keras.Model(inputs, x)


def test_the_folder_is_an_entry_of_a_repository(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny()
    folder = kanets.export_triton(
        model, tmp_path / "colours", NAMES, max_batch_size=8
    )
    assert folder == tmp_path / "colours"
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    assert [f for f in found if not f.endswith(".json")] == [
        "1",
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    assert (folder / "labels.txt").read_text() == "blue\nred\n"
    text = (folder / "config.pbtxt").read_text()
    assert text.startswith('name: "colours"\nplatform: "onnxruntime_onnx"\n')
    assert "max_batch_size: 8\n" in text and "dynamic_batching {" in text
    assert (
        'input [{ name: "images" data_type: TYPE_FP32 dims: [6, 8, 3] }]'
        in text
    )
    assert (
        'output [{ name: "probabilities" data_type: TYPE_FP32 dims: [2] '
        'label_filename: "labels.txt" }]' in text
    )
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 6, 8, 3))
    pixels = pixels.astype("float32")
    [scores] = session.run(["probabilities"], {"images": pixels})
    np.testing.assert_allclose(scores, to_numpy(model(pixels)), atol=1e-6)


@pytest.mark.slow
def test_open_sides_and_a_segmenter(tmp_path):
    model = kanets.KANetSegmenter((None, None, 3), 0.01, 2)
    folder = kanets.export_triton(
        model, tmp_path / "streets", NAMES, image_size=(None, None)
    )
    text = (folder / "config.pbtxt").read_text()
    assert 'name: "images" data_type: TYPE_FP32 dims: [-1, -1, 3] }' in text
    assert re.search(
        r'"label_map" data_type: TYPE_INT\d\d dims: \[-1, -1\]', text
    )
    assert "label_filename" not in text


@pytest.mark.thorough
def test_a_number_for_each_picture_has_its_shape_told(tmp_path):
    import ylg

    generator = ylg.gan.generator(32, 2, 3, latent_size=8, num_heads=2)
    folder = kanets.export_triton(generator, tmp_path / "gan")
    text = (folder / "config.pbtxt").read_text()
    assert 'name: "label" data_type: TYPE_INT32 dims: [1] reshape { shape' in (
        text
    )


def test_it_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="`max_batch_size`.*Received.*0"):
        kanets.export_triton(tiny(), tmp_path / "a", NAMES, max_batch_size=0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError):
        kanets.export_triton(tiny(), tmp_path / "b", NAMES)


def test_the_command(tmp_path, capsys):
    kanets.save_model(tiny(), tmp_path / "model", NAMES)
    arguments = ["export", str(tmp_path / "model"), "--format", "triton"]
    arguments += ["--to", str(tmp_path / "colours"), "--max-batch-size", "4"]
    assert cli.main(arguments) == 0
    text = (tmp_path / "colours" / "config.pbtxt").read_text()
    assert "max_batch_size: 4\n" in text
    arguments[3] = "onnx"
    arguments[5] = str(tmp_path / "other")
    assert cli.main(arguments) == 1
    assert "--max-batch-size does not fit" in capsys.readouterr().err
