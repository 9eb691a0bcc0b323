"""Augmentation: what it does to pictures and labels, and repeatability."""

import math

import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from kanets import data
from kanets.train.augment import (
    Augmentation,
    SegmentationAugmentation,
    _resized,
)
from tests.backends import BACKEND, thorough_on_jax, to_numpy

PICTURES = np.random.default_rng(0).uniform(0, 255, (6, 9, 11, 3))
PICTURES = PICTURES.astype("float32")
LABELS = np.array([0, 1, 2, 0, 1, 2])
EVERYTHING = {"crop": 2, "randaugment": 2, "mixup": 0.4, "cutmix": 1.0}


def apply(seed=1, **arguments):
    augmentation = Augmentation(3, (9, 11), **arguments)
    augmentation.reseed(seed)
    images, labels = augmentation(PICTURES, LABELS)
    return to_numpy(images), to_numpy(labels)


def test_nothing_asked_changes_nothing():
    images, labels = apply(flip=False)
    np.testing.assert_array_equal(images, PICTURES)
    np.testing.assert_array_equal(labels, np.eye(3)[LABELS])


def test_a_flip_mirrors_some():
    images, _ = apply(seed=3)
    mirrored = [
        np.array_equal(new, old[:, ::-1])
        for new, old in zip(images, PICTURES, strict=True)
    ]
    same = [
        np.array_equal(new, old)
        for new, old in zip(images, PICTURES, strict=True)
    ]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored) and any(same)


def test_a_crop_shifts_by_whole_pixels_per_picture():
    images, _ = apply(flip=False, crop=2)
    shifts = set()
    for new, old in zip(images, PICTURES, strict=True):
        padded = np.pad(old, ((2, 2), (2, 2), (0, 0)), "symmetric")
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.allclose(padded[i : i + 9, j : j + 11], new)
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 1


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_are_shares(kind):
    _, labels = apply(flip=False, **{kind: 1.0})
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-5)
    assert np.any((labels > 0.01) & (labels < 0.99))


@thorough_on_jax
def test_all_of_it_keeps_range_shape_and_dtype():
    images, labels = apply(**EVERYTHING)
    assert images.shape == PICTURES.shape and images.dtype == np.float32
    assert labels.shape == (6, 3) and labels.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 255


@pytest.mark.thorough
def test_the_seed_says_it_all():
    first, second, other = (apply(seed=s, **EVERYTHING) for s in (5, 5, 6))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first[0], other[0])


@thorough_on_jax
@pytest.mark.parametrize(
    "one", [{"randaugment": 1}, {"mixup": 0.4}, {"cutmix": 1.0}]
)
def test_compiled_it_does_what_its_layers_do(one):
    augmentation = Augmentation(3, (9, 11), crop=2, **one)
    found, expected = [], []
    augmentation.reseed(4)
    for _ in range(2):  # the random states move on
        found += map(to_numpy, augmentation(PICTURES, LABELS))
    augmentation.reseed(4)
    for _ in range(2):
        images, labels = PICTURES, keras.ops.one_hot(LABELS, 3)
        for layer in augmentation.picture_layers:
            images = layer(images, training=True)
        for layer in augmentation.mixing_layers:
            mixed = layer({"images": images, "labels": labels}, training=True)
            images, labels = mixed["images"], mixed["labels"]
        expected += [to_numpy(images), to_numpy(labels)]
    assert np.abs(found[0] - found[2]).max() > 1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
