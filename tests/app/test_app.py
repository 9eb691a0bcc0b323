"""What the page shows, the page, and the page in a browser."""

import asyncio
import os
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import tasks, zoo
from kanets.app import generators, pictures
from kanets.data.pictures import read_picture
from tests.photos import write_photos, write_streets

TINY = {"alpha": 0.01, "strides": (2, 1, 2, 2, 1)}
GAN = "ylg_sagan_cifar10"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    folder = write_photos(
        tmp_path_factory.mktemp("photos"), 1, 1, (40, 32), "png"
    )
    return str(folder / "val" / "red" / "0.png")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = kanets.KANet((32, 32, 3), classes=3, **TINY)
    folder = tmp_path_factory.mktemp("classifier")
    return str(zoo.save_model(model, folder / "model", ["a", "b", "c"]))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = kanets.KANetSegmenter((32, 64, 3), 0.01, 2)
    folder = tmp_path_factory.mktemp("segmenter")
    return str(zoo.save_model(model, folder / "model", ["sky", "road"]))


def test_classes_are_those_of_predict(classifier, photo):
    ranked, seconds = pictures.scores(classifier, photo)
    [(_, expected)] = kanets.evaluation.predict(classifier, [photo])
    assert list(ranked) == [name for name, _ in expected]
    assert ranked == pytest.approx(dict(expected), abs=1e-6) and seconds > 0


def test_the_picture_is_the_one_the_model_sees(classifier, photo):
    assert pictures.seen(classifier, photo).shape == (32, 32, 3)
    assert pictures.shown(classifier, photo).size == (480, 480)


def test_where_a_pixel_looks_and_what_speaks(classifier, photo):
    panels = pictures.attention(classifier, photo, (1, 30))
    layers = kanets.visualize.attention_layers(pictures.opened(classifier))
    assert 0 < len(panels) <= len(layers)
    for panel, caption in panels:
        assert panel.width == pictures.WIDTH and caption.endswith("x even")
    other = pictures.attention(classifier, photo, (30, 1))
    assert any(
        np.asarray(a).tobytes() != np.asarray(b).tobytes()
        for (a, _), (b, _) in zip(panels, other, strict=True)
    )
    assert pictures.speaking(classifier, photo, "b").width == pictures.WIDTH


