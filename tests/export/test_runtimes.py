"""kanets.export.runtimes: each format against the Keras model, and alone."""

import gc
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from kanets.export import runtimes  # noqa: E402
from tests.backends import BACKEND, to_numpy  # noqa: E402

# OpenVINO would start processes that report to Intel, and compete with tests.
runtimes.silence_openvino()

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
FORMATS = ("savedmodel", "litert", "onnx", "openvino")
PACKAGES = {
    "savedmodel": "tensorflow",
    "litert": "ai-edge-litert",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
FILES = {
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "model.xml",
}
SIZE = (29, 37)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def write(function, specs, directory, formats=FORMATS):
    """An artifact in each format; returns a dict of format to its folder.

    Args:
        function: from tensors to a dict of tensors.
        specs: `tf.TensorSpec` with names, one for each.
        directory: gets a folder for each format.
        formats: some of `FORMATS`.
    """
    paths = {name: directory / name for name in formats}
    if set(formats) - {"onnx"}:  # the others are made from it
        saved = write_savedmodel(function, specs, directory / "savedmodel")
    for name, path in paths.items():
        path.mkdir(parents=True, exist_ok=True)
        if name == "litert":
            write_litert(saved, path)
        if name == "onnx":
            write_onnx(function, specs, path)
        if name == "openvino":
            write_openvino(saved, path)
    return paths


def write_savedmodel(function, specs, directory, version=1):
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", function, specs)
    archive.write_out(str(directory / str(version)), verbose=False)
    return str(directory / str(version))


def write_litert(savedmodel, directory):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        savedmodel, signature_keys=["serving_default"]
    )
    (directory / "model.tflite").write_bytes(converter.convert())


def write_onnx(function, specs, directory):
    import tensorflow as tf
    import tf2onnx

    tf2onnx.convert.from_function(
        tf.function(function, input_signature=specs),
        input_signature=specs,
        opset=17,
        output_path=str(directory / "model.onnx"),
    )


def write_openvino(savedmodel, directory):
    import openvino

    openvino.save_model(
        openvino.convert_model(savedmodel),
        directory / "model.xml",
        compress_to_fp16=False,
    )


def make_model(size=SIZE):
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((*size, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(7, activation="softmax"),
        ]
    )
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 20)
    return model


def specs_of(size=SIZE, batch=None):
    import tensorflow as tf

    return [tf.TensorSpec((batch, *size, 3), tf.float32, "images")]


def classify(model):
    return lambda images: {"probabilities": model(images, training=False)}


