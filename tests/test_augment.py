"""Augmentation: what it does to pictures and labels, and repeatability."""

import keras
import numpy as np
import pytest

from kanets.augment import Augmentation
from tests.backends import to_numpy

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


def test_all_of_it_keeps_range_shape_and_dtype():
    images, labels = apply(**EVERYTHING)
    assert images.shape == PICTURES.shape and images.dtype == np.float32
    assert labels.shape == (6, 3) and labels.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 255


def test_the_seed_says_it_all():
    first, second, other = (apply(seed=s, **EVERYTHING) for s in (5, 5, 6))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first[0], other[0])


def test_it_stays_float32_in_half_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        images, labels = apply(**EVERYTHING)
    finally:
        keras.config.set_dtype_policy(policy)
    assert images.dtype == np.float32 and labels.dtype == np.float32
