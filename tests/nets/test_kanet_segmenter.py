"""KANetSegmenter: its counts, each of its parts in NumPy, and daily use."""

import inspect
import itertools

import keras
import numpy as np
import pytest

from kanets import (
    EfficientNetLite,
    KANet,
    create_model,
    feature_model,
    insert_attention,
)
from kanets.layers import KroneckerAttention
from kanets.nets import KANetSegmenter, MobileNetV4, feature_maps
from kanets.nets.backbones import OF_A_KANET, body_layers
from tests.backends import (
    compiled,
    counts_once,
    needs_tensorflow,
    to_numpy,
    weight_gradients,
)
from tests.layer_checks import call_in_a_fresh_process, fill_weights
from tests.layers.test_inverted_residual import depthwise, norm, relu6
from tests.layers.test_resize_like import interpolate
from tests.nets.test_kanet import count, multiply_adds, pixels, policy, run

__all__ = ["policy"]
STRIDES = (2, 1, 2, 2, 1)  # which reach 8


def make_tiny(input_shape=(None, None, 3), **arguments):
    """A small net with filled weights; logits, not probabilities."""
    arguments = {"classifier_activation": None, "classes": 5, **arguments}
    model = KANetSegmenter(input_shape, 0.25, aspp_channels=16, **arguments)
    fill_weights(model.weights)
    return model


@pytest.fixture(scope="module")
def tiny():
    """Of open size; not to be changed by a test."""
    return make_tiny()


def weights_of(model, layer):
    """Float64 arrays by path."""
    return {
        v.path: to_numpy(v).astype("float64")
        for v in model.get_layer(layer).weights
    }


def maps_of(model, x, *names):
    outputs = {name: model.get_layer(name).output for name in names}
    found = keras.Model(model.input, outputs)(x, training=False)
    return [to_numpy(found[name]).astype("float64") for name in names]


def normalised(model, x, layer):
    name = f"{layer}_bn"
    return relu6(norm(x, weights_of(model, name), name))


def conv_norm_relu6(model, x, layer):
    kernel = weights_of(model, f"{layer}_conv")[f"{layer}_conv/kernel"]
    return normalised(model, x @ kernel[0, 0], layer)


def separable(model, x, layer, rate=1):
    kernel = weights_of(model, f"{layer}_depthwise")
    x = depthwise(x, kernel[f"{layer}_depthwise/kernel"], rate=rate)
    x = normalised(model, x, f"{layer}_depthwise")
    return conv_norm_relu6(model, x, layer)


