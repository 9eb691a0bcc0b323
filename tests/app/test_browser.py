"""The page of `examples/browser`, by a visitor's choice of a photo."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kanets
from kanets.evaluation import predict
from tests.backends import BACKEND

CHROMIUM = os.environ.get("KANETS_CHROMIUM")
RUNTIME = os.environ.get("KANETS_ONNXRUNTIME_WEB")
SCRIPT = Path(__file__).parents[2] / "docs" / "make_browser.py"

pytestmark = [
    pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting"),
    pytest.mark.skipif(
        not (CHROMIUM and RUNTIME),
        reason="no browser: KANETS_CHROMIUM names one, and "
        "KANETS_ONNXRUNTIME_WEB the folder dist of npm's onnxruntime-web",
    ),
]


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("playwright", reason="make test-app has playwright")
    return runpy.run_path(str(SCRIPT))


def write_photo(path, size):
    random = np.random.default_rng(0)
    coarse = random.integers(256, size=(9, 12, 3)).astype("uint8")
    Image.fromarray(coarse).resize(size, Image.BICUBIC).save(path)
    return path


@pytest.mark.parametrize(
    "size", [(50, 41), (31, 90), (32, 32), (20, 14)], ids=str
)
def test_the_page_answers_as_predict_does(script, tmp_path, size):
    pytest.importorskip("tf2onnx", reason="an export as ONNX")
    model = kanets.load_model("kanet_qkv_cifar10")
    exported = kanets.export_onnx(model, tmp_path / "exported")
    photo = write_photo(tmp_path / "photo.png", size)
    with script["served"](exported, RUNTIME) as address:
        answer = script["ask"](address, photo, CHROMIUM)
    [(_, expected)] = predict(model, [photo], top_k=5)
    assert [name for name, _ in answer] == [name for name, _ in expected]
    shares = [share for _, share in answer]
    np.testing.assert_allclose(shares, [p for _, p in expected], atol=6e-4)


def test_the_page_says_what_is_missing(script, tmp_path):
    (tmp_path / "exported").mkdir()
    photo = write_photo(tmp_path / "photo.png", (32, 32))
    with script["served"](tmp_path / "exported", RUNTIME) as address:
        with pytest.raises(RuntimeError, match="did not work"):
            script["ask"](address, photo, CHROMIUM)
