"""KANet: its counts, its maps, saved outputs, and daily use.

`python -m tests.nets.test_kanet` writes tests/golden/kanet_tiny.npz anew.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import KANet, KANetSegmenter
from kanets.layers import KroneckerAttention
from kanets.nets import feature_maps
from kanets.nets.kanet import STAGES
from tests.backends import counts_once, to_numpy, weight_gradients
from tests.layer_checks import call_in_a_fresh_process, fill_weights

GOLDEN = Path(__file__).parent.parent / "golden" / "kanet_tiny.npz"
STRIDES = (2, 1, 2, 2, 1)
LITERAL = {
    "attention_scale": None,
    "attention_norm": False,
    "attention_activation": None,
}
VARIANTS = {
    "qkv": {},
    "kv": {"attention": "kao_kv"},
    "dense_pool": {"attention": "dense_pool"},
    "none": {"attention": None},
    "literal": LITERAL,
}


def pixels(*shape, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return values.astype("float32")


def make_tiny(input_shape=(32, 32, 3), **arguments):
    """The smallest KANet with filled weights; logits, not probabilities."""
    arguments = {"classifier_activation": None, "classes": 5, **arguments}
    model = KANet(input_shape, 0.25, strides=STRIDES, **arguments)
    fill_weights(model.weights)
    return model


def run(model, x):
    return to_numpy(model(x, training=False))


@pytest.fixture(scope="module")
def tiny():
    """Not to be changed by a test."""
    return make_tiny()


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def batch_norm_weights(model):
    return count(
        v
        for v in model.trainable_variables
        if v.path.endswith(("/gamma", "/beta"))
    )


def cells(tensor):
    return tensor.shape[1] * tensor.shape[2]


def multiply_adds(model):
    """Products of kernels and of attention; batch normalisation folds away."""
    total = 0
    for layer in model.layers:
        before, after = layer.input, layer.output
        if isinstance(layer, keras.layers.Dense):
            total += count([layer.kernel])
        elif isinstance(
            layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D
        ):
            total += count([layer.kernel]) * cells(after)
        elif isinstance(layer, KroneckerAttention):
            total += attention_multiply_adds(layer, before)
        elif layer.name.startswith("stage"):
            if layer.expand is not None:
                total += count([layer.expand.kernel]) * cells(before)
            kernels = [layer.depthwise.kernel, layer.project.kernel]
            total += count(kernels) * cells(after)
            if getattr(layer, "attention", None) is not None:
                total += attention_multiply_adds(layer.attention, before)
    return total


def attention_multiply_adds(attention, maps):
    _, height, width, channels = maps.shape
    everywhere, tokens = height * width, height + width
    queries, keys = {
        "kv": (everywhere, tokens),
        "qkv": (tokens, tokens),
        None: (everywhere, everywhere),
    }[getattr(attention, "mode", None)]
    values = count(attention.weights) * keys
    return 2 * queries * keys * channels + values


@pytest.mark.thorough
def test_local_sparse_attention(tmp_path):
    """KANet(attention="ylg"): every weight learns, and it loads elsewhere."""
    model = make_tiny(attention="ylg")
    x = pixels(2, 32, 32, 3)
    kinds = {
        type(layer.attention).__name__
        for layer in model.layers
        if getattr(layer, "attention", None) is not None
    }
    assert kinds == {"LocalSparseAttention2D"}
    for path, gradient in weight_gradients(model, x).items():
        assert np.abs(gradient).max() > 0, path
    path = tmp_path / "model.keras"
    model.save(path)
    expected = run(model, x)
    found = call_in_a_fresh_process(path, x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="known height and width"):
        make_tiny((None, None, 3), attention="ylg")


@counts_once
@pytest.mark.parametrize(
    ("arguments", "parameters", "norms", "millions"),
    [
        # 3.449 M without the scale and shift of the norms.
        (LITERAL, 3_479_272, 29_824, 281.1),
        ({}, 3_481_192, 31_744, 281.1),
        pytest.param(
            *({"attention": "kao_kv"}, 3_481_192, 31_744, 288.4),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *({"attention": "dense"}, 3_481_192, 31_744, 365.4),
            marks=pytest.mark.thorough,
        ),
        ({"attention": None}, 3_226_344, 29_824, 264.9),
    ],
    ids=["literal", "qkv", "kv", "dense", "none"],
)
def test_counts_at_full_size(arguments, parameters, norms, millions):
    model = KANet(**arguments)
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert count(model.trainable_variables) == parameters
    # Moving means and variances are as many.
    assert count(model.non_trainable_variables) == norms
    assert batch_norm_weights(model) == norms
    assert abs(multiply_adds(model) / 1e6 - millions) < 0.2
    maps = {name: t.shape[1:] for name, t in feature_maps(model).items()}
    assert maps == {
        "level1": (112, 112, 16),
        "level2": (56, 56, 24),
        "level3": (28, 28, 32),
        "level4": (14, 14, 96),
        "level5": (7, 7, 320),
    }
    assert model.get_layer("head_conv").output.shape == (None, 7, 7, 1280)


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        (STRIDES, (16, 16, 8, 4, 4)),
        ((1, 2, 1, 2, 2), (32, 16, 16, 8, 4)),
        ((2, 1, 1, 2, 2), (16, 16, 16, 8, 4)),
    ],
    ids=str,
)
def test_feature_maps_follow_the_strides(strides, sizes):
    model = KANet((32, 32, 3), 0.25, classes=5, strides=strides)
    maps = feature_maps(model)
    assert list(maps) == [f"level{n}" for n in range(1, 6)]
    assert tuple(t.shape[1] for t in maps.values()) == sizes
    channels = tuple(t.shape[-1] for t in maps.values())
    assert channels == (8, 8, 8, 24, 80)


def test_feature_maps_make_a_pyramid(tiny):
    pyramid = keras.Model(tiny.input, feature_maps(tiny))
    maps = pyramid(pixels(2, 32, 32, 3), training=False)
    assert maps["level4"].shape == (2, 4, 4, 24)
    # Each level is what the next layer of stride 2 receives, or the head.
    for level, reader in enumerate(
        ("stage2_block1", "stage3_block1", "stage5_block1", "stage8_block1"),
        start=1,
    ):
        expected = tiny.get_layer(reader).input
        assert feature_maps(tiny)[f"level{level}"] is expected
    expected = tiny.get_layer("head_conv").input
    assert feature_maps(tiny)["level5"] is expected
    names = [layer.name for layer in tiny.layers]
    assert names[:5] == [
        "pixels",
        "preprocessing",
        "stem_conv",
        "stem_bn",
        "stem_relu6",
    ]
    assert names[5:-5] == [
        f"stage{number}_block{block}"
        for number, (_, _, _, repeats, _) in enumerate(STAGES, start=1)
        for block in range(1, repeats + 1)
    ]
    assert names[-5:] == [
        "head_conv",
        "head_bn",
        "head_relu6",
        "pool",
        "predictions",
    ]


@pytest.mark.parametrize(
    ("strides", "output_stride", "expected"),
    [
        # Of stages 2, 3, 5 and 8: stride; then dilation of the first block
        # of stages 5, 6, 8, 9 and 10.
        ((2, 2, 2, 2, 2), None, ((2, 2, 2, 2), (1, 1, 1, 1, 1))),
        ((2, 2, 2, 2, 2), 16, ((2, 2, 2, 1), (1, 1, 1, 2, 2))),
        ((2, 2, 2, 2, 2), 8, ((2, 2, 1, 1), (1, 2, 2, 4, 4))),
        pytest.param(
            *((1, 2, 2, 2, 2), 8, ((2, 2, 2, 1), (1, 1, 1, 2, 2))),
            marks=pytest.mark.thorough,
        ),
        ((2, 1, 2, 2, 1), 8, ((1, 2, 2, 1), (1, 1, 1, 1, 1))),
    ],
    ids=str,
)
def test_output_stride_turns_strides_into_dilation(
    strides, output_stride, expected
):
    model = KANet(
        (32, 32, 3), 0.25, strides=strides, output_stride=output_stride
    )
    blocks = [f"stage{n}_block1" for n in (2, 3, 5, 8)]
    found = tuple(model.get_layer(name).strides for name in blocks)
    blocks = [f"stage{n}_block1" for n in (5, 6, 8, 9, 10)]
    dilations = tuple(model.get_layer(name).dilation_rate for name in blocks)
    assert (found, dilations) == expected
    for block in ("stage6_block3", "stage7_block3"):
        assert model.get_layer(block).dilation_rate == dilations[1]
    assert model.get_layer("stage9_block2").dilation_rate == dilations[3]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_net_holds_the_maps_of_the_strided_one(output_stride):
    """Between the cells of the strided net come others; without attention,
    which sees them all, the former stay. Odd sizes keep the cells aligned."""
    x = pixels(2, 65, 33, 3)
    maps = []
    for stride in (None, output_stride):
        model = KANet((65, 33, 3), 0.25, attention=None, output_stride=stride)
        fill_weights(model.weights)
        paths = {v.path: tuple(v.shape) for v in model.weights}
        maps.append(
            run(keras.Model(model.input, feature_maps(model)["level5"]), x)
        )
        if stride is None:
            expected_paths = paths
    assert paths == expected_paths
    step = 32 // output_stride
    assert maps[0].shape[1:3] == (3, 2)
    assert maps[1].shape[1:3] == (2 * step + 1, step + 1)
    largest = np.abs(maps[0]).max()
    assert largest > 1
    np.testing.assert_allclose(
        maps[1][:, ::step, ::step], maps[0], atol=1e-4 * largest
    )


def test_an_output_stride_that_is_reached_changes_nothing(tiny):
    x = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(
        run(make_tiny(output_stride=8), x), run(tiny, x)
    )


@pytest.mark.parametrize(
    ("alpha", "channels"),
    [
        (0.35, (16, 8, 8, 16, 24, 32, 112, 1280)),
        (1.4, (48, 24, 32, 48, 88, 136, 448, 1792)),
    ],
)
def test_widths_are_mobilenets(alpha, channels):
    model = KANet((32, 32, 3), alpha, include_top=False, attention=None)
    names = ["stem_conv", *(f"stage{n}_block1" for n in (1, 2, 3, 5, 7, 10))]
    shapes = [model.get_layer(name).output.shape for name in names]
    shapes.append(model.output.shape)
    assert tuple(shape[-1] for shape in shapes) == channels


def tiny_outputs(variant):
    x = pixels(2, 32, 32, 3)
    model = make_tiny(**VARIANTS[variant])
    maps = keras.Model(model.input, feature_maps(model)["level4"])
    return {"logits": run(model, x), "level4": run(maps, x)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_outputs(variant):
    golden = np.load(GOLDEN)
    for name, actual in tiny_outputs(variant).items():
        expected = golden[f"{variant}_{name}"]
        largest = np.abs(expected).max()
        assert largest > 1
        np.testing.assert_allclose(actual, expected, atol=1e-4 * largest)


def test_variants_differ():
    golden = np.load(GOLDEN)
    logits = [golden[f"{variant}_logits"] for variant in VARIANTS]
    for index, one in enumerate(logits):
        for other in logits[index + 1 :]:
            assert np.abs(one - other).max() > 0.01


def test_preprocessing_maps_pixels_to_minus_one_and_one(tiny):
    x = pixels(2, 32, 32, 3)
    bare = make_tiny(include_preprocessing=False)
    np.testing.assert_allclose(
        run(bare, x / 127.5 - 1), run(tiny, x), atol=5e-4
    )
    assert "preprocessing" not in [layer.name for layer in bare.layers]


def test_probabilities_and_logits(tiny):
    x = pixels(2, 32, 32, 3)
    logits = run(tiny, x)
    probabilities = run(make_tiny(classifier_activation="softmax"), x)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_without_top(tiny):
    x = pixels(2, 32, 32, 3)
    maps = run(make_tiny(include_top=False), x)
    assert maps.shape == (2, 4, 4, 1280)
    for pooling, expected in (
        ("avg", maps.mean((1, 2))),
        ("max", maps.max((1, 2))),
    ):
        model = make_tiny(include_top=False, pooling=pooling)
        np.testing.assert_allclose(run(model, x), expected, atol=1e-5)
    kernel, bias = (to_numpy(w) for w in tiny.get_layer("predictions").weights)
    np.testing.assert_allclose(
        maps.mean((1, 2)) @ kernel + bias, run(tiny, x), atol=1e-4
    )


def test_input_tensor(tiny):
    x = pixels(2, 32, 32, 3)
    inputs = keras.Input((32, 32, 3))
    flipped = keras.ops.flip(inputs, axis=2)
    for tensor, given in ((inputs, x), (flipped, x[:, :, ::-1])):
        model = make_tiny(None, input_tensor=tensor)
        assert model.inputs[0] is inputs
        np.testing.assert_allclose(run(model, given), run(tiny, x), atol=1e-5)


def test_open_sizes_and_rectangles(tiny):
    model = make_tiny((None, None, 3))
    assert feature_maps(model)["level5"].shape == (None, None, None, 80)
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(run(model, x), run(tiny, x), atol=1e-5)
    x = pixels(2, 24, 47, 3)
    rectangle = make_tiny((24, 47, 3))
    maps = feature_maps(rectangle)
    assert maps["level3"].shape == (None, 6, 12, 8)
    np.testing.assert_allclose(run(model, x), run(rectangle, x), atol=1e-5)


@pytest.mark.thorough
def test_weights_from_a_file(tiny, tmp_path):
    path = tmp_path / "tiny.weights.h5"
    tiny.save_weights(path)
    model = KANet(
        (32, 32, 3),
        0.25,
        weights=path,
        classes=5,
        classifier_activation=None,
        strides=STRIDES,
    )
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(run(model, x), run(tiny, x), atol=1e-6)


def test_dropout_before_the_classifier(tiny):
    model = make_tiny(dropout_rate=0.5)
    assert model.layers[-2].rate == 0.5
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(run(model, x), run(tiny, x), atol=1e-6)
    assert "dropout" not in [layer.name for layer in tiny.layers]


def test_mixed_precision(tiny, policy):
    policy("mixed_bfloat16")
    model = make_tiny()
    assert model.get_layer("stage6_block1").compute_dtype == "bfloat16"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    x = pixels(2, 32, 32, 3)
    logits = model(x, training=False)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    expected = run(tiny, x)
    spread = np.abs(expected).max()
    np.testing.assert_allclose(to_numpy(logits), expected, atol=0.1 * spread)


def test_every_weight_gets_a_gradient():
    model = make_tiny()
    gradients = weight_gradients(model, pixels(4, 32, 32, 3), training=True)
    assert len(gradients) == len(model.trainable_variables)
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        # The head normalises at once what that one adds.
        seen = path != "stage10_block1/project_bn/beta"
        assert (np.abs(gradient).max() > 1e-4) == seen, path


@pytest.mark.thorough
def test_steps_of_training_lower_the_loss():
    model = make_tiny()
    model.compile(
        keras.optimizers.SGD(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = pixels(8, 32, 32, 3), np.arange(8) % 5
    losses = [float(model.train_on_batch(x, y)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


def two_heads():
    return KroneckerAttention(mode="kv", num_heads=2, scale="rsqrt")


@pytest.mark.thorough
def test_a_callable_makes_the_attention(tmp_path):
    model = make_tiny(attention=two_heads)
    layers = [
        layer.attention
        for layer in model.layers
        if getattr(layer, "attention", None) is not None
    ]
    assert len({id(layer) for layer in layers}) == len(layers) == 10
    assert all(layer.num_heads == 2 for layer in layers)
    x = pixels(2, 32, 32, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(run(loaded, x), run(model, x), atol=1e-6)


@pytest.mark.thorough
def test_loads_in_a_fresh_process(tiny, tmp_path):
    path, x = tmp_path / "model.keras", pixels(2, 32, 32, 3)
    tiny.save(path)
    actual = call_in_a_fresh_process(path, x)
    np.testing.assert_allclose(actual, run(tiny, x), atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"input_shape": (32, 32)},
            r"with None for an open size. Received: input_shape=\(32, 32\)",
        ),
        (
            {"input_shape": (32, 32, None)},
            r"Received: input_shape=\(32, 32, None\)",
        ),
        ({"alpha": 0}, "alpha must be a positive number. Received: alpha=0"),
        ({"input_shape": (0, 32, 3)}, r"Received: input_shape=\(0, 32, 3\)"),
        ({"alpha": "0.5"}, "a positive number. Received: alpha='0.5'"),
        ({"alpha": float("inf")}, "Received: alpha=inf"),
        ({"dropout_rate": "a"}, "from 0 to 1. Received: dropout_rate='a'"),
        ({"dropout_rate": 1.5}, "Received: dropout_rate=1.5"),
        (
            {"attention": {"name": "linear", "output_channels": 5}},
            r"must keep the shape. Received: .*5\) of \(None, ",
        ),
        (
            {"attention": {"name": "linear", "kernel_sizes": 5}},
            "a list of odd positive integers. Received: kernel_sizes=5",
        ),
        (
            {"attention": {"name": "ylg", "patterns": 5}},
            "a list of pattern names. Received: patterns=5",
        ),
        (
            {"attention": {"name": "kao_kv", "scale": float("nan")}},
            "or a number. Received: scale=nan",
        ),
        (
            {"pooling": "mean", "include_top": False},
            'None, "avg" or "max". Received: pooling=\'mean\'',
        ),
        (
            {"classes": 0},
            "classes must be a positive integer. Received: classes=0",
        ),
        ({"classes": 2.0}, "Received: classes=2.0"),
        (
            {"strides": (2, 2, 2)},
            r"strides must be five numbers.*Received: strides=\(2, 2, 2\)",
        ),
        (
            {"strides": (2, 2, 2, 2, 4)},
            r"Received: strides=\(2, 2, 2, 2, 4\)",
        ),
        (
            {"output_stride": 4},
            r"8 or 16 and a product .* Received: output_stride=4, strides=\(2",
        ),
        (
            {"output_stride": 16, "strides": STRIDES},
            r"Received: output_stride=16, strides=\(2, 1, 2, 2, 1\)",
        ),
        (
            {"attention": "kao"},
            "must be one of .*'kao_qkv'.* Received: attention='kao'",
        ),
        (
            {"attention": keras.layers.Identity()},
            "a new layer for each module, .* Received: attention=<Identity",
        ),
        ({"attention_scale": "sqrt"}, "Received: scale='sqrt'"),
        (
            {"input_tensor": np.zeros((1, 32, 32, 3))},
            "must be a Keras tensor.* Received: input_tensor=ndarray",
        ),
    ],
    ids=str,
)
def test_bad_input_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        KANet(**{"input_shape": (32, 32, 3), "alpha": 0.25, **arguments})


def test_feature_maps_of_another_model_is_an_error():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, inputs, name="other")
    with pytest.raises(
        ValueError,
        match="or another net of levels; a ViT .* Received: model='other'",
    ):
        feature_maps(model)


def write_golden():
    arrays = {
        f"{variant}_{name}": array
        for variant in VARIANTS
        for name, array in tiny_outputs(variant).items()
    }
    np.savez_compressed(GOLDEN, **arrays)


VERSION2 = {"version": 2, "strides": (1, 2, 2, 2, 1), "classes": 5}
VERSION2["classifier_activation"] = None
OF_TOKENS = {"name": "kao_rectified", "num_heads": 2, "key_dim": 8}


def test_version_2_starts_closed_and_opens():
    x = pixels(2, 24, 40, 3)
    shape = x.shape[1:]
    plain = KANet(shape, 0.25, attention=None, **VERSION2)
    fill_weights(plain.weights)
    model = KANet(shape, 0.25, attention=OF_TOKENS, **VERSION2)
    before = {layer.name: layer for layer in plain.layers}
    added = [layer for layer in model.layers if layer.name not in before]
    for layer in model.layers:
        if layer.name in before:
            layer.set_weights(before[layer.name].get_weights())
    np.testing.assert_array_equal(run(model, x), run(plain, x))
    opened = [layer for layer in added if layer.weights]
    assert [layer.name for layer in opened] == [
        f"stage{number}_attention" for number in (3, 4, 5)
    ]
    for layer in opened:
        fill_weights(layer.weights)
        assert np.abs(run(model, x) - run(plain, x)).max() > 1e-2
        layer.set_weights([0 * w for w in layer.get_weights()])


def test_version_2_has_the_levels_of_a_segmenter():
    model = KANet((32, 64, 3), 0.25, **VERSION2)
    maps = feature_maps(model).values()
    sides = [(32, 64), (16, 32), (8, 16), (4, 8), (4, 8)]
    assert [tuple(m.shape[1:3]) for m in maps] == sides
    body = KANet((64, 64, 3), 0.25, version=2)
    segmenter = KANetSegmenter((64, 64, 3), classes=4, backbone=body)
    assert segmenter.output_shape == (None, 64, 64, 4)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"version": 3}, "version must be 1 or 2. Received: version=3"),
        ({"output_stride": 8}, "output_stride is for version 1. Received"),
        ({"attention_norm": False}, "Received: attention_norm=False"),
        ({"attention": "kao"}, "kao_qkv"),
    ],
)
def test_version_2_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        KANet((32, 32, 3), **{"version": 2, **arguments})


if __name__ == "__main__":
    write_golden()