@counts_once
@pytest.mark.parametrize(
    ("alpha", "output_stride", "attention", "parameters", "millions"),
    [
        (1.0, 16, "kao_qkv", 2_693_061, 2_889.0),
        (1.0, 16, None, 2_627_269, 2_883.9),
        (0.5, 8, "kao_kv", 703_581, 2_048.6),
        pytest.param(
            *(1.0, 8, "kao_qkv", 2_693_061, 7_454.5), marks=pytest.mark.thorough
        ),
        pytest.param(
            *(0.5, 16, "kao_qkv", 703_581, 803.6), marks=pytest.mark.thorough
        ),
    ],
)
def test_counts_at_360x480(
    alpha, output_stride, attention, parameters, millions
):
    model = KANetSegmenter(
        (360, 480, 3), alpha, output_stride=output_stride, attention=attention
    )
    assert model.output_shape == (None, 360, 480, 21)
    assert count(model.trainable_variables) == parameters
    assert abs(multiply_adds(model) / 1e6 - millions) < 0.1
    last = feature_maps(model)["level5"].shape[1:3]
    assert last == (-(-360 // output_stride), -(-480 // output_stride))


@counts_once
def test_names():
    model, body = make_tiny(), KANet((32, 32, 3), 0.25, include_top=False)
    names = [layer.name for layer in model.layers]
    expected = [layer.name for layer in body.layers if "head" not in layer.name]
    assert [name for name in names if name in expected] == expected
    for part in (
        *("aspp_1x1", "aspp_dilated1", "aspp_dilated2", "aspp_dilated3"),
        *("aspp_pool", "aspp_project", "decoder_level2", "decoder"),
    ):
        parts = {f"{part}_conv", f"{part}_bn", f"{part}_relu6"}
        assert parts <= set(names)
    rest = {name for name in names if name not in expected}
    assert {n for n in rest if not n.startswith(("aspp", "decoder"))} == {
        *("attention", "attention_gate", "attention_add"),
        *("dropout", "predictions", "predictions_resize"),
        "classifier_activation",
    }
    assert len(names) == len(set(names))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))]
)
def test_the_pyramid_in_numpy(output_stride, rates):
    model = make_tiny(output_stride=output_stride)
    size = (14 * output_stride, 13 * output_stride + 1)
    x, found = maps_of(
        model, pixels(1, *size, 3), "stage10_block1", "aspp_project_relu6"
    )
    assert x.shape[1:3] == (14, 14)
    assert tuple(
        model.get_layer(f"aspp_dilated{number}_depthwise").dilation_rate
        for number in (1, 2, 3)
    ) == tuple((rate, rate) for rate in rates)
    pooled = conv_norm_relu6(model, x.mean((1, 2), keepdims=True), "aspp_pool")
    branches = [
        conv_norm_relu6(model, x, "aspp_1x1"),
        *(
            separable(model, x, f"aspp_dilated{number}", rate)
            for number, rate in enumerate(rates, start=1)
        ),
        np.broadcast_to(pooled, (1, 14, 14, 16)),
    ]
    expected = np.concatenate(branches, -1)
    expected = conv_norm_relu6(model, expected, "aspp_project")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std((0, 1, 2)).max() > 0.1


def test_attention_and_decoder_in_numpy(tiny):
    x = pixels(2, 45, 62, 3)
    pyramid, attention, attended, level2, found = maps_of(
        tiny,
        x,
        "aspp_project_relu6",
        "attention",
        "attention_add",
        "stage2_block2",
        "classifier_activation",
    )
    layer = tiny.get_layer("attention")
    assert (layer.mode, layer.scale) == ("qkv", "rsqrt")
    [gate] = tiny.get_layer("attention_gate").weights
    expected = pyramid + to_numpy(gate)[0, 0, :, 0] * attention
    np.testing.assert_allclose(attended, expected, atol=1e-5)
    assert np.abs(attended - pyramid).max() > 0.1

    assert level2.shape[1:3] == (12, 16)
    fine = conv_norm_relu6(tiny, level2, "decoder_level2")
    assert fine.shape[-1] == 16  # 48 * 0.25 = 12, a multiple of 8 near it
    joined = np.concatenate([interpolate(attended, (12, 16)), fine], -1)
    joined = separable(tiny, joined, "decoder")
    kernel, bias = tiny.get_layer("predictions").weights
    logits = joined @ to_numpy(kernel)[0, 0] + to_numpy(bias)
    expected = interpolate(logits, (45, 62))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("training", [False, True])
def test_it_starts_without_attention(training):
    model = KANetSegmenter((33, 41, 3), 0.25, classes=5)
    names = ("aspp_project_relu6", "attention_add")
    outputs = [model.get_layer(name).output for name in names]
    before, after = keras.Model(model.input, outputs)(
        pixels(2, 33, 41, 3), training=training
    )
    np.testing.assert_array_equal(to_numpy(before), to_numpy(after))


@pytest.mark.thorough
def test_probabilities_and_logits(tiny):
    x = pixels(2, 33, 41, 3)
    logits = run(tiny, x)
    assert logits.shape == (2, 33, 41, 5)
    model = make_tiny(classifier_activation="softmax")
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(run(model, x), expected, atol=1e-4)
    # A picture does not depend on its batch.
    np.testing.assert_allclose(run(tiny, x[1:]), logits[1:], atol=1e-4)


@pytest.mark.thorough
def test_open_and_known_sizes(tiny):
    assert tiny.output_shape == (None, None, None, 5)
    x = pixels(1, 7, 19, 3)
    known = make_tiny((7, 19, 3))
    assert known.output_shape == (None, 7, 19, 5)
    np.testing.assert_allclose(run(tiny, x), run(known, x), atol=1e-4)
    x = pixels(2, 21, 35, 3)
    found = tiny.predict(x, verbose=0)
    np.testing.assert_allclose(found, run(tiny, x), atol=1e-4)


