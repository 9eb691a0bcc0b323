"""Who runs an export: the clients of savedmodels/README.md, as written there,
and `kanets predict` and `kanets evaluate`.
"""

import pathlib
import re
import shutil
import sys
import types

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import cli, evaluation, zoo
from kanets.evaluation.artifacts import Artifact
from kanets.export import runtimes
from tests.backends import BACKEND, to_numpy
from tests.photos import write_photos, write_streets

runtimes.silence_openvino()

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
README = pathlib.Path(__file__).parents[2] / "savedmodels" / "README.md"
BLOCKS = re.findall("```python\n(.*?)```", README.read_text(), re.S)
CLIENTS = {  # what tells each Python block of the page
    "export": "kanets.export_savedmodel(",
    "rest": "urllib.request.urlopen",
    "grpc": "grpc.insecure_channel",
    "tensorflow": 'load("savedmodels/insects/1")',
    "kanets": "import load_savedmodel",
    "generator": 'load("savedmodels/ylg_sagan/1")',
    "litert": "import Interpreter",
    "compiled": "import CompiledModel",
    "onnx": "import onnxruntime",
    "openvino": "import openvino",
}
FORMATS = ("litert", "onnx", "openvino")
SIZE = (96, 96)  # that of the page
TOLERANCE = 1e-5  # its float32 rows say 1e-7 to 8e-6


def by_colour():
    """Knows red from blue, and is not sure of it, so that errors show."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    y = keras.layers.Conv2D(16, 3, strides=3, activation="relu")(x)
    pool = keras.layers.GlobalAveragePooling2D()
    x = keras.layers.Concatenate()([pool(x), pool(y)])
    head = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(x), name="by_colour")
    kernel = 0.2 * to_numpy(head.kernel)
    kernel[:3] = [[-0.5, 0.5], [0, 0], [0.5, -0.5]]
    head.kernel.assign(kernel)
    return model


def pictures(n):
    values = np.random.default_rng(0).uniform(0, 255, (n, *SIZE, 3))
    return values.astype("float32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 1, 5, (99, 110), "png")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with the files that the page names, but for its SavedModels."""
    root = tmp_path_factory.mktemp("room")
    zoo.save_model(by_colour(), root / "runs" / "mine", ["blue", "red"])
    model = kanets.load_model(root / "runs" / "mine")
    for format in FORMATS:
        export = getattr(kanets, f"export_{format}")
        export(model, root / f"mine_{format}")
    Image.fromarray(pictures(1)[0].astype("uint8")).save(root / "bee.jpg")
    return root


@pytest.fixture
def model(room, monkeypatch):
    monkeypatch.chdir(room)
    return kanets.load_model("runs/mine")


def run(client, **names):
    """What a block of the page leaves, and what it has printed."""
    [code] = [block for block in BLOCKS if CLIENTS[client] in block]
    printed = []
    names["print"] = lambda *values: printed.extend(values)
    exec(compile(code, f"{README}: {client}", "exec"), names)
    return types.SimpleNamespace(**names), printed


def test_every_block_of_python_is_tested():
    for block in BLOCKS:
        assert sum(mark in block for mark in CLIENTS.values()) == 1, block
    for client in ("rest", "grpc"):  # they need a server
        [code] = [block for block in BLOCKS if CLIENTS[client] in block]
        compile(code, client, "exec")


@pytest.mark.thorough
def test_the_clients_of_a_savedmodel(model):
    run("export", model=model)
    pixels = kanets.data.pictures.read_picture("bee.jpg")[None]
    [expected] = to_numpy(model(pixels.astype("float32")))
    best = ["ant", "bee"][expected.argmax()]
    left, (classes, scores) = run("tensorflow")
    assert classes.tolist()[0] == best.encode()
    np.testing.assert_allclose(scores, sorted(expected)[::-1], atol=TOLERANCE)
    found = left.outputs["probabilities"].numpy()
    np.testing.assert_allclose(found, [expected], atol=TOLERANCE)
    left, _ = run("kanets")
    assert left.classes[0, 0] == best
    np.testing.assert_allclose(left.probabilities, [expected], atol=TOLERANCE)


