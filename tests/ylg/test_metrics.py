"""Metrics of generated pictures: closed forms, brute force, errors."""

import re

import keras
import numpy as np
import pytest
import scipy.linalg
from keras import layers

from tests.backends import needs_tensorflow
from ylg import metrics
from ylg.metrics import GaussianStatistics, frechet_distance
from ylg.metrics.kernel import _off_diagonal_mean


def normal(n, features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features))


def spread(n, features, seed=0, mean=0.0):
    """Samples with correlated features of different sizes."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(features, features))
    return rng.normal(size=(n, features)) @ mixing + mean


def statistics(features):
    return GaussianStatistics().update(features)


def uint8_pictures(n, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, height, width, 3), dtype="uint8")


def pixels_model(height=None, width=None):
    """Features are the mean colour: what the model saw can be read off."""
    inputs = keras.Input((height, width, 3))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs))


def flat_model(height, width):
    inputs = keras.Input((height, width, 3))
    return keras.Model(inputs, layers.Flatten()(inputs))


def tiny_classifier(activation="softmax", classes=5):
    inputs = keras.Input((7, 11, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, activation="tanh", name="hidden")(x)
    x = layers.Dense(classes, activation=activation, name="predictions")(x)
    model = keras.Model(inputs, x, name="tiny")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return model


# Streaming statistics


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_streaming_is_one_shot_is_numpy(mean):
    features = spread(101, 7, mean=mean)
    streamed = GaussianStatistics()
    for part in np.split(features, [1, 2, 40, 41, 97]):
        streamed.update(part)
    for found in (streamed, statistics(features)):
        assert found.count == 101
        np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            found.covariance, np.cov(features, rowvar=False), atol=1e-7
        )
        assert found.covariance.dtype == "float64"


def test_updates_keep_the_callers_arrays_and_return_the_statistics():
    features = normal(5, 3)
    kept = features.copy()
    found = GaussianStatistics()
    assert found.update(features) is found
    found.update(features)
    np.testing.assert_array_equal(features, kept)


def test_half_precision_features_are_summed_in_float64():
    features = (normal(50, 3) + 100).astype("float16")
    np.testing.assert_allclose(
        statistics(features).covariance,
        np.cov(features.astype("float64"), rowvar=False),
    )


def test_merge_is_the_union_and_leaves_the_other_alone():
    a, b = spread(13, 5), spread(29, 5, seed=1, mean=3.0)
    other = statistics(b)
    merged = statistics(a).merge(other).merge(GaussianStatistics())
    both = statistics(np.concatenate([a, b]))
    assert merged.count == 42
    np.testing.assert_allclose(merged.mean, both.mean)
    np.testing.assert_allclose(merged.covariance, both.covariance)
    into_empty = GaussianStatistics().merge(other).update(a)
    np.testing.assert_allclose(into_empty.covariance, both.covariance)
    np.testing.assert_allclose(other.covariance, np.cov(b, rowvar=False))
    assert other.count == 29
    named = GaussianStatistics().merge(GaussianStatistics("a"))
    with pytest.raises(ValueError, match="extractor='a' and extractor='b'"):
        named.merge(GaussianStatistics("b"))


@pytest.mark.parametrize("extractor", [None, "tiny"])
def test_statistics_are_saved_and_go_on(tmp_path, extractor):
    a, b = spread(13, 5), spread(29, 5, seed=1)
    GaussianStatistics(extractor).update(a).save(tmp_path / "real")
    loaded = GaussianStatistics.load(tmp_path / "real")
    assert loaded.extractor == extractor and loaded.count == 13
    np.testing.assert_allclose(
        loaded.update(b).covariance,
        np.cov(np.concatenate([a, b]), rowvar=False),
    )


def test_saved_statistics_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "real.npz"
    statistics(spread(13, 5)).save(path)
    whole = path.read_bytes()
    for content in (whole[:-30], whole[:300], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a file that Gaussian"):
            GaussianStatistics.load(path)
    for save, content in (
        (np.savez, {"mu": np.zeros(3), "sigma": np.eye(3)}),
        (np.save, {"arr": np.eye(3)}),
    ):
        with path.open("wb") as file:
            save(file, **content)
        with pytest.raises(ValueError, match="must be a file that Gaussian"):
            GaussianStatistics.load(path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="A covariance needs 2 samples"):
        GaussianStatistics().save(path)
    assert path.read_bytes() == kept and len(list(tmp_path.iterdir())) == 1


def test_statistics_are_kept_and_measured_against(tmp_path):
    extractor = metrics.classifier_features(tiny_classifier())
    real, fake = uint8_pictures(21, 9, 9), uint8_pictures(18, 9, 9, seed=1)
    path = tmp_path / "real.npz"
    batches = (real[i : i + 8] for i in range(0, 21, 8))
    kept = metrics.cached_statistics(path, batches, extractor, count=21)
    read = metrics.cached_statistics(path, None, extractor, count=21)
    for found in (kept, read):
        report = metrics.evaluate(found, fake, extractor, splits=2)
        expected = metrics.evaluate(real, fake, extractor, splits=2)
        assert report.pop("extractor") == expected.pop("extractor")
        for name in (
            *("kernel_distance", "kernel_distance_std"),
            *("precision", "recall"),
        ):
            del expected[name]
        assert report == pytest.approx(expected, rel=1e-9)
    other = metrics.classifier_features(tiny_classifier(), name="other")
    with pytest.raises(
        ValueError,
        match="must be of extractor 'features of other .*remove the file.* "
        "of extractor 'features of tiny",
    ):
        metrics.cached_statistics(path, None, other)
    with pytest.raises(ValueError, match="of count 20: .*, of count 21"):
        metrics.cached_statistics(path, None, extractor, count=20)
    with pytest.raises(ValueError, match="from the same extractor"):
        metrics.evaluate(read, fake, other)


# Frechet distance


def test_frechet_in_one_dimension_by_hand():
    # (3 - 0)² + (1 - 2)²
    a, b = ([0.0], [[1.0]]), ([3.0], [[4.0]])
    assert frechet_distance(a, b) == pytest.approx(10.0, abs=1e-12)


def test_frechet_of_diagonal_covariances():
    rng = np.random.default_rng(0)
    means, scales = rng.normal(size=(2, 6)), rng.uniform(0, 3, size=(2, 6))
    scales[0, 2] = scales[1, 4] = scales[0, 5] = scales[1, 5] = 0.0
    expected = np.sum((means[0] - means[1]) ** 2)
    expected += np.sum((scales[0] - scales[1]) ** 2)
    a, b = ((means[i], np.diag(scales[i] ** 2)) for i in (0, 1))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_identical_is_zero_and_never_negative():
    for n, features in ((200, 7), (5, 31), (2, 3)):
        found = statistics(spread(n, features))
        scale = np.trace(found.covariance)
        assert 0.0 <= frechet_distance(found, found) < 1e-12 * scale


def test_frechet_of_points_is_their_squared_distance():
    zero = np.zeros((2, 2))
    assert frechet_distance(([0, 0], zero), ([3, 4], zero)) == 25.0


@pytest.mark.parametrize(
    "n, tolerance", [(100, 1e-9), (11, 1e-4), (5, 1e-4)], ids=str
)
def test_frechet_is_scipys(n, tolerance):
    """With 11 features: full rank, then ranks 10 and 4.

    SciPy's root of a singular matrix is only good to the root of rounding.
    """
    a, b = spread(n, 11), spread(n, 11, seed=1, mean=0.3)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    half = np.real(scipy.linalg.sqrtm(covariances[0]))
    root = scipy.linalg.sqrtm(half @ covariances[1] @ half)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected += np.trace(covariances[0] + covariances[1])
    expected -= 2 * np.trace(np.real(root))
    found = frechet_distance(statistics(a), statistics(b))
    assert found == pytest.approx(expected, rel=tolerance)
    assert frechet_distance(statistics(b), statistics(a)) == pytest.approx(
        found, rel=1e-12
    )
    pair = (a.mean(0), covariances[0])
    assert frechet_distance(pair, statistics(b)) == pytest.approx(found)


def test_frechet_of_orthogonal_rank_deficient_is_exact():
    # No common direction: the cross term is 0, whatever the scale.
    a, b = np.diag([4e8, 0.0, 0.0]), np.diag([0.0, 9e8, 0.0])
    zero = np.zeros(3)
    assert frechet_distance((zero, a), (zero, b)) == 13e8


# Kernel distance


def kernel(x, y):
    return (sum(i * j for i, j in zip(x, y, strict=True)) / len(x) + 1) ** 3


def mmd_by_loops(a, b):
    n = len(a)
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                within = kernel(a[i], a[j]) + kernel(b[i], b[j])
                total += within / (n * (n - 1))
            total -= 2 * kernel(a[i], b[j]) / n**2
    return total


def test_kernel_distance_by_hand():
    # k(0, 0) = 1; k(2, 2) = 27 with F = 2; k(0, 2) = 1: 1 + 27 - 2.
    a, b = np.zeros((2, 2)), np.full((2, 2), np.sqrt(2.0))
    found = metrics.kernel_distance(a, b)
    assert found.value == pytest.approx(26.0)
    assert found.std == pytest.approx(0.0, abs=1e-9)
    assert (found.subsets, found.subset_size) == (100, 2)


def test_kernel_distance_of_whole_sets_is_the_loops():
    a, b = normal(13, 5), spread(13, 5, seed=1, mean=0.5)
    found = metrics.kernel_distance(a, b, subsets=3, subset_size=13)
    assert found.value == pytest.approx(mmd_by_loops(a, b), rel=1e-9)


def test_subsets_are_seeded_and_average_to_the_whole():
    a, b = normal(40, 3), normal(50, 3, seed=1) + 0.5
    found = metrics.kernel_distance(a, b, subsets=4000, subset_size=10)
    assert found == metrics.kernel_distance(a, b, 4000, 10, seed=0)
    other = metrics.kernel_distance(a, b, 4000, 10, seed=1)
    assert other.value != found.value
    whole = metrics.kernel_distance(a, b[:40], 1, 40).value
    error = found.std / np.sqrt(4000)
    unbiased = (
        _off_diagonal_mean((a @ a.T / 3 + 1) ** 3)
        + _off_diagonal_mean((b @ b.T / 3 + 1) ** 3)
        - 2 * np.mean((a @ b.T / 3 + 1) ** 3)
    )
    assert abs(found.value - unbiased) < 4 * error
    assert whole != found.value


def test_kernel_distance_of_equal_distributions_expects_zero():
    found = [
        metrics.kernel_distance(
            normal(30, 4, seed), normal(30, 4, seed + 1000), 1, 30
        ).value
        for seed in range(400)
    ]
    error = np.std(found) / np.sqrt(len(found))
    # The biased estimate, with the diagonals, would be above 10 errors.
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0


def test_subset_size_defaults_to_half_the_smaller_set():
    def size(n, m):
        found = metrics.kernel_distance(normal(n, 2), normal(m, 2), subsets=1)
        return found.subset_size

    assert [size(3, 9), size(40, 11), size(2500, 3000)] == [2, 5, 1000]


# Inception Score


@pytest.mark.parametrize("splits", [1, 5])
def test_inception_score_of_uniform_is_one(splits):
    score, std = metrics.inception_score(np.full((10, 4), 0.25), splits)
    assert score == pytest.approx(1.0) and std == pytest.approx(0.0)


def test_inception_score_of_balanced_certainty_is_the_classes():
    score, std = metrics.inception_score(np.tile(np.eye(7), (10, 1)))
    assert score == pytest.approx(7.0) and std == pytest.approx(0.0, abs=1e-9)


def test_inception_score_by_hand():
    p = [[0.75, 0.25], [0.25, 0.75], [1.0, 0.0], [1.0, 0.0]]
    # Halves: marginals (1/2, 1/2) and (1, 0).
    first = np.exp(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    score, std = metrics.inception_score(p, splits=2)
    assert score == pytest.approx((first + 1) / 2)
    assert std == pytest.approx((first - 1) / 2)


# Precision and recall


def test_precision_and_recall_by_hand():
    real = [[0.0], [1.0], [2.0], [10.0]]
    # Radii with k = 1: 1, 1, 1, 8; the manifold is [-1, 3] and [2, 18].
    fake = [[-0.5], [2.5], [17.0], [19.0], [-3.0]]
    # Radii: 2.5, 3, 2, 2, 2.5: [-5.5, 5.5] and [15, 21].
    precision, recall = metrics.precision_recall(real, fake, k=1)
    assert (precision, recall) == (3 / 5, 3 / 4)


def brute_share(points, centers, k):
    inside = 0
    for point in points:
        for i, center in enumerate(centers):
            others = np.delete(centers, i, axis=0)
            radius = sorted(np.linalg.norm(others - center, axis=1))[k - 1]
            if np.linalg.norm(point - center) <= radius:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_precision_and_recall_are_brute_force(k, chunk):
    real, fake = normal(41, 3) + 50, 0.7 * normal(29, 3, seed=1) + 51.3
    found = metrics.precision_recall(real, fake, k, chunk)
    expected = brute_share(fake, real, k), brute_share(real, fake, k)
    assert found == expected
    assert 0 < min(found) and max(found) < 1


def test_equal_sets_cover_each_other_and_distant_ones_do_not():
    a = spread(50, 9, mean=1e3)
    assert metrics.precision_recall(a, a) == (1.0, 1.0)
    assert metrics.precision_recall(a, a + 1e3) == (0.0, 0.0)


def test_copies_of_one_sample_cover_that_sample_only():
    # Products of many features round differently from block to block.
    real = normal(20, 301) + 100
    for row in range(20):
        fake = np.repeat(real[row : row + 1], 50, axis=0)
        assert metrics.precision_recall(real, fake) == (1.0, 1 / 20)


# Extractors


@pytest.mark.parametrize("pixel_range", [(0, 255), (-1, 1), (0, 1)])
def test_pixels_reach_the_model_in_its_range(pixel_range):
    extractor = metrics.FeatureExtractor(pixels_model(), "mean", pixel_range)
    low, high = pixel_range
    middle = low + (high - low) * np.array([0.0, 0.2, 1.0])
    integers = np.broadcast_to(np.uint8([0, 51, 255]), (2, 3, 5, 3))
    floats = np.broadcast_to(np.float32([-1, -0.6, 1]), (2, 3, 5, 3))
    tensor = keras.ops.convert_to_tensor(floats, "bfloat16")
    named = np.array([10.0, 12.0, 20.0]) * np.ones((2, 3, 5, 3))
    for images, value_range, rtol in (
        (integers, None, 1e-5),
        (floats, None, 1e-5),
        (tensor, None, 1e-2),
        (named, (10, 20), 1e-5),
    ):
        features, probabilities = extractor(images, value_range)
        assert probabilities is None and features.dtype == "float32"
        np.testing.assert_allclose(
            features, [middle] * 2, rtol=rtol, atol=rtol * (high - low)
        )


def test_enlarged_pictures_are_interpolated():
    extractor = metrics.FeatureExtractor(flat_model(2, 8), "flat", (0, 255))
    image = np.zeros((1, 2, 4, 3), "uint8")
    image[:, :, 2:] = 200
    row = extractor(image)[0].reshape(2, 8, 3)[1, :, 2]
    np.testing.assert_allclose(
        row, [0, 0, 0, 50, 150, 200, 200, 200], atol=1e-3
    )


def test_reduced_pictures_are_antialiased():
    """Stripes turn grey; without antialiasing only the light ones are seen."""
    extractor = metrics.FeatureExtractor(flat_model(4, 10), "flat", (0, 1))
    image = np.zeros((1, 16, 40, 3), "uint8")
    image[:, :, 1::4] = image[:, :, 2::4] = 255
    seen = extractor(image)[0].reshape(4, 10, 3)[:, 1:-1]
    np.testing.assert_allclose(seen, 0.5, atol=1e-3)


def test_image_size_is_the_models_unless_given():
    make = metrics.FeatureExtractor
    assert make(flat_model(5, 7), "a", (0, 1)).image_size == (5, 7)
    assert make(pixels_model(), "a", (0, 1)).image_size is None
    assert make(pixels_model(), "a", (0, 1), (3, 2)).image_size == (3, 2)
    image = uint8_pictures(1, 9, 9)
    flat = make(pixels_model(), "a", (0, 1), (1, 1))(image)[0]
    assert flat.shape == (1, 3)


def test_pictures_are_independent_of_their_batch():
    extractor = metrics.FeatureExtractor(
        flat_model(3, 5), "flat", (0, 255), batch_size=4
    )
    images = uint8_pictures(11, 3, 5)
    features, _ = extractor(images)
    assert features.shape == (11, 45)
    np.testing.assert_allclose(features, images.reshape(11, 45), atol=1e-3)


def test_the_model_sees_one_batch_shape():
    shapes = []
    extractor = metrics.FeatureExtractor(
        pixels_model(3, 5), "mean", (0, 1), batch_size=4
    )
    predict = extractor.model.predict_on_batch
    extractor.model.predict_on_batch = lambda x: (
        shapes.append(tuple(x.shape)) or predict(x)
    )
    for n in (1, 4, 6):
        extractor(uint8_pictures(n, 3, 5))
    assert shapes == [(4, 3, 5, 3)] * 4


def test_classifier_features_enter_the_last_dense_layer():
    model = tiny_classifier()
    extractor = metrics.classifier_features(model)
    assert extractor.name == "features of tiny (not Inception)"
    assert extractor.image_size == (7, 11)
    images = uint8_pictures(3, 7, 11)
    features, probabilities = extractor(images)
    expected = keras.Model(model.input, model.get_layer("hidden").output)
    np.testing.assert_allclose(
        features, expected.predict_on_batch(images), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        probabilities, model.predict_on_batch(images), rtol=1e-4, atol=1e-5
    )


def test_classifier_features_of_a_named_layer():
    model = tiny_classifier()
    extractor = metrics.classifier_features(model, "pool", name="other")
    assert extractor.name == "features of other (not Inception)"
    assert extractor(uint8_pictures(2, 7, 11))[0].shape == (2, 6)


@pytest.mark.parametrize(
    "activation, from_logits, softmax",
    [
        ("softmax", None, False),
        ("softmax", False, False),
        (None, None, True),
        ("linear", True, True),
        ("relu", True, True),
    ],
)
def test_logits_become_probabilities(activation, from_logits, softmax):
    model = tiny_classifier(activation)
    extractor = metrics.classifier_features(model, from_logits=from_logits)
    images = uint8_pictures(3, 7, 11)
    expected = model.predict_on_batch(images)
    if softmax:
        expected = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    _, probabilities = extractor(images)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_softmax_layer_is_seen():
    model = tiny_classifier(None)
    model = keras.Model(model.inputs[0], layers.Softmax()(model.outputs[0]))
    extractor = metrics.classifier_features(model)
    images = uint8_pictures(3, 7, 11)
    np.testing.assert_allclose(
        extractor(images)[1], model.predict_on_batch(images), rtol=1e-4
    )


def test_inception_v3_wires_pool_and_probabilities(monkeypatch):
    asked = []

    def stub(weights):
        asked.append((weights, keras.config.dtype_policy().name))
        inputs = keras.Input((299, 299, 3))
        x = layers.GlobalAveragePooling2D(name="avg_pool")(inputs)
        outputs = layers.Dense(4, activation="softmax")(x)
        return keras.Model(inputs, outputs)

    monkeypatch.setattr(keras.applications, "InceptionV3", stub)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        extractor = metrics.inception_v3()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert asked == [("imagenet", "float32")]
    assert extractor.name == "InceptionV3 (keras.applications, ImageNet)"
    assert extractor.image_size == (299, 299)
    assert "random weights" in metrics.inception_v3(weights=None).name
    extractor.batch_size = 1
    images = np.full((1, 4, 4, 3), 255, "uint8")
    features, probabilities = extractor(images)
    np.testing.assert_allclose(features, np.ones((1, 3)), rtol=1e-4)
    assert probabilities.shape == (1, 4)


@pytest.mark.slow
def test_inception_v3_itself_with_random_weights():
    extractor = metrics.inception_v3(weights=None)
    extractor.batch_size = 2
    features, probabilities = extractor(uint8_pictures(2, 32, 32))
    assert features.shape == (2, 2048) and probabilities.shape == (2, 1000)


# All together


class Pictures(keras.utils.PyDataset):
    """Labelled float pictures in [0, 255], as `kanets.data` gives them."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return -(-len(self.images) // 8)

    def __getitem__(self, index):
        part = self.images[8 * index : 8 * index + 8]
        return part.astype("float32"), np.zeros(len(part), "int32")