@pytest.mark.thorough
@needs_tensorflow
def test_a_graph_of_open_sizes(tiny):
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    function = tf.function(tiny, input_signature=[spec])
    for size in ((32, 48), (33, 41)):
        x = pixels(2, *size, 3)
        np.testing.assert_allclose(function(x), run(tiny, x), atol=1e-4)


@pytest.mark.thorough
def test_compiled(tiny):
    x = pixels(2, 33, 41, 3)
    found = compiled(lambda t: tiny(t, training=False))(x)
    np.testing.assert_allclose(to_numpy(found), run(tiny, x), atol=1e-3)


@pytest.mark.thorough
def test_weights_do_not_depend_on_the_output_stride(tiny):
    fine = make_tiny(output_stride=8)
    assert [(v.path, v.shape) for v in fine.weights] == [
        (v.path, v.shape) for v in tiny.weights
    ]
    x = pixels(1, 65, 65, 3)
    assert feature_maps(fine)["level5"].shape == (None, None, None, 80)
    sizes = [maps_of(m, x, "stage10_block1")[0].shape[1] for m in (fine, tiny)]
    assert sizes == [9, 5]
    assert np.abs(run(fine, x) - run(tiny, x)).max() > 0.01


def test_weights_from_a_backbone():
    backbone = KANet((32, 32, 3), 0.25, classes=3, strides=STRIDES)
    fill_weights(backbone.weights)
    arguments = {"output_stride": 8, "strides": STRIDES}
    model = KANetSegmenter(None, 0.25, 5, backbone=backbone, **arguments)
    fresh = KANetSegmenter(None, 0.25, 5, **arguments)
    x = pixels(2, 32, 32, 3)
    expected, maps, other = (
        keras.Model(net.input, feature_maps(net))(x, training=False)
        for net in (backbone, model, fresh)
    )
    assert list(maps) == [f"level{number}" for number in range(1, 6)]
    for level in maps:
        values = to_numpy(expected[level])
        np.testing.assert_allclose(to_numpy(maps[level]), values, atol=1e-4)
        assert np.abs(to_numpy(other[level]) - values).max() > 0.01
    # Copied, not shared.
    model.get_layer("stem_conv").kernel.assign(
        0 * model.get_layer("stem_conv").kernel
    )
    assert np.abs(to_numpy(backbone.get_layer("stem_conv").kernel)).max() > 0
    assert len(body_layers(model)) > 10
    assert all(layer.trainable for layer in body_layers(model))
    backbone.trainable = False
    model = KANetSegmenter(None, 0.25, 5, backbone=backbone, **arguments)
    weights = [x for x in body_layers(model) if x.weights]
    assert weights and not any(layer.trainable for layer in weights)
    assert model.trainable_weights


def two_heads():
    return KroneckerAttention(mode="kv", num_heads=2, name="attention")


@pytest.mark.parametrize(
    ("attention", "kind"),
    [
        ("ylg", "LocalSparseAttention2D"),
        (two_heads, "KroneckerAttention"),
        (None, None),
        pytest.param(
            *("kao_kv", "KroneckerAttention"), marks=pytest.mark.thorough
        ),
        pytest.param(
            *("dense_pool", "DenseAttention"), marks=pytest.mark.thorough
        ),
    ],
)
def test_attentions(attention, kind):
    model = make_tiny((33, 41, 3), attention=attention, strides=(1, 2, 2, 2, 2))
    layers = {layer.name: layer for layer in model.layers}
    if kind is None:
        assert not any("attention" in name for name in layers)
        assert layers["decoder_resize"].input[0] is (
            layers["aspp_project_relu6"].output
        )
    else:
        assert type(layers["attention"]).__name__ == kind
        assert "attention_add" in layers
    assert np.all(np.isfinite(run(model, pixels(1, 33, 41, 3))))


