"""kanets.evaluation.verify: what it reports of good and of wrong artifacts."""

import math
import os
import subprocess
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from kanets.evaluation.verify import verify  # noqa: E402
from kanets.export import export_savedmodel, runtimes  # noqa: E402
from kanets.layers import KroneckerAttention  # noqa: E402
from kanets.zoo import save_model  # noqa: E402
from tests.backends import BACKEND  # noqa: E402
from tests.export.test_runtimes import FORMATS, specs_of, write  # noqa: E402
from ylg.layers import ConditionalBatchNormalization  # noqa: E402

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
SIZE = (32, 32)
NAMES = ("ant", "bee", "cat", "dog", "elk")
KEYS = (
    "artifact format runtime inputs greatest_difference agreement bytes "
    "latency_ms threads peak_mib"
).split()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """19 files, more than one batch, of sizes and formats that differ."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    sizes = [(40, 57), (61, 33), SIZE]
    for index in range(19):
        height, width = sizes[index % 3]
        coarse = generator.integers(0, 256, (4, 5, 3)).astype("uint8")
        image = Image.fromarray(coarse).resize((width, height))
        suffix = ("jpg", "png")[index % 2]
        image.save(folder / f"{index:02}.{suffix}")
    return folder


def make_model(classes=5, activation=None, size=SIZE):
    """Which class wins depends on the picture, and not on its noise."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    inputs = keras.Input((*size, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.AveragePooling2D(8)(x)
    x = layers.Flatten()(x + KroneckerAttention(num_heads=3)(x))
    x = layers.Dense(classes, activation=activation)(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def model():
    """Ends in logits."""
    return make_model()


def softmaxed(model, change=lambda x: x):
    return lambda images: {
        "probabilities": keras.ops.softmax(
            change(model(images, training=False)), -1
        )
    }


@pytest.fixture(scope="module")
def artifacts(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    return write(softmaxed(model), specs_of(SIZE), directory)


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch, tmp_path_factory):
    """No process and no file of a verification outlives it, or a failure."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    started, popen = [], subprocess.Popen

    def record(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    yield started
    assert all(process.returncode is not None for process in started)
    assert not list(folder.glob("kanets-verify-*"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_good_artifact(artifacts, model, pictures, format, nothing_left):
    path = artifacts[format]
    (path / "labels.txt").write_text("".join(f"{n}\n" for n in NAMES))
    report = verify(path, model, pictures, threads=2, rounds=2)
    assert len(nothing_left) == 1, "one process for all pictures"
    assert list(report) == KEYS
    assert report["artifact"] == str(path)
    assert report["format"] == format and " " in report["runtime"]
    assert report["inputs"] == 19 and report["threads"] == 2
    assert 0 <= report["greatest_difference"] < 1e-5
    assert report["agreement"] == 1.0
    assert report["latency_ms"] > 0
    # More than the interpreter and NumPy; a parent's memory is not its own.
    assert 20 < report["peak_mib"] < 600
    files = [file for file in path.rglob("*") if file.is_file()]
    sizes = {file.name: file.stat().st_size for file in files}
    assert sizes.pop("labels.txt") == 20
    assert report["bytes"] == sum(sizes.values()) > 2_000
    if format != "savedmodel":
        (file,) = [f for f in files if f.suffix in runtimes.SUFFIXES]
        assert verify(file, model, pictures, count=1, rounds=1)["bytes"] == sum(
            sizes.values()
        )


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "served"
    return export_savedmodel(model, folder, NAMES)


@pytest.mark.thorough
def test_a_bundle_that_takes_files(bundle, model, pictures, tmp_path):
    save_model(model, tmp_path / "model", NAMES)
    report = verify(
        str(bundle.parent), tmp_path / "model", str(pictures), rounds=1
    )
    assert report["format"] == "savedmodel" and report["inputs"] == 19
    # TensorFlow's resizing differs from Pillow's by half a level.
    assert 0 < report["greatest_difference"] < 5e-3
    assert report["agreement"] == 1.0
    bmp, png = tmp_path / "a.bmp", tmp_path / "b.png"
    for path in (bmp, png):
        Image.effect_noise((60, 60), 50).save(path)
    png.write_bytes(png.read_bytes()[:900])
    with pytest.raises(ValueError, match="a.bmp.*JPEG and PNG only"):
        verify(bundle, model, bmp, rounds=1)
    with pytest.raises(ValueError, match="b.png.*damaged"):
        verify(bundle, model, [pictures, png], rounds=1)


def test_what_takes_pixels_takes_every_format(artifacts, model, tmp_path):
    Image.effect_noise((60, 50), 50).save(tmp_path / "a.bmp")
    report = verify(artifacts["onnx"], model, tmp_path, rounds=1)
    assert report["inputs"] == 1 and report["agreement"] == 1


def test_pictures_are_taken_evenly(artifacts, model, pictures, monkeypatch):
    from kanets.evaluation import files

    seen, read = [], files.read

    def record(path, *size):
        seen.append(path.name[:2])
        return read(path, *size)

    monkeypatch.setattr(files, "read", record)
    report = verify(artifacts["onnx"], model, pictures, count=4, rounds=1)
    assert report["inputs"] == 4
    assert seen == ["00", "04", "09", "14"]


def test_wrong_weights_are_reported(model, pictures, tmp_path):
    wrong = write(
        softmaxed(model, lambda logits: -logits),
        specs_of(SIZE),
        tmp_path,
        ("onnx",),
    )
    report = verify(wrong["onnx"], model, pictures, rounds=1)
    assert report["greatest_difference"] > 0.3
    assert report["agreement"] < 0.2


def test_a_single_wrong_picture_counts(model, pictures, tmp_path):
    """Also in the last batch, which has three rows."""
    import tensorflow as tf

    last = np.asarray(Image.open(pictures / "17.png").convert("RGB"))
    assert last.shape[:2] == SIZE
    mean = float(last.mean())

    def function(images):
        scores = softmaxed(model)(images)["probabilities"]
        hit = tf.abs(tf.reduce_mean(images, (1, 2, 3)) - mean) < 1e-3
        other = tf.where(hit[:, None], 1.0 - scores, scores)
        return {"probabilities": other}

    path = write(function, specs_of(SIZE), tmp_path, ("onnx",))
    report = verify(path["onnx"], model, pictures, rounds=1)
    assert report["agreement"] == 18 / 19
    assert report["greatest_difference"] > 0.1


def test_nan_and_missing_softmax_are_no_agreement(model, pictures, tmp_path):
    import tensorflow as tf

    def broken(images):
        scores = softmaxed(model)(images)["probabilities"]
        return {
            "probabilities": tf.concat(
                [scores[:, :4], scores[:, 4:] + np.nan], 1
            )
        }

    def logits(images):
        return {"probabilities": model(images, training=False)}

    only = ("onnx",)
    path = write(broken, specs_of(SIZE), tmp_path / "nan", only)["onnx"]
    report = verify(path, model, pictures, count=3, rounds=1)
    assert report["greatest_difference"] == math.inf
    assert report["agreement"] == 0
    path = write(logits, specs_of(SIZE), tmp_path / "raw", only)["onnx"]
    report = verify(path, model, pictures, count=3, rounds=1)
    assert report["greatest_difference"] > 0.5
    report = verify(path, model, pictures, count=3, rounds=1, from_logits=False)
    assert report["greatest_difference"] < 1e-4


def test_one_score_decides_at_one_half(pictures, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 25.5, -5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )

    def function(images, sign=1):
        scores = model(images, training=False)
        return {"probabilities": scores if sign > 0 else 1 - scores}

    reports = []
    for sign in (1, -1):
        path = write(
            lambda images, sign=sign: function(images, sign),
            specs_of(SIZE),
            tmp_path / str(sign),
            ("onnx",),
        )["onnx"]
        reports.append(verify(path, model, pictures, rounds=1))
    assert [report["agreement"] for report in reports] == [1.0, 0.0]


def make_segmenter(size, activation="softmax"):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((*size, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.Conv2D(5, 1, activation=activation),
        ]
    )
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 9)
    return model


@pytest.mark.parametrize("activation", ("softmax", None))
def test_segmenters(pictures, tmp_path, activation):
    import tensorflow as tf

    size = (23, 31)
    model = make_segmenter(size, activation)

    def function(images, shift=0):
        scores = model(images, training=False)
        if activation is None:
            scores = tf.nn.softmax(scores)
        best = tf.argmax(scores, -1, tf.int32)
        if shift:  # the label map of the upper rows, and not the scores
            best = tf.concat([best[:, :5] + 1, best[:, 5:]], 1)
        return {"probabilities": scores, "label_map": best}

    path = write(function, specs_of(size), tmp_path / "good", ("onnx",))
    report = verify(path["onnx"], model, pictures, rounds=1)
    assert report["greatest_difference"] < 1e-5
    # A pixel may lie between two classes.
    assert report["agreement"] > 0.9999 and report["inputs"] == 19
    if activation is None:
        return
    path = write(
        lambda images: function(images, 1),
        specs_of(size),
        tmp_path / "wrong",
        ("litert",),
    )
    report = verify(path["litert"], model, pictures, rounds=1)
    assert report["greatest_difference"] < 1e-5
    np.testing.assert_allclose(report["agreement"], 18 / 23, atol=1e-4)


@pytest.mark.thorough
def test_an_open_segmenter_is_fed_what_the_artifact_wants(pictures, tmp_path):
    model = make_segmenter((None, None))
    folder = export_savedmodel(
        model, tmp_path / "served", NAMES, image_size=(23, 31)
    )
    report = verify(folder, model, pictures, rounds=1)
    assert report["greatest_difference"] is None
    assert 0.97 < report["agreement"] <= 1
    scores = {
        (17, 29): lambda images: {"probabilities": model(images)},
        (None, None): lambda images: {"probabilities": model(images)},
    }
    for size, function in scores.items():
        path = tmp_path / f"{size[0]}"
        path = write(function, specs_of(size), path, ("onnx",))["onnx"]
        report = verify(path, model, pictures, count=3, rounds=1)
        assert report["greatest_difference"] < 1e-5
        assert report["agreement"] > 0.999


def test_an_open_classifier_of_files_needs_a_size(bundle, pictures):
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    message = r"`image_size` must be given.*None, model.*\(None, None, None, 3"
    with pytest.raises(ValueError, match=message):
        verify(bundle, model, pictures)
    report = verify(bundle, model, pictures, count=3, rounds=1, image_size=SIZE)
    assert report["inputs"] == 3 and report["greatest_difference"] > 0.01


def test_a_generator_with_classes(tmp_path):
    """As `ylg.gan.generator` makes it, but for the size."""
    import tensorflow as tf

    keras.utils.set_random_seed(4)
    z, label = keras.Input((8,)), keras.Input((), dtype="int32")
    x = keras.layers.Reshape((4, 5, 3))(keras.layers.Dense(60)(z))
    norm = ConditionalBatchNormalization(3)
    x = norm([x, label])
    norm.beta.assign(np.arange(9).reshape(3, 3) / 9)
    model = keras.Model([z, label], keras.ops.tanh(x))
    specs = [
        tf.TensorSpec((None, 8), tf.float32, "z"),
        tf.TensorSpec((None,), tf.int32, "label"),
    ]
    paths = write(
        lambda z, label: {"images": model([z, label], training=False)},
        specs,
        tmp_path,
        ("onnx",),
    )
    report = verify(paths["onnx"], model, count=21, rounds=1)
    assert report["inputs"] == 21 and report["agreement"] == 1
    assert report["greatest_difference"] < 1e-5


def make_generator():
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(5 * 7 * 3, activation="tanh"),
            keras.layers.Reshape((5, 7, 3)),
        ]
    )


@pytest.mark.parametrize(
    "levels, agreement", [(0.0, 1.0), (0.9, 1.0), (2.5, 0.0)]
)
def test_a_generators_agreement_is_one_level(tmp_path, levels, agreement):
    import tensorflow as tf

    model, by = make_generator(), levels / 127.5
    specs = [tf.TensorSpec((None, 8), tf.float32, "z")]
    path = write(
        lambda z: {"images": model(z, training=False) + by},
        specs,
        tmp_path,
        ("onnx",),
    )["onnx"]
    report = verify(path, model, count=3, rounds=1)
    assert report["agreement"] == agreement and report["inputs"] == 3
    assert abs(report["greatest_difference"] - by) < 1e-5
    with pytest.raises(ValueError, match="takes no pictures. Received: pict"):
        verify(path, model, tmp_path)


def test_artifacts_of_another_model(artifacts, model, pictures, tmp_path):
    onnx = artifacts["onnx"]
    with pytest.raises(ValueError, match="must take z, .*onnx' with images"):
        verify(onnx, make_generator())
    with pytest.raises(ValueError, match=r"pictures of the model's size.*32\)"):
        verify(onnx, make_segmenter((23, 31)), pictures)
    with pytest.raises(
        ValueError,
        match=r"what the model returns.*\(16, 5\) instead of \(16, 4",
    ):
        verify(onnx, make_model(4), pictures)
    strange = write(
        lambda images: {"features": images},
        specs_of(SIZE),
        tmp_path,
        ("onnx",),
    )["onnx"]
    with pytest.raises(ValueError, match="must return probabilities.*features"):
        verify(strange, model, pictures)


def test_bad_arguments(artifacts, model, pictures, tmp_path, nothing_left):
    onnx = artifacts["onnx"]
    for options in ({"count": 0}, {"threads": -1}, {"rounds": 1.5}):
        ((name, value),) = options.items()
        message = f"`{name}` must be a positive.*{name}={value}"
        with pytest.raises(ValueError, match=message):
            verify(onnx, model, pictures, **options)
    with pytest.raises(ValueError, match="`pictures` must be given.*=None"):
        verify(onnx, model)
    with pytest.raises(ValueError, match="must be a picture.*no paths"):
        verify(onnx, model, [])
    with pytest.raises(FileNotFoundError, match="no such picture.*missing"):
        verify(onnx, model, tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="`artifact` must be.*missing"):
        verify(tmp_path / "missing", model, pictures)
    assert not nothing_left, "no process was started for these"


@pytest.mark.parametrize(
    "code, message",
    [
        ("raise ImportError('none here')", "`pip install onnxruntime`.*none"),
        ("import keras", "import of keras halted"),
        ("import kanets", "import of kanets halted"),
        ("import ylg", "import of ylg halted"),
        ("import os; os._exit(7)", "exit status 7, nothing said"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
    ],
)
def test_what_fails_in_the_process(
    artifacts, model, pictures, tmp_path, monkeypatch, code, message
):
    """A runtime of our own making, first on the path, in its place."""
    (tmp_path / "onnxruntime.py").write_text(code)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(RuntimeError, match=message) as raised:
        verify(artifacts["onnx"], model, pictures)
    assert "\n" not in str(raised.value)


def test_a_call_that_fails_is_reported(model, pictures, tmp_path):
    import tensorflow as tf

    def function(images):
        bright = tf.debugging.assert_less(images, 1.0, "too bright")
        with tf.control_dependencies([bright]):
            return softmaxed(model)(images)

    path = write(function, specs_of(SIZE), tmp_path, ("savedmodel",))
    with pytest.raises(RuntimeError, match="too bright") as raised:
        verify(path["savedmodel"], model, pictures)
    assert "\n" not in str(raised.value)
    (tmp_path / "model.onnx").write_text("damaged")
    with pytest.raises(RuntimeError, match="cannot be loaded: .*model.onnx"):
        verify(tmp_path / "model.onnx", model, pictures)