def endless(images):
    while True:
        yield images[:9], "label"


def test_evaluate_end_to_end():
    extractor = metrics.classifier_features(tiny_classifier())
    real, fake = uint8_pictures(21, 9, 9), uint8_pictures(18, 9, 9, seed=1)
    fake = fake // 2
    options = {"splits": 2, "subsets": 5, "subset_size": 7}
    report = metrics.evaluate(real, fake, extractor, **options)
    a, _ = extractor(real)
    b, p = extractor(fake)
    kid = metrics.kernel_distance(b, a, 5, 7)
    precision, recall = metrics.precision_recall(a, b)
    score, std = metrics.inception_score(p, 2, seed=0)
    expected = {
        "frechet_distance": frechet_distance(statistics(a), statistics(b)),
        "kernel_distance": kid.value,
        "kernel_distance_std": kid.std,
        "precision": precision,
        "recall": recall,
        "inception_score": score,
        "inception_score_std": std,
    }
    names = {"extractor", "real_count", "fake_count"}
    assert report.keys() == expected.keys() | names
    for name, value in expected.items():
        assert isinstance(report[name], float)
        assert report[name] == pytest.approx(value, rel=1e-6), name
    assert report["extractor"] == "features of tiny (not Inception)"
    assert (report["real_count"], report["fake_count"]) == (21, 18)
    assert report["frechet_distance"] > 1e-4

    # The same pictures, however they come.
    floats = fake.astype("float32") / 127.5 - 1
    same = metrics.evaluate(
        Pictures(real),
        (floats[i : i + 5] for i in range(0, 18, 5)),
        extractor,
        real_range=(0, 255),
        **options,
    )
    assert same.pop("extractor") == report.pop("extractor")
    assert same == pytest.approx(report, rel=1e-3, abs=1e-6)