@counts_once
def test_arguments(tiny):
    x = pixels(1, 32, 32, 3)
    bare = make_tiny(include_preprocessing=False, dropout_rate=0.0)
    np.testing.assert_allclose(
        run(bare, x / 127.5 - 1), run(tiny, x), atol=1e-3
    )
    names = [layer.name for layer in bare.layers]
    assert "preprocessing" not in names and "dropout" not in names
    assert tiny.get_layer("dropout").rate == 0.1
    other = KANetSegmenter(None, 0.35, backbone_attention="kao_kv", name="mine")
    assert other.name == "mine" and other.output_shape[-1] == 21
    assert other.get_layer("stage4_block1").attention.mode == "kv"
    # 256 * 0.35 = 89.6, 48 * 0.35 = 16.8
    channels = [
        other.get_layer(f"{name}_conv").filters
        for name in ("aspp_1x1", "aspp_project", "decoder", "decoder_level2")
    ]
    assert channels == [88, 88, 88, 16]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 0.2), ("float16", 0.06)]
)
def test_mixed_precision(tiny, policy, dtype, tolerance):
    policy(f"mixed_{dtype}")
    model = make_tiny()
    for name in ("stage6_block1", "aspp_dilated1_depthwise", "attention"):
        assert model.get_layer(name).compute_dtype == dtype
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    x = pixels(2, 33, 41, 3)
    logits = model(x, training=False)
    for name in ("predictions", "predictions_resize", "classifier_activation"):
        assert model.get_layer(name).output.dtype == "float32"
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    expected = run(tiny, x)
    tolerance *= np.abs(expected).max()
    np.testing.assert_allclose(to_numpy(logits), expected, atol=tolerance)


def test_every_weight_gets_a_gradient():
    model = make_tiny(dropout_rate=0.0)
    # So large that the pyramid's taps reach from one side to the other: what
    # is the same everywhere, the norms take away again.
    gradients = weight_gradients(model, pixels(2, 113, 128, 3), training=True)
    assert len(gradients) == len(model.trainable_variables)
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        assert np.abs(gradient).max() > 1e-4, path


@pytest.mark.thorough
def test_steps_of_training_lower_the_loss():
    model = make_tiny()
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = pixels(4, 33, 41, 3)
    y = (x[..., 0] > 127).astype("int32")
    losses = [float(model.train_on_batch(x, y)) for _ in range(4)]
    assert all(one > other for one, other in itertools.pairwise(losses))


@pytest.mark.thorough
def test_loads_in_a_fresh_process(tiny, tmp_path):
    path, x = tmp_path / "model.keras", pixels(2, 33, 41, 3)
    tiny.save(path)
    found = call_in_a_fresh_process(path, x)
    np.testing.assert_allclose(found, run(tiny, x), atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"output_stride": None},
            "output_stride must be 8 or 16. Received: output_stride=None",
        ),
        ({"output_stride": 32}, "Received: output_stride=32, strides="),
        ({"strides": STRIDES}, r"output_stride=16, strides=\(2, 1, 2, 2, 1\)"),
        ({"classes": 0}, "positive integer. Received: classes=0"),
        ({"alpha": 0}, "alpha must be a positive number. Received: alpha=0"),
        ({"aspp_channels": 0}, "filters.*Received filters=0"),
        (
            {"attention": "kao"},
            "must be one of .*'kao_qkv'.* Received: attention='kao'",
        ),
        (
            {"backbone_attention": keras.layers.Identity()},
            "a new layer for each module, .* Received: attention=<Identity",
        ),
        (
            {"backbone": "kanet_qkv_cifar10"},
            r"whose layer 'stem_conv' has \(3, 3, 3, 16\), not \(3, 3, 3, 8",
        ),
        ({"backbone": 3}, "a name or a keras.Model. Received: backbone=3"),
        ({"backbone": "efficientnet_lite_0"}, "Nearest: efficientnet_lite0"),
    ],
    ids=str,
)
def test_bad_input_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        KANetSegmenter(**{"alpha": 0.25, **arguments})


