"""Inversion: saliency and distance against the official script, recovery."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import compiled, gradient, needs_gan_steps, to_numpy
from tests.layer_checks import random
from tests.ylg.test_generator import settle
from ylg import descent, inversion, patterns
from ylg.gan import discriminator, generator, to_pixels
from ylg.inversion import invert, resize_saliency, saliency, weighted_distance
from ylg.layers import LocalSparseAttention2D, NonLocalAttention2D
from ylg.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = (6, 10)
LATENT = 6
CLASSES = 3
HEADS = range(8)


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "ylg_inversion_saliency.npz"))


@pytest.fixture(scope="module")
def keys(golden):
    """The official saliency of the keys, (2, 8, 16, 16)."""
    maps = [golden[f"saliency_head{h}_nearest_32"][..., 0] for h in HEADS]
    return np.stack(maps, axis=1)[:, :, ::2, ::2]


@pytest.fixture(scope="module")
def networks():
    return small_networks()


def small_networks(classes=CLASSES, attention=LocalSparseAttention2D, heads=2):
    """A generator and a discriminator that compile in a second."""
    keras.utils.set_random_seed(1)
    z = inputs = keras.Input((LATENT,))
    x = keras.layers.Dense(SIZE[0] * SIZE[1] * 4)(z)
    x = keras.layers.Reshape((*SIZE, 4))(x)
    if classes is not None:
        labels = keras.Input((), dtype="int32")
        inputs = [z, labels]
        norm = ConditionalBatchNormalization(classes)
        x = norm([x, labels])
        norm.gamma.assign(0.5 + np.abs(random(*norm.gamma.shape)))
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(3, 3, padding="same", activation="tanh")(x)
    generator = keras.Model(inputs, x, name="generator")

    x = images = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = attention(heads, name="attention")(x)
    logits = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    return generator, keras.Model(images, logits, name="discriminator")


@pytest.fixture(scope="module")
def target(networks):
    z = np.random.default_rng(99).normal(size=(1, LATENT))
    return draw(networks[0], z, [1])[0]


def draw(model, z, labels=None):
    inputs = np.asarray(z, "float32")
    if labels is not None:
        inputs = [inputs, np.asarray(labels, "int32")]
    return model.predict(inputs, verbose=0)


def rmse(x, y):
    return float(np.sqrt(np.mean(np.square(x - y))))


def quick(target, *arguments, **options):
    options = {"starts": 2, "steps": 2, "verbose": 0, **options}
    return invert(target, *arguments, **options)


# Saliency.


def loop_saliency(weight, pattern):
    """By the definition, an entry of the matrix at a time."""
    result = np.zeros((len(weight), pattern.num_keys))
    for picture, key in np.ndindex(result.shape):
        received = []
        for query, seen in enumerate(pattern.neighbours):
            for place, other in enumerate(seen):
                value = weight[picture, query, place]
                if other == key and value != 0:
                    received.append(value)
        result[picture, key] = np.mean(received) if received else 0
    return result.reshape(-1, *pattern.key_shape)


def test_saliency_equals_the_official_one(golden, keys):
    attention = np.load(GOLDEN / "ylg_generator.npz")["attention"]
    heads = patterns.ylg_heads((32, 32), (16, 16), alignment="tiled")
    weights = []
    for head, pattern in enumerate(heads):
        index = np.maximum(pattern.neighbours, 0)[None]
        weight = np.take_along_axis(attention[:, head], index, axis=2)
        weights.append(np.where(pattern.neighbours >= 0, weight, 0))
    result = saliency(weights, heads)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(result), keys[:1], atol=2e-7)
    assert not golden["columns_without_any_query_per_head"].any()


@pytest.mark.parametrize("grids", [((5, 7), (3, 4)), ((1, 1), (1, 1))])
def test_saliency_equals_the_loop(grids):
    heads = [
        patterns.left_floor(*grids, alignment="spatial"),
        patterns.right_repetitive(*grids, alignment="spatial"),
        patterns.dense(*grids),
    ]
    weights = []
    for head, pattern in enumerate(heads):
        weight = np.abs(random(2, *pattern.neighbours.shape, seed=head))
        weight[:, ::3] = 0  # underflow: a key that is seen, but not looked at
        weights.append(np.where(pattern.neighbours >= 0, weight, 0))
    result = to_numpy(saliency(weights, heads))
    for head, (weight, pattern) in enumerate(zip(weights, heads, strict=True)):
        expected = loop_saliency(weight, pattern)
        np.testing.assert_allclose(result[:, head], expected, rtol=1e-5)


def test_saliency_by_hand():
    pattern = patterns.NeighbourPattern(
        np.array([[0, 1], [0, -1], [0, 3]]), (3, 1), (2, 2)
    )
    weight = np.array([[[0.25, 0.75], [1.0, 9.0], [0.0, 1.0]]], "float32")
    # Key 0 gets 0.25 and 1 of the two that look at it; nobody sees key 2;
    # 9 stands where there is no key.
    expected = [[[[0.625, 0.75], [0.0, 1.0]]]]
    np.testing.assert_allclose(
        to_numpy(saliency([weight], [pattern])), expected, rtol=1e-6
    )


def test_saliency_compiles_and_takes_half_precision():
    pattern = patterns.left_floor((4, 4))
    weight = np.abs(random(2, *pattern.neighbours.shape))
    expected = to_numpy(saliency([weight], [pattern]))
    result = compiled(lambda w: saliency([w], [pattern]))(
        ops.cast(weight, "bfloat16")
    )
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(result), expected, rtol=2e-2)


def test_saliency_on_other_grids(golden, keys):
    for h in HEADS:
        nearest = resize_saliency(keys[:, h : h + 1], (32, 32))
        expected = golden[f"saliency_head{h}_nearest_32"][..., 0]
        np.testing.assert_array_equal(to_numpy(nearest)[:, 0], expected)
    bilinear = resize_saliency(keys[:, :1], (128, 128), "bilinear")
    expected = golden["saliency_head0_bilinear_128"][..., 0]
    np.testing.assert_allclose(to_numpy(bilinear)[:, 0], expected, atol=1e-7)
    odd = resize_saliency(np.arange(6.0).reshape(1, 1, 2, 3), (3, 5))
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    np.testing.assert_array_equal(to_numpy(odd)[0, 0], expected)


def test_saliency_errors():
    grid, line = patterns.dense((2, 2)), patterns.dense(4)
    weight = np.ones((1, 4, 4), "float32")
    with pytest.raises(ValueError, match="1 weights, 2 patterns"):
        saliency([weight], [grid, grid])
    with pytest.raises(ValueError, match="0 weights, 0 patterns"):
        saliency([], [])
    with pytest.raises(ValueError, match=r"one grid.* \[\(2, 2\), \(4,\)\]"):
        saliency([weight, weight], [grid, line])
    with pytest.raises(ValueError, match=r"one grid.* \[\(4,\)\]"):
        saliency([weight], [line])
    with pytest.raises(ValueError, match=r"shape=\(4, 4\), neighbours \(4, 4"):
        saliency([weight[0]], [grid])
    with pytest.raises(ValueError, match="interpolation='cubic'"):
        resize_saliency(weight[None], (8, 8), "cubic")


# Distance.


def test_distance_equals_the_official_one(golden, keys):
    cells = resize_saliency(keys, (32, 32))
    ours = to_numpy(weighted_distance(golden["x"], golden["x_"], cells))
    assert ours.shape == (2, 8)
    # One norm of the batch is the norm of the pictures' norms.
    official = [golden[f"weighted_norm_head{h}"] for h in HEADS]
    batch = np.sqrt(np.sum(np.square(ours), axis=0))
    np.testing.assert_allclose(batch, official, rtol=1e-5)
    np.testing.assert_allclose(
        batch[:4].sum(), golden["disc_loss_heads0to3"], rtol=1e-5
    )


def test_distance_by_hand_and_broadcast():
    x, y = np.zeros((1, 1, 2, 2), "float32"), np.zeros((2, 1, 2, 2), "float32")
    y[1] = [[[3, 4], [1, 0]]]
    weights = np.array([[[[2.0, 0.0]], [[0.0, 7.0]]]], "float32")
    result = to_numpy(weighted_distance(x, y, weights))
    np.testing.assert_allclose(result, [[0, 0], [10, 7]], rtol=1e-6)


def test_distance_gradient():
    x, y = random(2, 3, 5, 4), random(2, 3, 5, 4, seed=1)
    y[0] = x[0]  # where the norm has no gradient, ours is zero
    s = np.abs(random(1, 2, 3, 5, seed=2))

    def total(x):
        return ops.sum(weighted_distance(x, y, s))

    [result] = gradient(total, x)
    difference = (x - y)[1].astype("float64")
    expected = np.zeros_like(difference)
    for head in s[0].astype("float64"):
        weighted = head[..., None] * difference
        expected += head[..., None] * weighted / np.linalg.norm(weighted)
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_allclose(result[1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 4, 4, 3), (2, 4, 4, 5), (2, 8, 4, 4)],
        [(2, 4, 4, 3), (2, 4, 5, 3), (2, 8, 4, 4)],
        [(2, 4, 4, 3), (2, 4, 4, 3), (2, 4, 4, 8)],
        [(2, 4, 4, 3), (2, 4, 4, 3), (2, 4, 4)],
    ],
)
def test_distance_errors(shapes):
    with pytest.raises(ValueError, match=r"saliency \(batch, heads.*saliency="):
        weighted_distance(*(np.zeros(shape, "float32") for shape in shapes))


# Inversion.


@pytest.mark.thorough
@needs_gan_steps
def test_recovers_a_generated_picture():
    arguments = {
        "num_classes": CLASSES,
        "num_heads": 2,
        "kernel_initializer": "zeros",  # nothing of it remains
    }
    pair = (
        generator(32, width=4, latent_size=LATENT, **arguments),
        discriminator(32, width=4, **arguments),
    )
    for model in pair:
        for seed, variable in enumerate(model.trainable_variables):
            if len(variable.shape) > 1 and "kernel" in variable.name:
                variable.assign(random(*variable.shape, seed=seed))
        settle(model)
        model.get_layer("attention").sigma.assign(0.5)
    # Strong colours, but not saturated.
    gamma = pair[0].get_layer("norm").gamma
    gamma.assign(10 * np.ones(gamma.shape))
    pictures = draw(pair[0], random(16, LATENT, seed=99), [1] * 16)
    target = pictures[0]
    assert 0.2 < target.std() < 0.5

    before = [model.get_weights() for model in pair]
    found = invert(target, *pair, 1, starts=3, steps=60, verbose=0)
    assert found.losses[0] < 0.05 * found.history[0].min()
    nearest = min(rmse(picture, target) for picture in pictures[1:])
    assert rmse(found.images[0], target) < 0.1 * nearest

    # The networks are as before.
    for model, weights in zip(pair, before, strict=True):
        for old, new in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@needs_gan_steps
def test_what_is_returned(networks, target):
    found = quick(target, *networks, 1, starts=3, steps=10)
    assert found.latents.shape == (3, LATENT)
    assert found.images.shape == (3, *SIZE, 3)
    assert found.history.shape == (10, 3)
    assert found.saliency.shape == (2, *SIZE) and found.saliency.min() >= 0
    assert found.labels.tolist() == [1, 1, 1]
    assert (np.diff(found.losses) >= 0).all()
    np.testing.assert_array_equal(found.losses, found.history.min(axis=0))
    images = draw(networks[0], found.latents, found.labels)
    np.testing.assert_allclose(found.images, images, atol=1e-5)
    # The saliency that counts is that of the target's own attention.
    layer = networks[1].get_layer("attention")
    embed = keras.Model(networks[1].inputs[0], layer.input)
    embedded = embed(target[None])
    weights = layer.attention_weights(embedded)
    keys = saliency(weights, layer.patterns_for(embedded.shape))
    expected = resize_saliency(keys, SIZE, "bilinear")[0]
    np.testing.assert_allclose(found.saliency, to_numpy(expected), atol=1e-6)
    # The losses are those of the definition.
    cells = resize_saliency(keys, SIZE)
    distances = weighted_distance(embed(found.images), embedded, cells)
    sums = to_numpy(distances).sum(axis=1)
    np.testing.assert_allclose(found.losses, sums, rtol=1e-3)
    for array in (found.latents, found.images, found.losses, found.history):
        assert array.dtype == np.float32


@needs_gan_steps
def test_true_latent_has_loss_0_and_starts_do_not_couple(networks):
    model = networks[0]
    starts = np.random.default_rng(5).normal(size=(3, LATENT))
    target = draw(model, starts[1:2].astype("float32"), [2])[0]
    several = quick(target, *networks, 2, starts=3, steps=4, seed=5)
    scale = several.history[0].max()
    assert several.losses[0] < 1e-4 * scale < several.losses[1]
    np.testing.assert_allclose(several.latents[0], starts[1], atol=1e-6)
    np.testing.assert_allclose(several.images[0], target, atol=1e-5)
    # The first start alone goes the same way.
    alone = quick(target, *networks, 2, starts=1, steps=4, seed=5)
    ways = several.history.T
    first = ways[np.argmin(np.abs(ways[:, 0] - alone.history[0, 0]))]
    np.testing.assert_allclose(first, alone.history[:, 0], rtol=1e-3)


@needs_gan_steps
def test_arguments_reach_the_loss(networks, target, monkeypatch):
    calls = []
    original = inversion.weighted_distance

    def watched(x, y, saliency):
        calls.append(tuple(saliency.shape))
        return original(x, y, saliency)

    monkeypatch.setattr(inversion, "weighted_distance", watched)
    optimizer = keras.optimizers.SGD(1e-3)
    options = {"heads": np.array([1]), "optimizer": optimizer, "steps": 5}
    one = quick(target, *networks, [1, 2], **options)
    # Traced once: all five steps are one program.
    assert calls == [(1, 1, *SIZE)]
    assert one.saliency.shape == (1, *SIZE)
    assert not optimizer.built
    assert sorted(one.labels.tolist()) == [1, 2]
    pixels = quick(target, *networks, [1, 2], pixel_weight=2.0, **options)
    starts = np.random.default_rng(0).normal(size=(2, LATENT))
    images = draw(networks[0], starts.astype("float32"), [1, 2])
    norms = np.linalg.norm((images - target).reshape(2, -1), axis=1)
    difference = np.sort(pixels.history[0])[::-1], np.sort(one.history[0])[::-1]
    np.testing.assert_allclose(
        np.sum(difference[0] - difference[1]), 2 * norms.sum(), rtol=1e-3
    )


@needs_gan_steps
def test_dense_attention_no_classes_and_bytes():
    pair = small_networks(None, NonLocalAttention2D, 1)
    pixels = to_pixels(draw(pair[0], random(1, LATENT, seed=7))[0])
    result = quick(pixels, *pair, steps=60)
    assert result.labels is None and result.saliency.shape == (1, *SIZE)
    assert result.losses[0] < 0.5 * result.history[0].min()
    assert rmse(result.images[0], pixels / 127.5 - 1) < 0.1


@needs_gan_steps
def test_progress_bar(networks, target, capsys, monkeypatch):
    monkeypatch.setattr(
        descent, "_tensorflow_step", lambda *_: lambda: (z, z[:, 0])
    )
    monkeypatch.setattr(descent, "_jax_step", lambda *_: lambda: (z, z[:, 0]))
    z = ops.ones((2, LATENT))
    keras.config.enable_interactive_logging()
    quick(target, *networks, 0)
    assert capsys.readouterr().out == ""
    quick(target, *networks, 0, verbose=1)
    assert "2/2" in capsys.readouterr().out


@needs_gan_steps
def test_a_start_that_diverges_is_last(networks, target, monkeypatch):
    z = ops.convert_to_tensor(random(2, LATENT))
    values = iter([[np.nan, 2.0], [1.0, np.inf]])
    for name in ("_tensorflow_step", "_jax_step"):
        monkeypatch.setattr(
            descent,
            name,
            lambda *_: lambda: (z, ops.convert_to_tensor(next(values))),
        )
    result = quick(target, *networks, 0)
    assert result.losses.tolist() == [1.0, 2.0]
    assert result.history.tolist() == [[np.inf, 2.0], [1.0, np.inf]]


@needs_gan_steps
@pytest.mark.parametrize(
    "change, message",
    [
        ({"starts": 0}, "starts must be.*starts=0"),
        ({"steps": 1.5}, "steps must be.*steps=1.5"),
        ({"learning_rate": 0}, "learning_rate must be.*learning_rate=0"),
        ({"learning_rate": "a"}, "learning_rate must be.*learning_rate='a'"),
        ({"pixel_weight": -1}, "pixel_weight must be.*pixel_weight=-1"),
        ({"heads": []}, r"numbers in 0\.\.1.*heads=\[\]"),
        ({"heads": [0, 0]}, r"numbers in 0\.\.1.*heads=\[0, 0\]"),
        ({"heads": [2]}, r"numbers in 0\.\.1.*heads=\[2\]"),
        ({"label": None}, r"class in 0\.\.2.*label=None"),
        ({"label": 3}, r"class in 0\.\.2.*label=3"),
        ({"label": 0.5}, r"class in 0\.\.2.*label=0.5"),
        ({"label": [0, 1, 2]}, r"2, one for each start.*label=\[0, 1, 2\]"),
        ({"image": np.zeros((10, 6, 3))}, r"\(6, 10, 3\).*\(10, 6, 3\)"),
        ({"image": np.zeros((6, 10, 3), int)}, "uint8, or float.*int64"),
        ({"image": np.full((6, 10, 3), 255.0)}, r"in \[-1, 1\].*255\.\.255"),
        ({"image": np.full((6, 10, 3), np.nan)}, r"in \[-1, 1\].*nan"),
    ],
)
def test_errors(networks, change, message):
    options = {"image": np.zeros((6, 10, 3)), "label": 0, **change}
    image, label = options.pop("image"), options.pop("label")
    with pytest.raises(ValueError, match=message):
        quick(image, *networks, label, **options)


@needs_gan_steps
def test_errors_of_networks(networks):
    def bare(*size):
        x = keras.Input((*size, 3))
        return keras.Model(x, keras.layers.Flatten(name="flat")(x))

    image = np.zeros((*SIZE, 3), "float32")
    with pytest.raises(ValueError, match=r'"attention".*\'flat\''):
        quick(image, networks[0], bare(*SIZE), 0)
    with pytest.raises(ValueError, match=r"\(6, 10, 3\) and \(6, 9, 3\)"):
        quick(image, networks[0], bare(6, 9), 0)
    with pytest.raises(ValueError, match="takes no label.*label=0"):
        quick(image, *small_networks(None), 0)