def test_evaluate_of_equal_sets_without_the_slow_parts():
    extractor = metrics.FeatureExtractor(pixels_model(), "mean", (-1, 1))
    images = uint8_pictures(12, 4, 4)
    report = metrics.evaluate(images, images, extractor, k=None)
    assert report.keys() == {
        "frechet_distance",
        "kernel_distance",
        "kernel_distance_std",
        "extractor",
        "real_count",
        "fake_count",
    }
    assert report["frechet_distance"] == pytest.approx(0.0, abs=1e-9)


@needs_tensorflow
def test_evaluate_reads_a_tf_data_dataset():
    import tensorflow as tf

    extractor = metrics.FeatureExtractor(pixels_model(), "mean", (-1, 1))
    images = uint8_pictures(12, 4, 4)
    pairs = tf.data.Dataset.from_tensor_slices((images, np.zeros(12)))
    report = metrics.evaluate(pairs.batch(5), images, extractor)
    assert (report["real_count"], report["fake_count"]) == (12, 12)
    assert report["frechet_distance"] == pytest.approx(0.0, abs=1e-9)


def test_max_count_stops_an_endless_source():
    extractor = metrics.FeatureExtractor(pixels_model(), "mean", (-1, 1))
    images = uint8_pictures(12, 4, 4)
    report = metrics.evaluate(images, endless(images), extractor, max_count=11)
    assert (report["real_count"], report["fake_count"]) == (11, 11)