@counts_once
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"alpha": 0.5},
            r"layer 'stem_conv' has \(3, 3, 3, 16\), not \(3, 3, 3, 8\)",
        ),
        (
            {"attention": "kao_kv"},
            "layer 'stage4_block1' has kao_kv, not kao_qkv",
        ),
        (
            {"attention": None},
            "layer 'stage4_block1' has None, not kao_qkv",
        ),
        ({"attention_scale": None}, "'stage4_block1' has None, not rsqrt"),
        ({"attention_activation": None}, "has linear, not relu6"),
        (
            {"attention_norm": False},
            r"backbone='kanet', whose layer 'stage4_block1' has \(1, 1, 8, 40",
        ),
    ],
    ids=str,
)
def test_a_backbone_that_differs_is_refused(arguments, text):
    arguments = {"alpha": 0.25, "include_top": False, **arguments}
    backbone = KANet((32, 32, 3), **arguments)
    with pytest.raises(ValueError, match=f"this alpha.* Received: .*{text}"):
        KANetSegmenter(alpha=0.25, backbone=backbone)


def test_a_backbone_with_inserted_attention_is_refused():
    plain = KANet((32, 32, 3), alpha=0.25, include_top=False)
    backbone = insert_attention(plain, "stage4_block1", "kao_kv")
    text = "layers alone; .* with a layer 'stage4_block1_attention_norm'"
    with pytest.raises(ValueError, match=text):
        KANetSegmenter(alpha=0.25, backbone=backbone)


def test_a_backbone_of_another_net_is_refused():
    inputs = keras.Input((32, 32, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs), name="other")
    text = "a dict with the maps level2 and level5. Received: backbone='other'"
    with pytest.raises(ValueError, match=text):
        KANetSegmenter(alpha=0.25, backbone=other)
    body = {"level2": inputs, "level4": other.output}
    with pytest.raises(ValueError, match=text):
        KANetSegmenter(backbone=keras.Model(inputs, body, name="other"))


def light(**arguments):
    arguments = {"variant": "lite0", "attention": "kao_kv", **arguments}
    model = EfficientNetLite((48, 64, 3), classes=3, **arguments)
    fill_weights(model.weights)
    return model


def levels_of(model, x):
    maps = keras.Model(model.input, feature_maps(model))(x, training=False)
    return {level: to_numpy(value) for level, value in maps.items()}


@pytest.mark.parametrize(
    "output_stride", [8, pytest.param(16, marks=pytest.mark.thorough)]
)
def test_a_light_body_is_dilated(output_stride):
    backbone = light()
    dilated = light(output_stride=output_stride)
    model = KANetSegmenter(
        None, 0.25, 5, backbone=backbone, output_stride=output_stride
    )
    assert model.output_shape == (None, None, None, 5)
    x = pixels(2, 48, 64, 3)
    expected, found = levels_of(dilated, x), levels_of(model, x)
    assert expected["level5"].shape[1] == 48 // output_stride
    assert list(found) == list(expected)
    for level, values in expected.items():
        np.testing.assert_allclose(found[level], values, atol=1e-4)
        assert values.std() > 0.01
    # Copied, not shared, and the body alone.
    kernel = model.get_layer("stem").kernel
    assert kernel is not backbone.get_layer("stem").kernel
    names = {layer.name for layer in body_layers(model)}
    theirs = {layer.name for layer in backbone.layers}
    assert names - {"pixels"} < theirs and "block_15_project_norm" in names
    others = {layer.name for layer in model.layers} - names
    assert {n.split("_")[0] for n in others} == {
        *("aspp", "attention", "decoder", "dropout", "predictions"),
        "classifier",
    }


def padded_on_one_side():
    """Levels of a net that pads before strides, and below and right alone."""
    net = keras.applications.MobileNetV2(
        (64, 96, 3), 0.35, include_top=False, weights=None
    )
    ends = {"level2": "block_2_add", "level5": "block_16_project_BN"}
    maps = {level: net.get_layer(name).output for level, name in ends.items()}
    return keras.Model(net.input, maps)


