"""Long work tells how far it is to who shows it, and to no one by default."""

import contextlib

import keras
import numpy as np
import pytest

import ylg
from kanets import data, evaluation, zoo
from kanets.data import folders
from kanets.evaluation import verify
from kanets.export import export_litert, export_savedmodel
from kanets.progress import progress, shown_by
from kanets.train.augment import Augmentation
from kanets.train.recipes import pretrained
from tests.backends import needs_tensorflow
from tests.evaluation import test_segmentation as streets_of
from tests.evaluation.test_classification import NAMES, by_colour
from tests.photos import write_photos, write_streets
from tests.tiny_net import tiny


class Shown(list):
    """What was shown: `[what is done, of how many, how many were done]`."""

    @contextlib.contextmanager
    def __call__(self, total, doing):
        line = [doing, total, 0]
        self.append(line)

        def advance(count):
            line[2] += count

        yield advance


@pytest.fixture
def shown():
    found = Shown()
    with shown_by(found):
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 3, 4, (6, 8), "png")


def test_no_one_is_told_by_default():
    with progress(3, "reading") as advance:
        advance(2)


def test_work_inside_of_work_is_not_told(shown):
    with progress(3, "measuring") as outer:
        with progress(9, "reading") as inner:
            inner(9)
        outer(1)
    with progress(2) as advance:
        advance(2)
    assert shown == [["measuring", 3, 1], ["", 2, 2]]


def test_an_error_ends_what_was_shown(shown):
    with pytest.raises(KeyError), progress(3):
        raise KeyError
    with progress(2) as advance:
        advance(1)
    assert shown == [["", 3, 0], ["", 2, 1]]


@pytest.mark.parametrize("budget", [2**31, 0])
def test_reading(shown, photos, monkeypatch, budget):
    monkeypatch.setattr(folders, "MEMORY_BUDGET", budget)
    data.load(photos, image_size=(6, 8))
    assert shown == [["reading", 14, 14]]


def test_a_pack_also_where_it_goes_on(shown, photos, tmp_path):
    data.pack(photos, tmp_path / "pack", shard_size=4)
    (tmp_path / "pack" / "train-00001-of-00002.tfrecord").unlink()
    data.pack(photos, tmp_path / "pack", shard_size=4)
    assert shown == [["packing", 14, 14]] * 2


def test_evaluation(shown, photos, tmp_path):
    model = zoo.save_model(by_colour(2, "softmax"), tmp_path / "model", NAMES)
    evaluation.evaluate(model, photos, batch_size=3)
    assert shown == [["reading", 8, 8], ["measuring", 8, 8]]


@pytest.mark.thorough
@needs_tensorflow
def test_exports(shown, photos, tmp_path):
    model = zoo.save_model(by_colour(2, "softmax"), tmp_path / "model", NAMES)
    bundle = export_savedmodel(zoo.load_model(model), tmp_path / "bundle")
    evaluation.evaluate(bundle, photos, batch_size=3)
    assert shown == [["reading", 8, 8], ["measuring", 8, 8]]
    del shown[:]
    verify.verify(bundle, model, photos / "train", rounds=1)
    verify.verify(bundle, model, photos, count=5, rounds=1)
    assert shown == [["comparing", 6, 6], ["comparing", 5, 5]]


@needs_tensorflow
def test_calibration(shown, tmp_path):
    pictures = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3))
    options = {"precision": "int8", "representative": pictures}
    model = tiny((32, 32, 3), 2)
    export_litert(model, tmp_path / "phone", NAMES, batch_size=2, **options)
    # Whole batches, so that one is seen twice.
    assert shown == [["calibrating", 6, 6]]


def test_a_segmenter(shown, tmp_path):
    streets = write_streets(tmp_path / "streets", 1, 3, (8, 12))
    model = streets_of.by_colour()
    model.class_names = NAMES
    evaluation.evaluate(model, streets, batch_size=2, ignore_label=7)
    assert shown == [["reading", 3, 3]] * 2 + [["measuring", 3, 3]]


def test_a_generator(shown, tmp_path):
    photos = write_photos(tmp_path / "photos", 1, 6, (32, 32), "png")
    model = ylg.gan.generator(32, width=2, latent_size=8, num_heads=2)
    judge = keras.layers.GlobalAveragePooling2D()
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(judge(inputs))
    judge = zoo.save_model(
        keras.Model(inputs, outputs), tmp_path / "judge", NAMES
    )
    options = {"extractor": str(judge), "statistics": tmp_path / "real.npz"}
    for counted in (24, 12):  # then the real ones are known
        evaluation.evaluate(model, photos, batch_size=5, **options)
        assert shown == [["reading", 12, 12], ["measuring", 24, counted]]
        del shown[:]


@pytest.mark.thorough
def test_the_head_that_is_fitted(shown):
    images = np.zeros((5, 9, 11, 3), "uint8")
    labels = np.arange(5) % 2
    train, _ = data.load((images, labels), validation=0, batch_size=2)
    train = data.augmented(train, Augmentation(2, (9, 11)))
    pretrained.fit_head(tiny((9, 11, 3), classes=2), train)
    assert shown == [["", 5, 5]]
