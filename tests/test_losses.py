"""The loss over label maps against loops, and median-frequency weights."""

import keras
import numpy as np
import pytest

from kanets.data.batches import ArrayPictures, Batches
from kanets.train.losses import (
    SegmentationCrossentropy,
    median_frequency_weights,
)
from tests.backends import compiled, gradient, to_numpy

CLASSES = 5
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, CLASSES, (3, 4, 7)).astype("int32")
LABELS[0, 0], LABELS[2, 1, 3] = 9, 9
SCORES = RANDOM.gamma(1.0, size=(3, 4, 7, CLASSES))
SCORES = (SCORES / SCORES.sum(-1, keepdims=True)).astype("float32")
WEIGHTS = [0.3, 2.0, 0.0, 1.0, 5.5]


def by_loops(labels, scores, ignore_label, class_weight):
    """The loss and its gradient, pixel by pixel."""
    total, weights = 0.0, 0.0
    slopes = np.zeros(scores.shape)
    for place in np.ndindex(labels.shape):
        label = labels[place]
        if label == ignore_label or not 0 <= label < scores.shape[-1]:
            continue
        weight = 1.0 if class_weight is None else class_weight[label]
        total -= weight * np.log(np.float64(scores[*place, label]))
        slopes[*place, label] = -weight / scores[*place, label]
        weights += weight
    return (total / weights, slopes / weights) if weights else (0.0, slopes)


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
@pytest.mark.parametrize("ignore_label", [9, 0, None])
def test_it_is_the_weighted_mean_over_labelled_pixels(
    ignore_label, class_weight
):
    loss = SegmentationCrossentropy(ignore_label, class_weight)
    value, slopes = by_loops(LABELS, SCORES, ignore_label, class_weight)
    np.testing.assert_allclose(loss(LABELS, SCORES), value, rtol=1e-5)
    fast = compiled(lambda scores: loss(LABELS, scores))
    np.testing.assert_allclose(fast(SCORES), value, rtol=1e-5)
    (found,) = gradient(lambda scores: loss(LABELS, scores), SCORES)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-6)


def test_by_hand():
    labels = np.array([[[0, 1, 7]]])
    scores = np.array([[[[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]]]])
    loss = SegmentationCrossentropy(7, class_weight=[0.01, 0.03])
    expected = (np.log(2) + 3 * np.log(4)) / 4
    np.testing.assert_allclose(loss(labels, scores), expected, rtol=1e-6)


@pytest.mark.parametrize("class_weight", [None, WEIGHTS, [0.0] * CLASSES])
def test_nothing_labelled_is_zero(class_weight):
    labels = np.full_like(LABELS, 9)
    loss = SegmentationCrossentropy(9, class_weight)
    assert float(loss(labels, SCORES)) == 0
    (found,) = gradient(lambda scores: loss(labels, scores), SCORES)
    np.testing.assert_array_equal(found, np.zeros_like(SCORES))


@pytest.mark.parametrize("label", [-1, CLASSES, 200])
def test_a_label_that_is_no_class_counts_for_nothing(label):
    ours = np.where(LABELS == 9, label, LABELS)
    value, _ = by_loops(LABELS, SCORES, 9, WEIGHTS)
    loss = SegmentationCrossentropy(None, WEIGHTS)
    np.testing.assert_allclose(loss(ours, SCORES), value, rtol=1e-5)


def test_a_probability_of_zero_is_finite():
    scores = np.zeros_like(SCORES)
    loss = SegmentationCrossentropy(9)
    np.testing.assert_allclose(loss(LABELS, scores), -np.log(1e-30), rtol=1e-5)
    (found,) = gradient(lambda scores: loss(LABELS, scores), scores)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
def test_logits_are_those_of_the_probabilities(class_weight):
    logits = np.log(SCORES) + RANDOM.normal(size=(3, 4, 7, 1)).astype("float32")
    value, slopes = by_loops(LABELS, SCORES, 9, class_weight)
    loss = SegmentationCrossentropy(9, class_weight, from_logits=True)
    np.testing.assert_allclose(loss(LABELS, logits), value, rtol=1e-5)
    (found,) = gradient(lambda t: loss(LABELS, t), logits)
    # By the chain rule: of a softmax, p_i (g_i - sum of p_j g_j).
    mean = (SCORES * slopes).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, SCORES * (slopes - mean), atol=1e-6)


