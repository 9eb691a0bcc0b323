"""TensorFlow Serving's JSON, answered by a bundle."""

import base64
import gc
import io
import shutil
import threading
import weakref

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets.serve import bundles as served
from kanets.serve.bundles import Bundle, RequestError, bundles
from tests.backends import needs_tensorflow
from tests.photos import write_photos

pytestmark = needs_tensorflow
NAMES = ["blue", "red"]


def by_colour(gain=1.0):
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(x))
    kernel = gain * np.array([[-1, 1], [0, 0], [1, -1]], "float32")
    head.set_weights([kernel, np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for gain in (1.0, -1.0):
        kanets.export_savedmodel(by_colour(gain), folder / "colours", NAMES)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = write_photos(tmp_path_factory.mktemp("photos"), 1, 1, (6, 8), "png")
    return [(root / "val" / name / "0.png").read_bytes() for name in NAMES]


@pytest.fixture(scope="module")
def bundle(folder):
    bundle = bundles(folder)["colours"]
    assert bundle.swap() and not bundle.swap()
    return bundle


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def test_the_highest_version_answers_and_others_by_number(bundle, photos):
    assert (bundle.versions(), bundle.current) == ([2, 1], 2)
    request = {"instances": [{"image_bytes": b64(p)} for p in photos]}
    best = [p["classes"][0] for p in bundle.answer(request)["predictions"]]
    assert best == NAMES[::-1]  # the second version errs on purpose
    best = [p["classes"][0] for p in bundle.answer(request, 1)["predictions"]]
    assert best == NAMES
    with pytest.raises(KeyError):
        bundle.answer(request, 7)


def test_rows_and_columns_say_the_same(bundle, photos):
    rows = bundle.answer({"instances": [b64(p) for p in photos]})
    columns = bundle.answer(
        {"inputs": {"image_bytes": [b64(p) for p in photos]}}
    )
    assert set(rows) == {"predictions"} and set(columns) == {"outputs"}
    for name, values in columns["outputs"].items():
        assert values == [row[name] for row in rows["predictions"]]
        assert set(columns["outputs"]) == {"classes", "scores", "probabilities"}
    expected = kanets.load_savedmodel(bundle.folder)(photos)
    for found, wanted in zip(
        columns["outputs"]["scores"], expected[1], strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_another_signature(bundle):
    red = np.zeros((1, 9, 12, 3), int)
    red[..., 0] = 255
    request = {"signature_name": "serve_images", "instances": red.tolist()}
    [found] = bundle.answer(request, 1)["predictions"]
    assert found["classes"][0] == "red"


def test_metadata_names_inputs_and_outputs(bundle):
    found = bundle.metadata()["serving_default"]
    assert found["inputs"] == {
        "image_bytes": {"dtype": "string", "shape": [None]}
    }
    assert found["outputs"]["scores"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "must be a JSON object"),
        ({}, 'either "instances" or "inputs"'),
        ({"instances": [], "inputs": []}, 'either "instances" or "inputs"'),
        ({"instances": []}, "a list with a value or more"),
        (
            {"instances": [{"picture": "x"}]},
            r"\['image_bytes'\].*\['picture'\]",
        ),
        ({"instances": [3]}, "image_bytes must be string"),
        ({"instances": [{"b64": "?"}]}, r"must be base64.*b64='\?'"),
        ({"instances": [{"b64": 1}]}, "image_bytes must be string"),
        ({"instances": [b64(b"GIF89a")]}, "must hold JPEG or PNG pictures"),
        ({"instances": [1], "signature_name": "no"}, "must be one of.*'no'"),
        ({"instances": [1], "signature_name": ["a"]}, r"one of.*\['a'\]"),
        (
            {"instances": [[1, 2]], "signature_name": "serve_images"},
            r"uint8 of shape \(None, None, None, 3\).*: shape \(1, 2\)",
        ),
        *(
            (
                {"instances": [[[[x] * 3]]], "signature_name": "serve_images"},
                "images must be uint8 .*Received",
            )
            for x in (1.5, "1", True, None, -1, 256)
        ),
    ],
)
def test_what_cannot_be_answered_is_told(bundle, photos, request_, message):
    with pytest.raises(RequestError, match=message) as error:
        bundle.answer(request_)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    assert bundle.answer({"instances": [b64(photos[0])]})["predictions"]


def test_base64_in_lines_or_without_its_padding(bundle, photos):
    whole = b64(photos[0])["b64"]
    for text in (whole.rstrip("="), f"{whole[:9]}\n{whole[9:]}\n"):
        assert bundle.answer({"instances": [{"b64": text}]}) == bundle.answer(
            {"instances": [b64(photos[0])]}
        )


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    z = keras.Input((4,))
    images = keras.layers.Reshape((2, 2, 3))(keras.layers.Dense(12)(z))
    folder = tmp_path_factory.mktemp("generator")
    kanets.export_savedmodel(keras.Model(z, images), folder)
    bundle = Bundle(folder)
    bundle.swap()
    return bundle


def test_files_among_the_outputs_are_in_base64(generator):
    [answer] = generator.answer({"instances": [[0.0] * 4]})["predictions"]
    png = base64.b64decode(answer["png"]["b64"])
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    assert pixels.shape == (2, 2, 3) and set(pixels.flat) == {128}


@pytest.mark.parametrize("x", [1e40, float("nan"), None, "0", True])
def test_numbers_must_be_finite_and_numbers(generator, x):
    with pytest.raises(RequestError, match=r"float32 of .*4\). Received: \[\["):
        generator.answer({"instances": [[0, 0.5, 1, x]]})


def test_a_length_that_does_not_fit_is_told(generator):
    with pytest.raises(RequestError, match=r"4\). Received: shape \(1, 3\)$"):
        generator.answer({"instances": [[0.0] * 3]})


def test_an_error_of_the_graph_is_its_own_sentence():
    text = "Graph execution error:\n\nDetected at node x\n"
    text += "<stack traces unavailable>\nIt does not fit\n\t [[{{node x}}]]"
    assert served._reason(ValueError(text)) == "It does not fit"


def test_the_newest_version_that_loads_answers(tmp_path, photos):
    folder = tmp_path / "colours"
    kanets.export_savedmodel(by_colour(), folder, NAMES)
    shutil.copytree(folder / "1", folder / "3")
    shutil.copytree(folder / "1", folder / "0")
    (folder / "3" / "saved_model.pb").write_bytes(b"cut")
    bundle = Bundle(folder)
    assert bundle.swap() and bundle.current == 1
    states = bundle.states()
    assert list(states) == [3, 1, 0] and bundle.failed == {3: states[3][1]}
    assert [state for state, _ in states.values()] == [
        *("END", "AVAILABLE", "START")
    ]
    shutil.copy(folder / "1" / "saved_model.pb", folder / "3")
    assert bundle.swap() and bundle.current == 3 and not bundle.failed


def test_a_folder_that_is_taken_away_answers_on(tmp_path, photos):
    kanets.export_savedmodel(by_colour(), tmp_path / "colours", NAMES)
    bundle = Bundle(tmp_path / "colours")
    bundle.swap()
    (tmp_path / "colours").rename(tmp_path / "gone")
    assert not bundle.swap() and bundle.states() == {1: ("AVAILABLE", "")}
    assert bundle.answer({"instances": [b64(photos[0])]})["predictions"]
    with pytest.raises(KeyError):
        bundle.metadata(2)


def test_a_new_version_answers_and_the_old_is_forgotten(tmp_path, photos):
    kanets.export_savedmodel(by_colour(), tmp_path / "colours", NAMES)
    bundle = Bundle(tmp_path / "colours")
    bundle.swap()
    request = {"instances": [b64(photos[1])]}
    assert bundle.answer(request)["predictions"][0]["classes"][0] == "red"
    kanets.export_savedmodel(by_colour(-1.0), tmp_path / "colours", NAMES)
    first = tmp_path / "colours" / "1"
    first.rename(tmp_path / "gone")
    assert bundle.answer(request)["predictions"][0]["classes"][0] == "red"
    assert bundle.swap() and bundle.current == 2
    assert bundle.answer(request)["predictions"][0]["classes"][0] == "blue"
    with pytest.raises(KeyError):
        bundle.answer(request, 1)


@pytest.mark.thorough
def test_a_lower_version_that_is_taken_away_is_forgotten(tmp_path, photos):
    for gain in (1.0, -1.0):
        kanets.export_savedmodel(by_colour(gain), tmp_path / "colours", NAMES)
    bundle = Bundle(tmp_path / "colours")
    bundle.swap()
    request = {"instances": [b64(photos[1])]}
    bundle.metadata(1)
    assert bundle.answer(request, 1)["predictions"]
    old = weakref.ref(bundle._version(1))
    (tmp_path / "colours" / "1").rename(tmp_path / "gone")
    assert not bundle.swap()
    with pytest.raises(KeyError):
        bundle.answer(request, 1)
    gc.collect()
    assert old() is None


@pytest.mark.thorough
def test_the_former_version_answers_while_another_is_loaded(
    tmp_path, photos, monkeypatch
):
    kanets.export_savedmodel(by_colour(), tmp_path / "colours", NAMES)
    bundle = Bundle(tmp_path / "colours")
    bundle.swap()
    kanets.export_savedmodel(by_colour(-1.0), tmp_path / "colours", NAMES)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(served._Version):
        def __init__(self, path):
            begun.set()
            assert go_on.wait(60)
            super().__init__(path)

    monkeypatch.setattr(served, "_Version", Slow)
    loading = threading.Thread(target=bundle.swap)
    loading.start()
    assert begun.wait(60)
    request = {"instances": [b64(photos[1])]}
    assert bundle.answer(request)["predictions"][0]["classes"][0] == "red"
    go_on.set()
    loading.join()
    assert bundle.answer(request)["predictions"][0]["classes"][0] == "blue"


def test_folders_without_versions_are_left_out(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "half" / "1").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    assert bundles(tmp_path) == {}