@pytest.mark.thorough
def test_a_model_without_names_or_attention(tmp_path, photo):
    model = kanets.KANet((32, 32, 3), classes=3, attention=None, **TINY)
    model.save(tmp_path / "model.keras")
    source = str(tmp_path / "model.keras")
    ranked, _ = pictures.scores(source, photo)
    assert sorted(ranked) == ["0", "1", "2"]
    assert pictures.attention(source, photo) == []
    assert pictures.speaking(source, photo, "2").width == pictures.WIDTH


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_of_one_output_two_classes_speak(tmp_path, activation):
    """Red on the left and blue on the right: one speaks for each."""
    inputs = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(2, 1, use_bias=False)
    x = keras.layers.GlobalAveragePooling2D()(maps(inputs))
    head = keras.layers.Dense(1, activation=activation)
    model = keras.Model(inputs, head(x))
    maps.set_weights([np.array([[[[1, 0], [0, 0], [0, 1]]]]) / 255])
    head.set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
    source = str(zoo.save_model(model, tmp_path / "model", ["blue", "red"]))
    pixels = np.zeros((32, 32, 3), "uint8")
    pixels[:, :16, 0] = pixels[:, 16:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    for name, warm, cold in (("red", 120, 360), ("blue", 360, 120)):
        panel = pictures.speaking(source, str(tmp_path / "photo.png"), name)
        row = np.asarray(panel)[240, :, 1].astype(int)
        assert row[warm] > row[cold] + 100


@pytest.mark.thorough
def test_every_pixel_is_of_one_class(segmenter, tmp_path):
    streets = write_streets(tmp_path, 1, 1, (32, 64))
    photo = str(next((streets / "val" / "images").iterdir()))
    (picture, masks), colours, seconds = pictures.segments(segmenter, photo)
    assert picture.shape == (32, 64, 3) and seconds > 0
    assert list(colours) == ["sky", "road"]
    assert {name for _, name in masks} <= set(colours)
    np.testing.assert_allclose(sum(mask for mask, _ in masks), pictures.OPACITY)


def test_a_generator_draws_what_it_is_asked_for():
    names = generators.class_names(GAN)
    assert len(names) == 10 and "horse" in names
    plain = generators.drawn(GAN, 3, "horse")
    assert plain.shape == (640, 640, 3) and plain.dtype == "uint8"
    moved = generators.drawn(GAN, 3, "horse", [2.0, 0, 0])
    assert (plain != moved).any()
    assert (plain != generators.drawn(GAN, 3, "cat")).any()
    same = generators.drawn(GAN, 3, "horse", [0.0] * 6)
    np.testing.assert_array_equal(plain, same)


@pytest.mark.thorough
def test_a_walk_begins_and_ends_at_the_seeds():
    way = generators.walk(GAN, 3, 4, "horse")[:64, :64]
    first = generators.drawn(GAN, 3, "horse")[::20, ::20]
    np.testing.assert_allclose(way[::2, ::2], first, atol=1)


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    from kanets.app import build

    with pytest.raises(ImportError, match=r'pip install "kanets\[app\]"'):
        build()


@pytest.mark.filterwarnings("default")  # of Gradio
def test_a_picture_stays_as_it_is(tmp_path):
    gradio = pytest.importorskip("gradio", reason="make test-app has Gradio")
    from gradio.data_classes import ImageData

    from kanets.app import page

    deep = np.linspace(0, 60_000, 32, dtype="uint16")[None].repeat(32, 0)
    clear = np.zeros((32, 32, 4), "uint8")
    for name, pixels in (("deep.png", deep), ("clear.png", clear)):
        path = tmp_path / name
        Image.fromarray(pixels).save(path)
        given = ImageData(path=str(path), orig_name=name)
        taken = page._photo(gradio).preprocess(given)
        np.testing.assert_array_equal(read_picture(taken), read_picture(path))


CHROMIUM = os.environ.get("KANETS_CHROMIUM") or shutil.which("chromium")


@pytest.mark.filterwarnings("default")  # of Gradio
def test_the_page_offers_the_zoo_and_runs(classifier):
    pytest.importorskip("gradio", reason="make test-app has Gradio")
    from kanets.app import build

    async def built():  # Gradio leaves a loop open where none is running
        return build([classifier])

    page = asyncio.run(built())
    choices = [
        [value for _, value in block.choices]
        for block in page.blocks.values()
        if getattr(block, "label", None) == "Model"
    ]
    assert choices[0][0] == classifier
    assert [
        name for names in choices for name in names if name != classifier
    ] == [
        entry.name
        for task in tasks.TASKS
        for entry in zoo.list_models(task=task)
    ]


@pytest.fixture(scope="module")
def address(classifier):
    pytest.importorskip("gradio", reason="make test-app has Gradio")
    if not CHROMIUM:
        pytest.skip("no Chromium: KANETS_CHROMIUM names one")
    from kanets.app import build

    page = build([classifier])
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True
    )
    yield address
    page.close()


@pytest.mark.filterwarnings("default")
def test_a_click_shows_where_the_pixel_looks(address, photo):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.set_default_timeout(120_000)  # milliseconds
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(photo)
        page.wait_for_selector("text=ms on this machine")
        looks = page.locator("#looks img").first
        before = looks.get_attribute("src")
        page.locator("#seen img").first.click(position={"x": 10, "y": 10})
        api.expect(looks).not_to_have_attribute("src", before, timeout=120_000)
        browser.close()