def pixels(*shape, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return values.astype("float32")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def artifacts(model, tmp_path_factory):
    return write(classify(model), specs_of(), tmp_path_factory.mktemp("art"))


@pytest.fixture(scope="module", params=FORMATS)
def loaded(request, artifacts):
    return runtimes.load(artifacts[request.param])


def test_what_is_loaded_says_what_it_is(loaded):
    assert loaded.format in FORMATS
    assert loaded.inputs == {"images": ((None, *SIZE, 3), "float32")}
    assert loaded.outputs == ("probabilities",)
    package, version = loaded.runtime.split()
    assert package == PACKAGES[loaded.format]
    assert version[0].isdigit() and "." in version


def test_equals_the_keras_model_at_any_batch(loaded, model):
    for seed, batch in enumerate((3, 1, 5)):
        images = pixels(batch, *SIZE, 3, seed=seed)
        found = loaded(images=images)
        assert list(found) == ["probabilities"]
        expected = to_numpy(model(images))
        assert np.ptp(expected, axis=-1).min() > 0.1, "nothing to compare"
        np.testing.assert_allclose(
            found["probabilities"], expected, rtol=0, atol=1e-5
        )
        assert found["probabilities"].dtype == np.float32


def test_results_are_the_callers_own(loaded):
    first, second = pixels(2, *SIZE, 3), pixels(2, *SIZE, 3, seed=1)
    kept = loaded(images=first)["probabilities"]
    before = kept.copy()
    other = loaded(images=second)["probabilities"]
    assert np.abs(other - before).max() > 1e-3
    np.testing.assert_array_equal(kept, before)
    kept[:] = 0
    np.testing.assert_array_equal(loaded(images=first)["probabilities"], before)


def test_strided_and_read_only_inputs(loaded):
    images = pixels(4, *SIZE, 3)
    expected = loaded(images=images[::2, :, ::-1].copy())["probabilities"]
    strided = images[::2, :, ::-1]
    strided.flags.writeable = False
    np.testing.assert_array_equal(
        loaded(images=strided)["probabilities"], expected
    )


def test_wrong_inputs_are_named(loaded):
    good = pixels(2, *SIZE, 3)
    shape = rf"must have the shape \(None, {SIZE[0]}, {SIZE[1]}, 3\)"
    for feeds, message in (
        ({}, "inputs must be images. Received: none"),
        ({"pixels": good}, "inputs must be images. Received: pixels"),
        ({"images": good, "z": good}, "must be images. Received: images, z"),
        (
            {"images": good.astype("float64")},
            "`images` must be float32. Received: images of float64",
        ),
        ({"images": [b"a"]}, r"must be float32. Received: images of \|S1"),
        ({"images": good[0]}, shape + r". Received: images of shape \(29, 37"),
        ({"images": good[:, 1:]}, shape + r".* of shape \(2, 28, 37, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded(**feeds)
    if loaded.format != "savedmodel":
        with pytest.raises(ValueError, match="a row at least.*images: 0"):
            loaded(images=good[:0])
    assert loaded(images=good)["probabilities"].shape == (2, 7)


def test_many_threads_get_their_own_answers(loaded):
    batches = [pixels(1 + i % 3, *SIZE, 3, seed=i) for i in range(32)]
    expected = [loaded(images=x)["probabilities"] for x in batches]
    wrong, start = [], threading.Barrier(32)

    def work(index):
        start.wait()
        for step in range(6):
            place = (index + step) % 32
            try:
                found = loaded(images=batches[place])["probabilities"]
                np.testing.assert_allclose(found, expected[place], atol=1e-6)
            except BaseException as error:
                wrong.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(32)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """z and labels in, two outputs, one of them of integers."""
    import tensorflow as tf

    table = tf.Variable(np.arange(12, dtype="float32").reshape(3, 4))

    def function(z, label):
        rows = tf.gather(table, label)
        return {"sum": z + rows, "best": tf.argmax(z * rows, -1, tf.int32)}

    specs = [
        tf.TensorSpec((None, 4), tf.float32, "z"),
        tf.TensorSpec((None,), tf.int32, "label"),
    ]
    module = keras.layers.Layer()
    module.table = table
    return write(function, specs, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("format", FORMATS)
def test_two_inputs_and_two_outputs(two_inputs, format):
    loaded = runtimes.load(two_inputs[format])
    assert loaded.inputs == {
        "z": ((None, 4), "float32"),
        "label": ((None,), "int32"),
    }
    assert loaded.outputs == ("best", "sum")
    z = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    label = np.array([2, 0, 1, 1, 2], "int32")
    rows = np.arange(12, dtype="float32").reshape(3, 4)[label]
    found = loaded(label=label, z=z)
    np.testing.assert_allclose(found["sum"], z + rows, atol=1e-6)
    np.testing.assert_array_equal(found["best"], (z * rows).argmax(-1))
    assert found["best"].dtype == np.int32
    message = "as many rows. Received: .*(z: 5, label: 3|label: 3, z: 5)"
    with pytest.raises(ValueError, match=message):
        loaded(z=z, label=label[:3])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two rows at a time, of any size."""
    model = make_model((None, None))
    directory = tmp_path_factory.mktemp("pairs")
    return model, write(classify(model), specs_of((None, None), 2), directory)


@pytest.mark.parametrize("format", FORMATS)
def test_open_sizes_and_a_fixed_batch_run_in_parts(pairs, format):
    model, paths = pairs
    loaded = runtimes.load(paths[format])
    assert loaded.inputs == {"images": ((2, None, None, 3), "float32")}
    for shape in ((5, 19, 23, 3), (2, 31, 17, 3), (1, 19, 23, 3)):
        images = pixels(*shape)
        found = loaded(images=images)["probabilities"]
        np.testing.assert_allclose(found, to_numpy(model(images)), atol=1e-5)


@pytest.mark.parametrize("batch", (None, 1))
def test_one_row_at_a_time_and_open_sizes(pairs, tmp_path, batch):
    model, _ = pairs
    specs = specs_of((None, None), batch)
    loaded = runtimes.load(
        write(classify(model), specs, tmp_path, ("onnx",))["onnx"]
    )
    assert loaded.inputs == {"images": ((batch, None, None, 3), "float32")}
    images = pixels(3, 19, 23, 3)
    found = loaded(images=images)["probabilities"]
    np.testing.assert_allclose(found, to_numpy(model(images)), atol=1e-5)


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A SavedModel of strings and of every number, with two signatures."""
    import tensorflow as tf

    def tell(image_bytes):
        return {
            "same": image_bytes,
            "twice": tf.strings.join([image_bytes, image_bytes]),
            "length": tf.strings.length(image_bytes),
        }

    def decode(files):
        sums = tf.map_fn(
            lambda file: tf.reduce_sum(
                tf.cast(tf.io.decode_png(file), "int32")
            ),
            files,
            tf.int32,
        )
        return {"sum": sums}

    strings = [tf.TensorSpec((None,), tf.string, "image_bytes")]
    names = "float16 float64 uint8 int8 int16 uint16 int64 uint32 bool".split()
    numbers = [tf.TensorSpec((None, 2), name, name) for name in names]
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", tell, strings)
    archive.add_endpoint(
        "decode", decode, [tf.TensorSpec((None,), tf.string, "files")]
    )
    archive.add_endpoint(
        "numbers",
        lambda *values: dict(zip(names, map(tf.identity, values), strict=True)),
        numbers,
    )
    path = tmp_path_factory.mktemp("echo") / "3"
    archive.write_out(str(path), verbose=False)
    return path


def test_strings(echo):
    loaded = runtimes.load(echo)
    assert loaded.inputs == {"image_bytes": ((None,), "string")}
    assert loaded.outputs == ("length", "same", "twice")
    strings = [b"", b"a\0b", b"ends in zeros\0\0", bytes(range(256)) * 300]
    for value in (strings, np.array(strings, object)):
        found = loaded(image_bytes=value)
        assert found["same"].dtype == object
        assert found["same"].tolist() == strings
        assert found["twice"].tolist() == [2 * item for item in strings]
        assert found["length"].tolist() == [len(item) for item in strings]
    fixed = np.array([b"abc", b"x" * 40])
    assert loaded(image_bytes=fixed)["same"].tolist() == [b"abc", b"x" * 40]
    empty = loaded(image_bytes=[])
    assert empty["same"].shape == empty["length"].shape == (0,)
    for value in (["text"], [1.5], np.array(["text"])):
        with pytest.raises(
            ValueError, match="must hold bytes. Rec.*(str|float)"
        ):
            loaded(image_bytes=value)
    with pytest.raises(ValueError, match=r"shape \(None,\). Rec.*shape \(\)"):
        loaded(image_bytes=b"alone")


def test_numbers_of_every_kind(echo):
    loaded = runtimes.load(echo, signature="numbers")
    generator = np.random.default_rng(0)
    feeds = {
        name: generator.integers(0, 2, (3, 2)).astype(dtype)
        for name, (_, dtype) in loaded.inputs.items()
    }
    assert len(feeds) == 9 and all(n == x.dtype for n, x in feeds.items())
    found = loaded(**feeds)
    for name, array in feeds.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_a_failed_call_says_why_and_the_next_one_works(echo):
    from PIL import Image

    loaded = runtimes.load(echo.parent, signature="decode")
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 5, 3), 2, "uint8")).save(buffer, "PNG")
    png = buffer.getvalue()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="(?i)png|image"):
            loaded(files=[png, b"no picture"])
        assert loaded(files=[png])["sum"].tolist() == [90]