# Errors


NAN = np.array([[0.0, np.nan], [1.0, np.inf], [1.0, 2.0]])
EXTRACTOR = metrics.FeatureExtractor(pixels_model(), "mean", (0, 1))
PICTURES = np.zeros((2, 4, 4, 3), "float32")


def gaussian(covariance):
    return frechet_distance(([0.0, 0.0], covariance), statistics(normal(4, 2)))


ERRORS = {
    "rank": (
        lambda: statistics(np.zeros(3)),
        "features must be of rank 2, one row per sample. "
        "Received: features.shape=(3,)",
    ),
    "nan": (
        lambda: statistics(NAN),
        "features must be finite. Received: features with 2 NaN",
    ),
    "empty": (
        lambda: statistics(np.zeros((0, 3))),
        "features must have 1 or more samples and 1 or more columns. "
        "Received: features.shape=(0, 3)",
    ),
    "one sample": (
        lambda: statistics(np.zeros((1, 3))).covariance,
        "A covariance needs 2 samples or more. Received: count=1",
    ),
    "none": (
        lambda: frechet_distance(GaussianStatistics(), statistics(NAN[2:])),
        "A covariance needs 2 samples or more. Received: count=0",
    ),
    "update size": (
        lambda: statistics(normal(4, 3)).update(normal(4, 2)),
        "Both sides must have the same number of features. "
        "Received: F=3 and F=2",
    ),
    "merge extractor": (
        lambda: GaussianStatistics("a").merge(GaussianStatistics("b")),
        "Statistics must come from the same extractor. "
        "Received: extractor='a' and extractor='b'",
    ),
    "frechet extractor": (
        lambda: frechet_distance(
            GaussianStatistics("a").update(normal(4, 3)),
            GaussianStatistics("b").update(normal(4, 3)),
        ),
        "Statistics must come from the same extractor. ",
    ),
    "frechet size": (
        lambda: frechet_distance(
            statistics(normal(4, 3)), statistics(normal(4, 2))
        ),
        "the same number of features. Received: F=3 and F=2",
    ),
    "gaussian shape": (
        lambda: gaussian(np.eye(3)),
        "A Gaussian must be a mean (F,) and a covariance (F, F). "
        "Received: a of shapes (2,), (3, 3)",
    ),
    "gaussian nan": (
        lambda: gaussian(np.diag([1.0, np.nan])),
        "a[1] must be finite. Received: a[1] with 1 NaN",
    ),
    "asymmetric": (
        lambda: gaussian([[1.0, 0.5], [0.0, 1.0]]),
        "A covariance must be symmetric. "
        "Received: a[1] with an asymmetry of 0.5",
    ),
    "indefinite": (
        lambda: gaussian(np.diag([1.0, -0.5])),
        "A covariance must be positive semi-definite. "
        "Received: smallest eigenvalue=-0.5",
    ),
    "kernel samples": (
        lambda: metrics.kernel_distance(normal(1, 3), normal(4, 3)),
        "features_a must have 2 or more samples and 1 or more columns. "
        "Received: features_a.shape=(1, 3)",
    ),
    "kernel size": (
        lambda: metrics.kernel_distance(normal(4, 3), normal(4, 2)),
        "the same number of features. Received: F=3 and F=2",
    ),
    "kernel nan": (
        lambda: metrics.kernel_distance(normal(4, 2), NAN),
        "features_b must be finite. Received: features_b with 2 NaN",
    ),
    "subset size": (
        lambda: metrics.kernel_distance(
            normal(4, 3), normal(6, 3), subset_size=5
        ),
        "at most the smaller set, 4. Received: subsets=100, subset_size=5",
    ),
    "subsets": (
        lambda: metrics.kernel_distance(normal(4, 3), normal(6, 3), 0),
        "1 subset or more, of 2 samples or more",
    ),
    "subsets and a half": (
        lambda: metrics.kernel_distance(normal(4, 3), normal(6, 3), 1.5, 2.5),
        "Received: subsets=1.5, subset_size=2.5",
    ),
    "sigma": (
        lambda: metrics.kernel_distance(
            normal(4, 3), normal(6, 3), kernel="rbf", sigma=0
        ),
        "sigma must be a positive number. Received: sigma=0",
    ),
    "logits": (
        lambda: metrics.inception_score(normal(20, 3)),
        "Rows of probabilities must be 0 or more and sum to 1; logits need "
        "a softmax. Received: min=-",
    ),
    "sums": (
        lambda: metrics.inception_score(np.ones((20, 3))),
        "Received: min=1, sums off by 2",
    ),
    "splits": (
        lambda: metrics.inception_score(np.eye(4)),
        "splits must be an integer between 1 and the number of samples, 4. "
        "Received: splits=10",
    ),
    "splits and a half": (
        lambda: metrics.inception_score(np.eye(4), splits=2.5),
        "Received: splits=2.5",
    ),
    "neighbours": (
        lambda: metrics.precision_recall(normal(9, 2), normal(3, 2)),
        "fake must have 4 or more samples and 1 or more columns. "
        "Received: fake.shape=(3, 2)",
    ),
    "k": (
        lambda: metrics.precision_recall(normal(9, 2), normal(9, 2), k=0),
        "k must be a positive integer. Received: k=0",
    ),
    "chunk": (
        lambda: metrics.precision_recall(normal(9, 2), normal(9, 2), chunk=2.0),
        "chunk must be a positive integer. Received: chunk=2.0",
    ),
    "precision size": (
        lambda: metrics.precision_recall(normal(9, 3), normal(9, 2)),
        "the same number of features. Received: F=3 and F=2",
    ),
    "picture rank": (
        lambda: EXTRACTOR(PICTURES[0]),
        "Pictures must be (B, H, W, 3) with B of 1 or more. "
        "Received: images.shape=(4, 4, 3)",
    ),
    "no picture": (
        lambda: EXTRACTOR(PICTURES[:0]),
        "Received: images.shape=(0, 4, 4, 3)",
    ),
    "picture dtype": (
        lambda: EXTRACTOR(PICTURES.astype("int32")),
        "Pictures must be uint8 or float, or have a value_range. "
        "Received: images.dtype=int32",
    ),
    "picture range": (
        lambda: EXTRACTOR(PICTURES + 255),
        "Pixels of these pictures must lie in [-1, 1]; give value_range (of "
        "evaluate: real_range, fake_range) for another. "
        "Received: images in [255.0, 255.0]",
    ),
    "picture nan": (
        lambda: EXTRACTOR(PICTURES * np.nan),
        "must lie in [-1, 1]",
    ),
    "value range": (
        lambda: EXTRACTOR(PICTURES, (1, 0)),
        "value_range must be (low, high), low < high. "
        "Received: value_range=(1, 0)",
    ),
    "pixel range": (
        lambda: metrics.FeatureExtractor(pixels_model(), "a", (255,)),
        "pixel_range must be (low, high), low < high. "
        "Received: pixel_range=(255,)",
    ),
    "feature rank": (
        lambda: metrics.FeatureExtractor(
            keras.Sequential([keras.Input((4, 4, 3)), layers.ReLU()]),
            "map",
            (0, 1),
        )(PICTURES),
        "The model's first output must be features (B, F). "
        "Received: features.shape=(2, 4, 4, 3)",
    ),
    "no dense": (
        lambda: metrics.classifier_features(pixels_model()),
        "A classifier without a Dense layer needs `layer`",
    ),
    "activation": (
        lambda: metrics.classifier_features(tiny_classifier("sigmoid")),
        "`from_logits` must be given where the model does not end in a "
        "softmax or linear activation. Received: from_logits=None, "
        "model='tiny', which ends in sigmoid",
    ),
    "nothing": (
        lambda: metrics.evaluate(iter(()), PICTURES, EXTRACTOR),
        "There must be pictures. Received: real=no batch",
    ),
    "max count": (
        lambda: metrics.evaluate(PICTURES, PICTURES, EXTRACTOR, max_count=0),
        "max_count must be 1 or more. Received: max_count=0",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_the_rule(case):
    call, text = ERRORS[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        call()
