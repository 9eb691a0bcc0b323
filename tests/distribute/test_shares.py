"""Shares of batches: together they are the batches of one process."""

import keras
import numpy as np
import pytest

from kanets import data, distribute, evaluation, recipes
from kanets.distribute.processes import local
from kanets.distribute.shares import Shares, _filled
from kanets.train.augment import Augmentation, SegmentationAugmentation
from tests.backends import BACKEND, to_numpy
from tests.evaluation.test_segmentation import by_colour as segmenter
from tests.photos import write_streets


def batches(batch_size=5, count=13, transform=None):
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(count, 6, 7, 3)).astype("uint8")
    labels = np.arange(count, dtype="int32") % 3
    found, _ = data.load(
        (pictures, labels), batch_size=batch_size, validation=0
    )
    return found if transform is None else data.augmented(found, transform)


def joined(found, parts, replicas, place):
    """Batch `place` of all processes, and how it is filled up."""
    sizes = {}
    last = found.num_pictures % found.batch_size or found.batch_size
    filled = {
        rows: _filled(rows, replicas, sizes)
        for rows in (found.batch_size, last)
    }
    shares = [Shares(found, i, parts, filled)[place] for i in range(parts)]
    assert len({len(images) for images, _ in shares}) == 1
    return [np.concatenate(part) for part in zip(*shares, strict=True)]


@pytest.mark.parametrize("parts", [1, 2, 4, 7])
@pytest.mark.parametrize(
    "arguments",
    [None, {"crop": 2}, {"mixup": 0.5, "cutmix": 1.0}],
    ids=["plain", "alone", "mixed"],
)
def test_shares_together_are_the_batch(parts, arguments):
    transform = arguments and Augmentation(3, (6, 7), **arguments)
    found = batches(transform=transform)
    for place in range(3):
        whole = [to_numpy(part) for part in found[place]]
        together = joined(found, parts, parts, place)
        for one, other in zip(whole, together, strict=True):
            np.testing.assert_allclose(one, other[: len(one)], atol=1e-4)
            assert not other[len(one) :].any()
            assert len(other) % parts == 0


def test_shares_of_label_maps_are_cropped_as_the_batch():
    rng = np.random.default_rng(0)
    found = data.augmented(batches(), SegmentationAugmentation((4, 4), scale=1))
    found.labels = rng.integers(3, size=(13, 6, 7))
    for one, other in zip(found[2], joined(found, 2, 4, 2), strict=True):
        np.testing.assert_array_equal(one, other[: len(one)])


def test_a_process_decodes_its_own_pictures_alone():
    class Counted:
        def __init__(self, pictures):
            self.pictures, self.taken = pictures, []

        def take(self, rows):
            self.taken += list(rows)
            return self.pictures.take(rows)

    found = batches(4, 8, Augmentation(3, (6, 7), crop=1))
    found.pictures = Counted(found.pictures)
    order = found.order(0)
    _ = Shares(found, 1, 2, {4: 4})[1]
    assert found.pictures.taken == list(order[6:8])


def test_a_size_stands_for_one_number_of_rows():
    sizes = {}
    found = [_filled(rows, 4, sizes) for rows in (8, 7, 5, 8, 1)]
    assert found == [8, 12, 16, 8, 4]
    assert sizes == {8: 8, 12: 7, 16: 5, 4: 1}


def test_the_epoch_of_shares_goes_on():
    found = batches(5, 10)
    shares = Shares(found, 0, 1, {5: 5})
    shares.epoch = 3
    images, _ = shares[1]
    np.testing.assert_array_equal(
        images, found.pictures.take(found.order(3)[5:])
    )
    assert found.epoch == 0


def test_without_a_distribution_a_set_is_as_it_is():
    found = batches()
    assert distribute.shard(found) is found
    assert distribute.shard(None) is None


@pytest.fixture
def scope():
    if BACKEND != "jax":
        pytest.skip("Keras distributes on JAX")
    with keras.distribution.DataParallel().scope():
        yield


def test_what_cannot_be_divided(scope):
    with pytest.raises(TypeError, match="must be `Batches`.* Received: ndarr"):
        distribute.shard(np.zeros(3))


def test_a_segmenter_is_measured_there_as_it_is(scope, tmp_path):
    streets = write_streets(tmp_path, 2, 3, (8, 12))
    model = segmenter()
    model.class_names = ["blue", "red"]
    with pytest.raises(ValueError, match="for one process, .*flip=True"):
        evaluation.evaluate(model, streets, ignore_label=7, flip=True)
    found = evaluation.evaluate(model, streets, ignore_label=7)
    with local():
        assert found == evaluation.evaluate(model, streets, ignore_label=7)


@pytest.mark.skipif(BACKEND != "jax", reason="Keras distributes on JAX")
def test_what_several_processes_do_not_measure(monkeypatch):
    generator = keras.Sequential(
        [keras.Input((4,)), keras.layers.Reshape((2, 2, 1))]
    )
    monkeypatch.setattr(
        evaluation, "initialize", keras.distribution.DataParallel
    )
    with pytest.raises(ValueError, match="and no export; .*distributed=True"):
        evaluation.evaluate(generator, "photos", distributed=True)


def test_weights_that_cannot_be_divided():
    if BACKEND == "jax":
        count = len(keras.distribution.list_devices())
        error = f"a multiple of shards. Received: shards={count + 1}, {count}"
    else:
        count, error = 1, f"on JAX. Received: backend={BACKEND!r}"
    with pytest.raises(ValueError, match=error):
        distribute.layout(count + 1)


def test_a_recipe_that_trains_on_one_device(tmp_path):
    model = {"name": "KANet"}
    for fields, error in (
        (
            {"gan": {}},
            "A GAN trains on one device, .* Received: a section gan$",
        ),
        (
            {"model": model, "finetune": {"fit_head": True}},
            "on one device where finetune.fit_head looks .* Received: ",
        ),
        (
            {"model": model, "quantize": {"from_epoch": 2}},
            "on one device where quantize.from_epoch .*from_epoch=2$",
        ),
    ):
        recipe = recipes.from_dict(fields)
        with pytest.raises(ValueError, match=error):
            recipes.train(recipe, tmp_path / "run", 0, distributed=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(BACKEND == "jax", reason="about the other backends")
def test_several_processes_need_jax(tmp_path):
    recipe = recipes.from_dict({"model": {"name": "KANet"}})
    error = f"Several processes train on JAX .*Received: backend={BACKEND!r}"
    with pytest.raises(ValueError, match=error):
        recipes.train(recipe, tmp_path / "run", 0, distributed=True)