def test_signatures_have_names(echo, artifacts):
    with pytest.raises(
        ValueError,
        match="signature 'rest'.*with decode, numbers, serving_default$",
    ):
        runtimes.load(echo, signature="rest")
    with pytest.raises(ValueError, match="Only SavedModels.*signature='a'"):
        runtimes.load(artifacts["onnx"], signature="a")


def resident():
    """Bytes of memory this process holds."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def grown(work, calls):
    for _ in range(20):
        work()
    gc.collect()
    before = resident()
    for _ in range(calls):
        work()
    gc.collect()
    return resident() - before


@pytest.mark.thorough
@linux
def test_calls_leak_nothing(echo):
    tell = runtimes.load(echo)
    decode = runtimes.load(echo, signature="decode")
    numbers = runtimes.load(echo, signature="numbers")
    strings = [b"x" * 500_000]
    feeds = {
        name: np.zeros((20_000, 2), dtype)
        for name, (_, dtype) in numbers.inputs.items()
    }

    def fail():
        with pytest.raises(RuntimeError):
            decode(files=strings)

    works = {
        "strings": lambda: tell(image_bytes=strings),  # 2.5 MB a call
        "numbers": lambda: numbers(**feeds),  # 2.3 MB
        "errors": fail,  # 0.5 MB
    }
    for name, work in works.items():
        assert grown(work, 100) < 20e6, name


@pytest.mark.thorough
@linux
def test_what_is_dropped_is_freed(artifacts, tmp_path):
    """A model of 8 MB of weights, 20 times."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(700_000)])

    import tensorflow as tf

    spec = [tf.TensorSpec((None, 2), tf.float32, "z")]
    write_savedmodel(lambda z: {"y": model(z)}, spec, tmp_path)

    def work():
        loaded = runtimes.load(tmp_path)
        loaded(z=np.zeros((1, 2), "float32"))

    for _ in range(3):
        work()
    gc.collect()
    before = resident()
    for _ in range(20):
        work()
    gc.collect()
    assert resident() - before < 60e6


