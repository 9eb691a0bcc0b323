"""The generator: table, sizes, counts, precision, gradients, saving."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import BACKEND, counts_once, to_numpy, weight_gradients
from tests.layer_checks import fill_weights, random
from ylg.gan.generator_network import CHANNELS, generator
from ylg.layers import SpectralNormalization

CLASSES = 3
no_float16_nets = pytest.mark.skipif(
    BACKEND == "jax",
    reason="layers are tested in float16; a net takes seconds to compile",
)
POLICIES = [
    pytest.param("mixed_float16", marks=no_float16_nets),
    "mixed_bfloat16",
]


# Classes and attention; half of all pairs show each.
CHOICES = [
    (None, None),
    (3, "ylg"),
    (None, "dense"),
    pytest.param(3, None, marks=pytest.mark.slow),
    pytest.param(None, "ylg", marks=pytest.mark.slow),
    pytest.param(3, "dense", marks=pytest.mark.slow),
]


def make(**arguments):
    """A small one; with two heads, as JAX takes seconds to compile eight."""
    return generator(
        32, 4, num_classes=CLASSES, latent_size=5, num_heads=2, **arguments
    )


@pytest.fixture(scope="module")
def model():
    model = make(kernel_initializer="zeros")
    fill_weights(model.weights)
    settle(model)
    return model


def settle(model):
    """Puts the singular vectors where training would bring them.

    With random ones sigma is far too small and the numbers grow layer by
    layer, and with them what rounding does.
    """
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, SpectralNormalization)
    ]
    attention = model.get_layer("attention")
    layers += [attention.theta, attention.phi, attention.g, attention.out]
    for layer in layers:
        inner = layer.layer
        if isinstance(inner, keras.layers.Embedding):
            matrix = to_numpy(inner.embeddings).T
        else:
            matrix = to_numpy(inner.kernel)
            matrix = matrix.reshape(-1, matrix.shape[-1])
        u = np.linalg.svd(matrix, full_matrices=False)[0][:, 0]
        layer.left_singular_vector.assign(u)


def run(model, values):
    """The outputs of one compiled call: JAX is slow without compiling."""
    if not isinstance(values, list):
        return model.predict(to_numpy(values), verbose=0)
    return model.predict([to_numpy(x) for x in values], verbose=0)


def inputs(size=4, latent_size=5):
    labels = np.arange(size) % CLASSES
    return [
        ops.convert_to_tensor(random(size, latent_size)),
        ops.convert_to_tensor(labels.astype("int32")),
    ]


def count(channels, latent_size, classes, attended=None):
    """Parameters, from the channels of the blocks' outputs."""

    def normalized(rows, columns, bias=True):
        return rows * columns + rows + (columns if bias else 0)

    def norm(width, rows):
        return 2 * rows * width + 2 * width

    total = normalized(latent_size, 16 * channels[0])
    for before, after in zip(channels[:1] + channels, channels, strict=False):
        total += normalized(before, after)
        total += normalized(9 * before, after) + normalized(9 * after, after)
        total += norm(before, classes or 1) + norm(after, classes or 1)
    total += norm(channels[-1], 1) + normalized(9 * channels[-1], 3)
    if attended:
        total += 2 * normalized(attended, max(8, attended // 8), False)
        total += normalized(attended, attended // 2, False)
        total += normalized(attended // 2, attended, False) + 1
    return total


@counts_once
@pytest.mark.parametrize(
    "size, channels, attended",
    [
        (32, [32, 32, 32], 32),
        (64, [128, 64, 32, 16], 32),
        (128, [128, 64, 32, 16, 8], 32),
        (256, [128, 64, 64, 32, 16, 8], 64),
    ],
)
@pytest.mark.parametrize("classes, attention", CHOICES)
def test_counts_and_shapes(size, channels, attended, classes, attention):
    model = generator(
        size, 8, classes, 6, attention, kernel_initializer="zeros"
    )
    if attention is None:
        assert "attention" not in [layer.name for layer in model.layers]
        attended = None
    else:
        side = 16 if size == 32 else 32
        shape = model.get_layer("attention").input.shape
        assert shape == (None, side, side, attended)
    assert model.count_params() == count(channels, 6, classes, attended)
    assert model.output_shape == (None, size, size, 3)
    for index, filters in enumerate(channels, 1):
        side = 4 * 2**index
        output = model.get_layer(f"block{index}").output
        assert output.shape == (None, side, side, filters)


def test_table_doubles_up_to_the_picture():
    assert all(4 * 2 ** len(CHANNELS[size]) == size for size in CHANNELS)


def test_pictures(model):
    z, labels = inputs()
    assert [x.name for x in model.inputs] == ["latent", "labels"]
    pictures = run(model, [z, labels])
    assert pictures.shape == (4, 32, 32, 3)
    assert pictures.dtype == np.float32
    assert 0.01 < np.abs(pictures).max() <= 1
    others = run(model, [z, (labels + 1) % CLASSES])
    assert np.abs(others - pictures).max() > 0.01  # the class matters


@pytest.mark.slow
def test_attention_place():
    model = generator(
        32, 4, latent_size=5, attention_size=8, kernel_initializer="zeros"
    )
    assert model.get_layer("attention").input.shape == (None, 8, 8, 16)
    assert len(model.inputs) == 1
    assert run(model, inputs()[0]).shape == (4, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_mixed_precision(model, policy):
    half = make(dtype=policy, kernel_initializer="zeros")
    half.set_weights(model.get_weights())
    assert half.get_layer("block2").output.dtype == policy.removeprefix(
        "mixed_"
    )
    assert half.output.dtype == "float32"
    assert {v.dtype for v in half.weights} == {"float32"}
    before_tanh, expected = (
        run(keras.Model(m.inputs, m.get_layer("conv").output), inputs())
        for m in (half, model)
    )
    before_tanh = before_tanh.astype("float32")
    tolerance = 0.02 if policy == "mixed_float16" else 0.1
    np.testing.assert_allclose(
        before_tanh, expected, atol=tolerance * np.abs(expected).max()
    )


def test_every_weight_gets_a_gradient(model):
    # In inference: in training a batch norm takes the bias before it away.
    gradients = weight_gradients(model, inputs(), training=False)
    assert len(gradients) == len(model.trainable_variables)
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        assert np.abs(gradient).max() > 1e-6, path


def test_training_moves_averages_and_singular_vectors_only(model):
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    copy(inputs(), training=True)
    for old, new in zip(model.weights, copy.weights, strict=True):
        assert old.path == new.path
        moved = not np.array_equal(to_numpy(old), to_numpy(new))
        assert moved == (not old.trainable), old.path


@pytest.mark.slow
def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "generator.keras")
    loaded = keras.saving.load_model(tmp_path / "generator.keras")
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    np.testing.assert_allclose(
        run(loaded, inputs()), run(model, inputs()), atol=1e-6
    )


@pytest.mark.parametrize("official", [False, True])
def test_official_constants(official):
    model = make(official=official, kernel_initializer="zeros")
    attention = model.get_layer("attention")
    for layer in (model.get_layer("dense"), model.get_layer("block1_conv2")):
        assert layer.only_shrink == official
        assert layer.iterate_at_inference == official
    assert not attention.theta.only_shrink
    assert attention.theta.iterate_at_inference == official
    assert attention.alignment == ("tiled" if official else "spatial")
    for name in ("norm", "block2_norm1"):
        assert model.get_layer(name).momentum == (0.999 if official else 0.99)
        assert model.get_layer(name).epsilon == 1e-3


@counts_once
def test_start():
    """Orthogonal kernels of one shape that differ; a closed gate."""
    model = generator(32, 4, None, 5)
    first, second = (
        to_numpy(model.get_layer(f"block{n}_conv2").layer.kernel)
        for n in (1, 2)
    )
    assert np.abs(first - second).max() > 0.01
    first = first.reshape(-1, 16)
    np.testing.assert_allclose(first.T @ first, np.eye(16), atol=1e-5)
    assert float(to_numpy(model.get_layer("attention").sigma)) == 0


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"image_size": 48}, r"one of \[32, 64, 128, 256\].*image_size=48"),
        ({"width": 0}, "width must be a positive integer.*width=0"),
        ({"num_classes": 0}, "num_classes must be a positive.*num_classes=0"),
        ({"latent_size": -1}, "latent_size must be a positive.*=-1"),
        ({"num_heads": 0}, "num_heads must be a positive.*num_heads=0"),
        ({"attention": "sparse"}, "attention must be one of.*'sparse'"),
        (
            {"image_size": 64, "attention_size": 4},
            r"one of \[8, 16, 32, 64\].*attention_size=4",
        ),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        generator(**arguments)


def test_initializer_may_be_a_function():
    def halves(shape, dtype=None):
        return 0.5 * keras.ops.ones(shape, dtype=dtype)

    model = make(kernel_initializer=halves)
    kernels = [v for v in model.weights if v.path.endswith("kernel")]
    assert len(kernels) > 10
    for kernel in kernels:
        np.testing.assert_array_equal(to_numpy(kernel), 0.5)