@pytest.mark.parametrize(
    "make, first, last",
    [
        (lambda: MobileNetV4((64, 96, 3)), 0, "block_16_norm"),
        pytest.param(
            padded_on_one_side,
            1,
            "block_16_project_BN",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_every_second_cell_of_a_dilated_body_is_as_it_was(make, first, last):
    backbone = make()
    fill_weights(backbone.weights)
    model = KANetSegmenter(None, 0.25, 2, backbone=backbone)
    x = pixels(2, 64, 96, 3)
    [found] = maps_of(model, x, last)
    [expected] = maps_of(backbone, x, last)
    assert (expected.shape[1:3], found.shape[1:3]) == ((2, 3), (4, 6))
    np.testing.assert_allclose(
        found[:, first::2, first::2], expected, rtol=1e-4, atol=1e-4
    )
    assert expected.std() > 0.01


@pytest.mark.thorough
def test_a_body_that_is_dilated_already():
    found = [
        KANetSegmenter(None, 0.25, 5, backbone=b, output_stride=8).get_config()
        for b in (light(), light(output_stride=16), feature_model(light()))
    ]
    of_layers = [
        [(x["name"], x["config"]) for x in config["layers"]] for config in found
    ]
    for pair in zip(*of_layers, strict=True):
        (name, first), *others = pair
        first.pop("dtype", None)
        for other_name, other in others:
            other.pop("dtype", None)
            assert (other_name, other) == (name, first)


def test_a_feature_model_as_a_body():
    inputs = keras.Input((None, None, 3))
    x = level2 = keras.layers.Conv2D(8, 3, 4, "same", name="one")(inputs)
    x = keras.layers.Conv2D(8, 3, 4, "same", name="two")(x)
    body = keras.Model(inputs, {"level2": level2, "level5": x}, name="mine")
    model = KANetSegmenter(None, 0.25, 5, backbone=body)
    picture = pixels(1, 33, 50, 3)
    expected = body(picture)
    for name, level in (("one", "level2"), ("two", "level5")):
        [found] = maps_of(model, picture, name)
        np.testing.assert_allclose(found, to_numpy(expected[level]), atol=1e-4)
    assert model(picture).shape == (1, 33, 50, 5)
    assert body.get_layer("one") is not model.get_layer("one")
    for shape in (None, (64, 96, 3)):
        with pytest.raises(ValueError, match="reduces .*output_stride=8, of a"):
            KANetSegmenter(shape, 0.25, 5, backbone=body, output_stride=8)
    for arguments, text in (
        ({"strides": (2, 2, 1, 2, 2)}, r"strides=\(2, 2, 1, 2, 2\), backb"),
        ({"backbone_attention": None}, "KANet, .* backbone_attention=None"),
        ({"include_preprocessing": False}, "include_preprocessing=False"),
    ):
        with pytest.raises(ValueError, match=f"{text}.*='mine'"):
            KANetSegmenter(backbone=body, **arguments)


@pytest.mark.thorough
def test_words_for_bodies():
    kanet = KANetSegmenter(None, 0.25, 5, backbone="kanet")
    assert [v.path for v in kanet.weights] == [
        v.path for v in KANetSegmenter(None, 0.25, 5).weights
    ]
    model = KANetSegmenter(None, 0.25, 5, backbone="efficientnet_lite0")
    entry = create_model("efficientnet_lite0_imagenet")
    for layer in body_layers(model):
        for new, old in zip(
            layer.weights, entry.get_layer(layer.name).weights, strict=True
        ):
            np.testing.assert_array_equal(to_numpy(new), to_numpy(old))


@pytest.mark.thorough
def test_a_named_body_in_mixed_precision(policy):
    policy("mixed_bfloat16")
    model = KANetSegmenter(None, 0.25, 5, backbone="efficientnet_lite0")
    computes = {layer.name: layer.compute_dtype for layer in model.layers}
    for name in ("stem", "block_8_depthwise", "block_9_add", "aspp_1x1_conv"):
        assert computes[name] == "bfloat16"
    assert computes["predictions"] == "float32"


def test_what_a_kanets_body_is_made_with_by_itself():
    given = inspect.signature(KANetSegmenter).parameters
    assert {n: given[n].default for n in OF_A_KANET} == OF_A_KANET