def test_the_client_of_a_generator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z, label = keras.Input((128,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(8 * 8 * 3, activation="tanh")(z)
    x = x * keras.layers.Embedding(10, 8 * 8 * 3, "uniform")(label)
    net = keras.Model([z, label], keras.layers.Reshape((8, 8, 3))(x))
    kanets.export_savedmodel(net, "savedmodels/ylg_sagan")
    left, _ = run("generator")
    expected = to_numpy(net([left.z, np.array([7])], training=False))
    found = left.outputs["images"].numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    with Image.open("horse.png") as horse:
        levels = np.round((expected[0] + 1) * 127.5)
        assert np.abs(np.asarray(horse) - levels).max() <= 1


def compiled(left, x):
    left.images.write(x)
    left.compiled.run_by_index(0, [left.images], [left.probabilities])
    return left.probabilities.read(2, np.float32)[None]


ASK = {  # the same client, of other pictures
    "litert": lambda left, x: left.classify(images=x)["probabilities"],
    "compiled": compiled,
    "onnx": lambda left, x: left.session.run(["probabilities"], {"images": x})[
        0
    ],
    "openvino": lambda left, x: left.classify({"images": x})["probabilities"],
}


@pytest.mark.parametrize("format", ASK)
def test_the_clients_of_other_formats(format, model):
    left, [printed] = run(format)
    pixels = getattr(left, "pixels", np.zeros((1, *SIZE, 3), "float32"))
    expected = to_numpy(model(pixels))
    np.testing.assert_allclose(
        np.squeeze(printed), np.squeeze(expected), atol=TOLERANCE
    )
    given = pictures(len(pixels))
    np.testing.assert_allclose(
        ASK[format](left, given), to_numpy(model(given)), atol=TOLERANCE
    )
    if format == "openvino":  # not only where bfloat16 is to be had
        assert "float" in str(
            left.classify.get_property("INFERENCE_PRECISION_HINT")
        )


def call(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def same(capsys, sources, *command):
    """The line or lines that a command prints for each source alike."""
    answers = []
    for source in sources:
        code, out, err = call(
            capsys, *(source if x is None else x for x in command)
        )
        assert code == 0 and out, err
        answers.append(out)
    assert len(set(answers)) == 1, answers
    return answers[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_classifier(format, model, photos, capsys):
    sources = ["runs/mine", f"mine_{format}"]
    out = same(
        capsys, sources, "evaluate", None, "--data", photos, "--batch-size", 4
    )
    assert out == "accuracy 1.0000 (10 of 10 pictures)\n"
    out = same(capsys, sources, "predict", None, photos / "val", "--top-k", 7)
    lines = [line.split() for line in out.splitlines()]
    assert [line[1] for line in lines] == ["blue"] * 5 + ["red"] * 5
    assert {len(line) for line in lines} == {5}, "of two classes, seven are two"


def test_a_file_is_what_its_folder_is(model, photos, capsys, tmp_path):
    picture = photos / "val" / "red" / "0.png"
    file = "mine_onnx/model.onnx"
    same(capsys, ["mine_onnx", file], "predict", None, picture)
    bare = tmp_path / "bare.onnx"
    shutil.copy(file, bare)
    code, out, _ = call(capsys, "predict", bare, picture)
    assert code == 0 and out.startswith(f"{picture}: 1 0.")
    code, _, err = call(capsys, "evaluate", bare, "--data", photos)
    assert code == 1 and "Class names must say" in err and str(bare) in err


@pytest.mark.parametrize("size", [None, (12, 16)], ids=["open", "fixed"])
def test_a_segmenter(size, tmp_path, capsys):
    inputs = keras.Input((*(size or (None, None)), 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    layer = keras.layers.Conv2D(2, 1, activation="softmax")
    net = keras.Model(inputs, layer(x))
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0, 2, 0] = kernel[0, 0, 0, 1] = 4.0
    layer.kernel.assign(kernel)
    layer.bias.assign([5.0, 0.0])  # at times wrong
    zoo.save_model(net, tmp_path / "net", ["blue", "red"])
    net = kanets.load_model(tmp_path / "net")
    kanets.export_onnx(net, tmp_path / "onnx", image_size=size or (None, None))
    streets = write_streets(tmp_path / "streets", 1, 3, (15, 20))
    sources = [tmp_path / "net", tmp_path / "onnx"]
    out = same(
        capsys,
        sources,
        *("evaluate", None, "--data", streets, "--ignore-label", 7),
    )
    assert "(3 pictures)" in out and "red: 0." in out
    seen = tmp_path / "seen"
    pictures = streets / "val" / "images"
    out = same(capsys, sources, "predict", None, pictures, "--to", seen)
    assert out.count("\n") == 3
    with Image.open(seen / "0_labels.png") as label_map:
        assert label_map.size[::-1] == (size or (15, 20))


def one_line(capsys, *command):
    code, out, err = call(capsys, *command)
    assert code == 1 and not out
    assert err.startswith("kanets: error: ") and err.count("\n") == 1
    return err


def test_what_cannot_be_run_is_one_line(
    model, photos, capsys, tmp_path, monkeypatch
):
    picture = photos / "val" / "red" / "0.png"
    err = one_line(capsys, "predict", ".", picture)
    assert "name mine_litert or mine_onnx or mine_openvino. Rec" in err
    assert err.endswith("Received: '.'\n")
    for folder in ("mine_onnx", "mine_litert"):
        for file in pathlib.Path(folder).iterdir():
            shutil.copy(file, tmp_path)
    err = one_line(capsys, "predict", tmp_path, picture)
    assert "which holds model.tflite and model.onnx" in err
    (tmp_path / "model.tflite").unlink()
    (tmp_path / "model.onnx").write_bytes(b"no model at all")
    err = one_line(capsys, "evaluate", tmp_path, "--data", photos)
    assert "cannot be loaded" in err and str(tmp_path) in err
    err = one_line(capsys, "predict", tmp_path / "not.onnx", picture)
    assert f"Received: artifact='{tmp_path / 'not.onnx'}', which is not" in err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    err = one_line(capsys, "predict", "mine_onnx", picture)
    assert "kanets[onnx]" in err and "`pip install onnxruntime`" in err


def test_a_model_of_other_inputs_is_refused(monkeypatch):
    foreign = types.SimpleNamespace(inputs={"x": None}, outputs=("output_0",))
    monkeypatch.setattr(runtimes, "load", lambda *_: foreign)
    with pytest.raises(ValueError, match="'far.onnx' with x to output_0$"):
        Artifact("far.onnx")


def test_a_generator(tmp_path, photos):
    z = keras.Input((5,))
    x = keras.layers.Dense(4 * 4 * 3, activation="tanh")(z)
    net = keras.Model(z, keras.layers.Reshape((4, 4, 3))(x))
    zoo.save_model(net, tmp_path / "net")
    kanets.export_onnx(net, tmp_path / "onnx")
    options = {"extractor": tmp_path / "judge"}
    x = inputs = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, activation="softmax")(x)
    zoo.save_model(keras.Model(inputs, x), tmp_path / "judge")
    results = [
        evaluation.evaluate(tmp_path / name, photos, **options)
        for name in ("net", "onnx")
    ]
    assert results[0]["pictures"] == results[1]["pictures"] == 10
    name = "frechet_distance"
    assert results[1][name] == pytest.approx(results[0][name], rel=1e-3)
    with pytest.raises(ValueError, match="says nothing of pictures.*onnx'"):
        evaluation.predict(tmp_path / "onnx", [photos])