def alone(code, *arguments):
    """Runs code with `runtimes` loaded from its folder; returns its output."""
    head = f"""
import importlib.util, os, sys
import numpy as np
spec = importlib.util.spec_from_file_location("rt", {runtimes.__file__!r})
runtimes = sys.modules["rt"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtimes)
"""
    return subprocess.run(
        [sys.executable, "-I", "-c", head + code, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.thorough
@linux
def test_threads(artifacts):
    code = """
kept = []
for path in sys.argv[2:]:
    before = len(os.listdir("/proc/self/task"))
    loaded = runtimes.load(path, int(sys.argv[1]))
    kept.append(loaded)
    for _ in range(3):
        loaded(images=np.zeros((4, 29, 37, 3), "float32"))
    print(loaded.format, len(os.listdir("/proc/self/task")) - before)
"""
    counts = []
    for threads in (1, 3):
        done = alone(code, threads, *artifacts.values())
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        counts.append({name: int(number) for name, number in lines})
    more = {name: counts[1][name] - counts[0][name] for name in FORMATS}
    # A pool inside operations and one of operations.
    assert more.pop("savedmodel") == 4
    assert more["litert"] == more["onnx"] == 2
    assert more["openvino"] >= 0  # as many as there are cores, at most


@pytest.mark.parametrize("threads", (0, -1, 1.0, "2", True, None))
def test_threads_must_be_positive(artifacts, threads):
    with pytest.raises(ValueError, match="`threads` must be a positive.*Rec"):
        runtimes.load(artifacts["onnx"], threads)


def test_neither_keras_nor_tensorflows_module_is_imported(artifacts):
    """Nor its symbols: globally, its BoringSSL makes `import hashlib` crash."""
    code = """
sys.modules.update(keras=None, kanets=None, ylg=None)
loaded = runtimes.load(sys.argv[1])
loaded(images=np.zeros((1, 29, 37, 3), "float32"))
print("tensorflow" in sys.modules, "jax" in sys.modules, loaded.runtime[:11])
import hashlib, ssl
print(hashlib.sha256(b"").hexdigest()[:8], ssl.create_default_context())
"""
    done = alone(code, artifacts["savedmodel"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "False False tensorflow \ne3b0c442 <ssl.SSLContext"
    )


def test_what_is_found(tmp_path, artifacts):
    for format, name in FILES.items():
        file = artifacts[format] / name
        assert runtimes.find(artifacts[format]) == (format, file)
        assert runtimes.find(str(file)) == (format, file)
    versions = artifacts["savedmodel"]
    assert runtimes.find(versions) == ("savedmodel", versions / "1")
    assert runtimes.find(versions / "1") == ("savedmodel", versions / "1")
    for name in ("2", "010", "x11", "12"):
        (tmp_path / name).mkdir()
        if name != "12":  # a copy that has just begun
            (tmp_path / name / "saved_model.pb").touch()
    assert runtimes.find(tmp_path) == ("savedmodel", tmp_path / "010")


def test_what_is_not_found(tmp_path, artifacts):
    def refused(error, path, message):
        accepted = "folder of versions.*model.tflite, model.onnx, or model.xml"
        with pytest.raises(error, match=message) as raised:
            runtimes.load(path)
        assert str(path) in str(raised.value)
        if "beside it" not in message:
            assert raised.match(accepted)

    refused(FileNotFoundError, tmp_path / "missing", "which is not there$")
    refused(FileNotFoundError, tmp_path, "which holds none$")
    for name in ("model.keras", "saved_model.pb", "model.bin"):
        path = tmp_path / name
        path.touch()
        if name == "model.keras":
            refused(FileNotFoundError, tmp_path, "which holds none$")
        refused(ValueError, path, f"{name}'$")
    (tmp_path / "saved_model.pb").unlink()
    (tmp_path / "model.bin").unlink()
    (tmp_path / "model.xml").touch()
    refused(FileNotFoundError, tmp_path, "needs its .bin file beside it")
    (tmp_path / "model.onnx").touch()
    refused(ValueError, tmp_path, "holds model.onnx and model.xml$")


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_refused(tmp_path, format):
    name = FILES.get(format, "saved_model.pb")
    (tmp_path / name).write_bytes(b"no model at all")
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match="cannot be loaded: .* Rec") as raised:
        runtimes.load(tmp_path)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_package_is_named(artifacts, monkeypatch, format):
    runtimes.tensorflow_c.functions.cache_clear()
    for name in ("ai_edge_litert.interpreter", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    package = PACKAGES[format]
    with pytest.raises(ImportError, match=f"`pip install {package}`. Rec") as e:
        runtimes.load(artifacts[format])
    assert "\n" not in str(e.value)


def program(artifact, jobs, *options, **more):
    """Runs the program on pairs of files, feeds and results."""
    lines = [
        json.dumps({"feeds": str(feeds), "results": str(results)})
        for feeds, results in jobs
    ]
    return subprocess.run(
        [sys.executable, "-I", runtimes.__path__[0], str(artifact), *options],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        **more,
    )


@pytest.mark.parametrize("format", FORMATS)
def test_the_program_writes_what_the_model_says(
    artifacts, model, tmp_path, format
):
    images = pixels(5, *SIZE, 3)
    np.savez(tmp_path / "a.npz", images=images[:3])
    np.savez(tmp_path / "b.npz", images=images[3:])
    jobs = [("a.npz", "a-out.npz"), ("b.npz", "b-out.npz")]
    done = program(
        *(artifacts[format], jobs, "--threads", "2", "--rounds", "3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    about, *answers, last = map(json.loads, done.stdout.splitlines())
    assert about.pop("runtime").startswith(PACKAGES[format] + " ")
    assert about == {
        "format": format,
        "inputs": {"images": [[None, *SIZE, 3], "float32"]},
        "outputs": ["probabilities"],
    }
    assert answers == [{"results": "a-out.npz"}, {"results": "b-out.npz"}]
    assert 0 < last.pop("latency_ms") < 10_000
    assert 20 < last.pop("peak_mib") < 1_000 and last == {}
    found = [np.load(tmp_path / results) for _, results in jobs]
    assert all(file.files == ["probabilities"] for file in found)
    np.testing.assert_allclose(
        np.concatenate([file["probabilities"] for file in found]),
        to_numpy(model(images)),
        atol=1e-5,
    )


def test_the_program_takes_and_writes_strings(echo, tmp_path):
    np.savez(tmp_path / "in.npz", image_bytes=np.array([b"x", b"yy"]))
    jobs = [(tmp_path / "in.npz", tmp_path / "out.npz")]
    done = program(echo, jobs, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout.splitlines()[0])
    assert about["inputs"] == {"image_bytes": [[None], "string"]}
    assert about["outputs"] == ["length", "same", "twice"]
    found = np.load(tmp_path / "out.npz")
    assert found["twice"].tolist() == [b"xx", b"yyyy"]
    assert found["length"].tolist() == [1, 2]


def test_the_programs_errors_are_one_line(artifacts, tmp_path):
    np.savez(tmp_path / "pickle.npz", images=np.array([{}], object))
    np.savez(tmp_path / "small.npz", images=pixels(1, 4, 4, 3))
    for artifact, feeds, message in (
        (tmp_path / "none", "small.npz", "`artifact` must be a SavedModel"),
        (artifacts["onnx"], "small.npz", "`images` must have the shape"),
        (artifacts["onnx"], "pickle.npz", "allow_pickle=False"),
        (artifacts["onnx"], "missing.npz", "No such file"),
    ):
        jobs = [(tmp_path / feeds, tmp_path / "out.npz")]
        done = program(artifact, jobs)
        assert done.returncode == 1
        # What was loaded is said, and nothing of results.
        assert done.stdout.count("\n") == (artifact != tmp_path / "none")
        assert done.stderr.count("\n") == 1 and message in done.stderr
    assert not (tmp_path / "out.npz").exists()


def test_the_program_blocks_keras_and_this_package(artifacts):
    """Even where they are on the path, as they are here."""
    root = pathlib.Path(runtimes.__file__).parents[3]
    code = f"""
import importlib, json
sys.path.insert(0, {str(root)!r})
def load(*_):
    errors = []
    for name in ("keras", "kanets", "kanets.export", "ylg.gan"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            errors.append(str(error))
    raise ValueError(json.dumps(errors))
runtimes.program.load = load
sys.exit(runtimes.main(sys.argv[1:]))
"""
    done = alone(code, artifacts["onnx"])
    assert done.returncode == 1
    errors = json.loads(done.stderr)
    names = ("keras", "kanets", "kanets", "ylg")
    for name, error in zip(names, errors, strict=True):
        assert re.search(f"of {name} halted|'{name}' is not a package", error)


def test_what_a_runtime_prints_is_not_in_the_output(artifacts):
    code = """
load = runtimes.load
def noisy(*arguments):
    os.write(1, b"native noise")
    print("noise")
    return load(*arguments)
runtimes.program.load = noisy
sys.exit(runtimes.main(sys.argv[1:]))
"""
    done = alone(code, artifacts["onnx"])
    assert done.returncode == 0 and done.stderr == "native noisenoise\n"
    about, last = map(json.loads, done.stdout.splitlines())
    assert about["format"] == "onnx"
    assert last.pop("peak_mib") > 20
    assert last == {"latency_ms": None}  # nothing was fed