@pytest.mark.parametrize("margin", [20.0, 60.0, 1e4])
@pytest.mark.parametrize("from_logits", [True, False])
def test_a_pixel_that_is_surely_wrong_has_a_gradient(from_logits, margin):
    if margin > 1e3 and not from_logits:
        pytest.skip("its probability is zero")
    loss = SegmentationCrossentropy(from_logits=from_logits)
    labels, logits = np.ones((1, 1, 1)), np.array([[[[margin, 0]]]], "float32")

    def value(logits):
        if from_logits:
            return loss(labels, logits)
        return loss(labels, keras.ops.softmax(logits))

    np.testing.assert_allclose(value(logits), margin, rtol=1e-5)
    (found,) = gradient(value, logits)
    np.testing.assert_allclose(found.ravel(), [1, -1], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_probabilities_are_summed_in_float32(dtype):
    scores = keras.ops.cast(SCORES, dtype)
    labels = LABELS.astype("uint8")
    keras.config.set_floatx(dtype)
    try:
        value = SegmentationCrossentropy(9)(labels, scores)
    finally:
        keras.config.set_floatx("float32")
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    exact = to_numpy(keras.ops.cast(scores, "float32"))
    expected, _ = by_loops(LABELS, exact, 9, None)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_config_round_trip():
    loss = SegmentationCrossentropy(9, tuple(WEIGHTS), name="pixels")
    config = keras.losses.serialize(loss)
    assert config["registered_name"] == "kanets>SegmentationCrossentropy"
    again = keras.losses.deserialize(config)
    assert again.get_config() == loss.get_config()
    assert again.name == "pixels" and again.ignore_label == 9
    assert float(again(LABELS, SCORES)) == float(loss(LABELS, SCORES))
    assert SegmentationCrossentropy().get_config() == {
        "name": "segmentation_crossentropy",
        "reduction": "sum_over_batch_size",
        "ignore_label": None,
        "class_weight": None,
        "from_logits": False,
    }
    of_logits = SegmentationCrossentropy(9, from_logits=True)
    again = keras.losses.deserialize(keras.losses.serialize(of_logits))
    assert again.from_logits is True


def test_fit_lowers_it():
    model = keras.Sequential(
        [
            keras.Input((4, 7, CLASSES)),
            keras.layers.Conv2D(CLASSES, 1, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.1), SegmentationCrossentropy(9))
    images = np.eye(CLASSES, dtype="float32")[LABELS % CLASSES]
    history = model.fit(images, LABELS, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_errors():
    with pytest.raises(ValueError, match=r"negative. .*class_weight=\[1.0, -2"):
        SegmentationCrossentropy(class_weight=[1, -2])
    with pytest.raises(ValueError, match=r"finite .*class_weight=\[nan\]"):
        SegmentationCrossentropy(class_weight=[float("nan")])
    for weights in ([], [1.0] * (CLASSES + 1)):
        loss = SegmentationCrossentropy(class_weight=weights)
        with pytest.raises(
            ValueError, match=rf"{len(weights)} weights, .*\(3, 4, 7, 5\)"
        ):
            loss(LABELS, SCORES)


def batches(maps, names, ignore_label=9):
    maps = np.array(maps, "uint8")
    pictures = ArrayPictures(np.zeros((*maps.shape, 3), "uint8"))
    return Batches(
        pictures,
        maps,
        np.arange(len(maps)),
        batch_size=2,
        class_names=names,
        ignore_label=ignore_label,
    )


def test_median_frequency_weights_by_hand():
    maps = [[[0, 0, 0, 1]], [[0, 0, 0, 9]], [[0, 2, 2, 9]]]
    # Of 12, 4 and 4 pixels: frequencies 7/12, 1/4 and 1/2.
    weights = median_frequency_weights(batches(maps, list("abc")))
    np.testing.assert_allclose(weights, [6 / 7, 2, 1])
    loss = SegmentationCrossentropy(9, weights)
    assert loss.class_weight == weights


def test_median_frequency_weights_need_every_class():
    with pytest.raises(ValueError, match=r"no pixel of \['b', 'd'\]"):
        median_frequency_weights(batches([[[0, 2]]], list("abcd"), None))


def test_labels_may_have_a_last_axis_and_nothing_else():
    loss = SegmentationCrossentropy()
    labels = np.array([[[0, 1], [2, 1]]])
    scores = np.random.default_rng(0).uniform(0.1, 1, (1, 2, 2, 3))
    scores = (scores / scores.sum(-1, keepdims=True)).astype("float32")
    plain = to_numpy(loss(labels, scores))
    assert to_numpy(loss(labels[..., None], scores)) == plain
    with pytest.raises(ValueError, match=r"height, width\). .*\(1, 2, 2, 3\)"):
        loss(np.eye(3)[labels], scores)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(1,\)"):
        loss(labels, scores, sample_weight=np.ones(1))