def test_tf_data_gets_mixup_and_cutmix():
    import tensorflow as tf

    black, white = np.zeros((1, 8, 8, 3)), np.full((1, 8, 8, 3), 255.0)
    pairs = np.concatenate([black, white]).astype("float32"), np.arange(2)
    batches = tf.data.Dataset.from_tensors(pairs).repeat(40)
    augmentation = Augmentation(2, (8, 8), mixup=1.0, cutmix=1.0)
    augmentation.reseed(0)
    mixed = cut = 0
    for images, _ in data.augmented(batches, augmentation):
        images = images.numpy()
        grey = np.any((images > 1) & (images < 254))
        mixed += grey  # CutMix keeps black and white
        cut += not grey and np.any(images.std((1, 2, 3)) > 1)
    assert mixed > 3 and cut > 3


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
def test_tf_data_is_repeatable_in_many_threads():
    import tensorflow as tf

    def passes(first, count):
        pairs = np.tile(PICTURES, (8, 1, 1, 1)), np.tile(LABELS, 8)
        pictures = tf.data.Dataset.from_tensor_slices(pairs)
        augmentation = Augmentation(3, (9, 11), crop=2, mixup=0.4)
        stream = data.augmented(pictures.batch(2), augmentation)
        stream.epoch = first
        return [list(stream.as_numpy_iterator()) for _ in range(count)]

    once = passes(0, 3)
    batches = [images for one in once for images, _ in one]
    assert len({images.tobytes() for images in batches}) == len(batches)
    for one, other in zip(once[1:], passes(1, 2), strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
def test_seeded_it_leaves_its_states_alone():
    augmentation = Augmentation(3, (9, 11), crop=2, mixup=0.4)
    augmentation.reseed(1)
    expected = [to_numpy(part) for part in augmentation(PICTURES, LABELS)]
    augmentation.reseed(1)
    first, same, other = (
        [to_numpy(part) for part in augmentation.seeded(key, PICTURES, LABELS)]
        for key in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first[0], same[0])
    assert np.abs(first[0] - other[0]).max() > 1
    actual = augmentation(PICTURES, LABELS)
    np.testing.assert_array_equal(to_numpy(actual[0]), expected[0])


@pytest.mark.skipif(BACKEND != "jax", reason="others take NumPy arrays")
def test_batches_stay_on_the_device_of_jax():
    import jax

    arrays = PICTURES.round().astype("uint8"), LABELS
    train, _ = data.load(arrays, batch_size=4, validation=0)
    turned = data.augmented(train, Augmentation(3, (9, 11)))
    both = data.augmented(turned, lambda images, labels: (images, labels))
    for batch in turned[0], both[0]:
        assert all(isinstance(part, jax.Array) for part in batch)
        assert batch[0].dtype == np.float32


def test_it_stays_float32_in_half_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        images, labels = apply(**EVERYTHING)
    finally:
        keras.config.set_dtype_policy(policy)
    assert images.dtype == np.float32 and labels.dtype == np.float32


GRIDS = np.random.default_rng(1).integers(0, 5, (6, 12, 17)).astype("int32")
# A picture that shows its own label map, so that one tells of the other.
SHOWN = np.repeat(GRIDS[..., None] * 50.0, 3, -1).astype("float32")


def segment(seed=1, images=SHOWN, labels=GRIDS, **arguments):
    augmentation = SegmentationAugmentation(**arguments)
    augmentation.reseed(seed)
    new_images, new_labels = augmentation(images, labels)
    assert new_images.dtype == np.float32 and new_labels.dtype == np.int32
    assert new_images.shape == (*new_labels.shape, 3)
    return new_images, new_labels


def smooth_maps(count=40):
    """Label maps of one vertical and one horizontal edge, and pictures."""
    random = np.random.default_rng(2)
    maps = np.zeros((count, 48, 60), "int32")
    for one in maps:
        one[random.integers(8, 40) :] += 1
        one[:, random.integers(8, 50) :] += 2
    return np.repeat(maps[..., None] * 60.0, 3, -1).astype("float32"), maps


def test_segmentation_nothing_asked_changes_nothing():
    images, labels = segment(flip=False)
    np.testing.assert_array_equal(images, SHOWN)
    np.testing.assert_array_equal(labels, GRIDS)
    assert images is not SHOWN and labels is not GRIDS


def test_segmentation_mirrors_half_of_the_pairs():
    images, labels = segment(
        images=np.repeat(SHOWN[:1], 200, 0), labels=np.repeat(GRIDS[:1], 200, 0)
    )
    np.testing.assert_array_equal(images[..., 0], labels * 50)
    mirrored = (labels == GRIDS[0, :, ::-1]).all((1, 2))
    assert (mirrored ^ (labels == GRIDS[0]).all((1, 2))).all()
    assert 70 < mirrored.sum() < 130


def test_segmentation_crops_whole_pixels_anywhere():
    images, labels = segment(
        images=np.repeat(SHOWN[:1], 200, 0),
        labels=np.repeat(GRIDS[:1], 200, 0),
        crop_size=(10, 14),
        flip=False,
    )
    np.testing.assert_array_equal(images[..., 0], labels * 50)
    found = set()
    for label_map in labels:
        places = [
            (i, j)
            for i in range(3)
            for j in range(4)
            if np.array_equal(label_map, GRIDS[0, i : i + 10, j : j + 14])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 12


def test_segmentation_pads_what_is_too_small():
    images, labels = segment(crop_size=(15, 14), flip=False, ignore_label=7)
    padded = labels == 7
    assert (images[padded] == 127.5).all()
    np.testing.assert_array_equal(images[~padded][:, 0], labels[~padded] * 50)
    rows = padded.all(2)
    assert (rows.sum(1) == 3).all() and (padded.any(2) == rows).all()
    assert len({tuple(row) for row in rows}) > 1
    for label_map, grid, row in zip(labels, GRIDS, rows, strict=True):
        inner = label_map[~row]
        assert any(np.array_equal(inner, grid[:, j : j + 14]) for j in range(4))


def test_segmentation_in_another_light():
    """As Pillow makes it, which rounds after each of the three."""
    random = np.random.default_rng(4)
    images = random.integers(30, 200, (8, 12, 17, 3)).astype("float32")
    found, labels = segment(
        images=images, labels=GRIDS[:1].repeat(8, 0), color=0.4, flip=False
    )
    np.testing.assert_array_equal(labels, GRIDS[:1].repeat(8, 0))
    assert found.min() >= 0 and found.max() <= 255

    def light(picture, brightness, contrast, saturation):
        picture = Image.fromarray(picture.astype("uint8"))
        picture = ImageEnhance.Brightness(picture).enhance(brightness)
        picture = ImageEnhance.Contrast(picture).enhance(contrast)
        return np.asarray(ImageEnhance.Color(picture).enhance(saturation))

    drawn = np.random.default_rng(1)
    for picture, one in zip(images, found, strict=True):
        drawn.uniform(-1, 1), drawn.integers(1), drawn.integers(1)  # the crop
        expected = light(picture, *drawn.uniform(0.6, 1.4, 3))
        assert np.abs(one - expected).max() < 4
        assert np.abs(one - picture).mean() > 4


@pytest.mark.parametrize("color", [-0.1, 1.0, math.nan])
def test_segmentation_refuses_no_light(color):
    with pytest.raises(ValueError, match=rf"in \[0, 1\).*color={color}"):
        SegmentationAugmentation(color=color)


@pytest.mark.parametrize("crop_size", [(31, 37), None, (64, 50)])
def test_segmentation_keeps_labels_on_their_pictures(crop_size):
    images, maps = smooth_maps()
    images, labels = segment(
        images=images, labels=maps, crop_size=crop_size, scale=2, ignore_label=9
    )
    counted = labels != 9
    assert counted.any((1, 2)).all()
    off = np.abs(images[..., 0] - labels * 60)[counted]
    # Only pixels on an edge are a mixture, and none is further than half off.
    assert np.mean(off > 1) < 0.1 and off.max() <= 92


def test_segmentation_scales_are_log_uniform():
    """A picture of one bright dot shows by which factor it was scaled."""
    count, side = 300, 24
    labels = np.zeros((count, side, side), "int32")
    labels[:, 8:16, 8:16] = 1
    images = np.repeat(labels[..., None] * 255.0, 3, -1)
    _, labels = segment(
        images=images,
        labels=labels,
        scale=2,
        crop_size=(48, 48),
        ignore_label=3,
    )
    widths = (labels == 1).any(1).sum(-1)
    assert widths.min() >= 3 and widths.max() <= 16
    np.testing.assert_allclose(
        np.quantile(widths / 8, [0.01, 0.25, 0.5, 0.75, 0.99]),
        2 ** np.array([-1, -0.5, 0, 0.5, 1]),
        rtol=0.15,
    )
    heights = (labels == 1).any(2).sum(-1)
    assert np.abs(heights - widths).max() <= 1


def test_segmentation_resizes_only_the_crop_but_as_the_whole():
    """A crop equals the part of the whole picture scaled by Pillow."""
    picture = np.random.default_rng(3).integers(0, 256, (40, 40, 3))
    picture = picture.astype(np.uint8)
    box, size = (5.0, 10.0, 15.0, 20.0), (30, 40)
    whole = Image.fromarray(picture).resize((80, 80), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        _resized(picture.astype("float32"), box, size),
        np.asarray(whole)[10:40, 20:60],
        atol=1,
    )


def test_segmentation_rounds_to_8_bits():
    picture = np.full((5, 6, 3), 100.6, np.float32)
    assert (_resized(picture, (0, 0, 5, 6), (7, 9)) == 101).all()


def test_segmentation_seed_says_it_all():
    arguments = {"crop_size": (9, 9), "scale": 2, "ignore_label": 7}
    first, second, other = (segment(s, **arguments) for s in (5, 5, 6))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    "arguments,text",
    [
        ({"crop_size": (0, 4)}, r"two positive ints, .*crop_size=\(0, 4\)"),
        ({"crop_size": (4,)}, r"Received: crop_size=\(4,\)"),
        ({"scale": 0.5}, "at least 1, which .*Received: scale=0.5"),
        ({"scale": float("nan")}, "Received: scale=nan"),
        (
            {"scale": 2},
            r"needs `ignore_label`. Received: ignore_label=None, crop "
            r"\(12, 17\) of pictures \(12, 17\), scale=2",
        ),
        ({"crop_size": (13, 17)}, r"ignore_label=None, crop \(13, 17\)"),
        ({"crop_size": (12, 9), "scale": 1.1}, r"crop \(12, 9\) of pictures"),
    ],
)
def test_segmentation_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        segment(**arguments)


def test_segmentation_needs_no_ignore_label_where_all_fits():
    _, labels = segment(crop_size=(6, 8), scale=2)
    assert labels.shape == (6, 6, 8)
    assert set(np.unique(labels)) == set(range(5))


def test_a_shift_is_within_the_picture():
    with pytest.raises(ValueError, match=r"crop=32 of pictures of \(48, 32\)"):
        Augmentation(2, (48, 32), crop=32)


def test_cutmix_is_of_the_paper():
    """Shares are of Beta(alpha, alpha), and labels those of the pixels."""
    black = np.zeros((256, 16, 16, 3), "float32")
    black[128:] = 255
    labels = np.arange(256) // 128
    augmentation = Augmentation(2, (16, 16), flip=False, cutmix=1.0)
    shares = []
    for seed in range(8):
        augmentation.reseed(seed)
        images, mixed = map(to_numpy, augmentation(black, labels))
        white = (images[..., 0] > 127).mean((1, 2))
        np.testing.assert_allclose(mixed[:, 1], white, atol=1e-5)
        shares += list(np.minimum(white, 1 - white)[white % 1 > 0])
    # Where both are seen, the smaller share is uniform in 0..0.5.
    assert 0.2 < np.mean(shares) < 0.3
