"""Compact nets with timm's weights: counts, maps, logits; and daily use."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import EfficientViT, KANetSegmenter, MobileNetV4, SHViT
from kanets.nets import feature_maps
from kanets.nets.mobilenet_v4 import VARIANTS
from tests import timm_files
from tests.backends import thorough_on_jax, to_numpy
from tests.layer_checks import fill_weights

GOLDEN = Path(__file__).parent.parent / "golden"
FILE = np.load(GOLDEN / "timm_compact.npz")
NAMES = sorted({key.partition("/")[0] for key in FILE.files})
SMALL = "mobilenetv4_conv_small"
LARGE = ("mobilenetv4_conv_large", "mobilenetv4_hybrid_large")
DEAR = (*LARGE, "efficientvit_b2", "efficientvit_b3", "shvit_s3", "shvit_s4")
ODD = (65, 97)
MEAN, STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
OTHERS = {
    "hybrid": (MobileNetV4, "hybrid_medium"),
    "efficientvit": (EfficientViT, "b0"),
    "shvit": (SHViT, "s1"),
}


def run(model, x):
    return to_numpy(model(x, training=False))


def pixels(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def create(name, folder, config=None, **arguments):
    """A net with the weights of a file made for it, of any size; logits."""
    names, shapes = FILE[f"{name}/names"], FILE[f"{name}/shapes"]
    names = [*names, "bn1.num_batches_tracked"]
    shapes = [*shapes, np.zeros(4, "int16")]
    path = timm_files.write(folder / name, names, shapes, config)
    return kanets.create_model(
        name,
        weights=path,
        input_shape=(None, None, 3),
        classifier_activation=None,
        **arguments,
    )


def ends(name, model):
    """The layers at the ends of the stages."""
    if not name.startswith("mobilenetv4"):
        first = 4 if name.startswith("shvit") else 2
        return [n for n in sorted(feature_maps(model)) if int(n[-1]) >= first]
    found, blocks = [], -1
    for stage in VARIANTS[name.partition("_")[2]].stages:
        blocks += len(stage)
        of_block = (f"block_{blocks}", f"block_{blocks}_")
        found.append(
            [
                layer.name
                for layer in model.layers
                if layer.name == of_block[0]
                or layer.name.startswith(of_block[1])
            ][-1]
        )
    return found


def assert_timms(name, model, inputs):
    """Outputs are timm's, for inputs made by `inputs` of a size."""
    layers = ends(name, model)
    means = [
        keras.ops.mean(model.get_layer(layer).output, (1, 2))
        for layer in layers
    ]
    staged = keras.Model(model.input, [*means, model.output])
    sizes = {k.split("/")[1] for k in FILE.files if k.startswith(f"{name}/")}
    for size in sorted(size for size in sizes if "x" in size):
        key, (height, width) = f"{name}/{size}", map(int, size.split("x"))
        outputs = [to_numpy(x) for x in staged(inputs((height, width)))]
        expected = FILE[f"{key}/logits"]
        if (height, width) == ODD:  # every tenth
            outputs, wanted = [outputs[-1][:, ::10]], [expected]
        else:
            wanted = [FILE[f"{key}/stage{i}_mean"] for i in range(len(layers))]
            wanted.append(expected)
        for found, true in zip(outputs, wanted, strict=True):
            atol = 1e-5 * np.abs(true).max()
            np.testing.assert_allclose(found, true, atol=atol, err_msg=key)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Of pixels, with the file's scale of them. Not to be changed."""
    config = GOLDEN / "timm_mobilenetv4_config.json"
    return create(SMALL, tmp_path_factory.mktemp("timm"), config)


def test_pixels_give_timms_logits(small):
    def inputs(size):
        scaled = timm_files.inputs(SMALL, size)
        return (255 * (STD * scaled + MEAN)).astype("float32")

    assert_timms(SMALL, small, inputs)
    count = sum(int(np.prod(v.shape)) for v in small.trainable_variables)
    assert count == FILE[f"{SMALL}/parameters"] == 3_774_024


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in DEAR else [])
        for name in NAMES
        if name != SMALL
    ],
)
def test_every_net_is_timms(name, tmp_path):
    model = create(name, tmp_path, include_preprocessing=False)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == FILE[f"{name}/parameters"]
    assert model.name == name
    assert_timms(name, model, lambda size: timm_files.inputs(name, size))


def test_maps_of_the_levels(small):
    shapes = {n: t.shape[-1] for n, t in feature_maps(small).items()}
    channels = (32, 32, 64, 96, 960)
    assert shapes == {f"level{n}": c for n, c in enumerate(channels, start=1)}
    maps = keras.Model(small.input, feature_maps(small))
    sizes = maps.compute_output_shape((1, 65, 97, 3))
    assert [sizes[n][1:3] for n in sorted(sizes)] == [
        (-(-65 // step), -(-97 // step)) for step in (2, 4, 8, 16, 32)
    ]


@thorough_on_jax
def test_attention_of_a_conv_net_starts_closed(small):
    """In bottlenecks of stride 1; and it is there."""
    model = MobileNetV4(
        (None, None, 3), classifier_activation=None, attention="kao_qkv"
    )
    names = {layer.name for layer in model.layers}
    assert {n for n in names if n.endswith("_attention")} == {
        f"block_{i}_attention" for i in (5, 6, 7, 8, 9, 11, 12, 13, 14, 15)
    }
    for layer in small.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    x = pixels(1, 64, 48, 3)
    expected = run(small, x)
    np.testing.assert_array_equal(run(model, x), expected)
    fill_weights(model.get_layer("block_7_attention").weights)
    assert np.abs(run(model, x) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        *(("hybrid", "kao_qkv"), ("hybrid", {"name": "window"})),
        *(("efficientvit", "kao_qkv"), ("shvit", {"name": "window"})),
    ],
    ids=str,
)
def test_attention_in_the_place_of_a_nets_own(kind, attention, tmp_path):
    build, variant = OTHERS[kind]
    arguments = {"variant": variant, "classes": 5, "attention": attention}
    model = build((64, 96, 3), **arguments)
    published = build((64, 96, 3), variant, classes=5)

    def looking(model):
        return {
            layer.name: type(layer)
            for layer in model.layers
            if layer.name.endswith("_attention")
        }

    assert looking(model).keys() == looking(published).keys()
    expected = type(kanets.attention.make(attention))
    assert set(looking(model).values()) == {expected}
    fill_weights(model.weights)
    x = pixels(2, 64, 96, 3)
    found = run(model, x)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    path = tmp_path / "net.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(run(loaded, x), found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_another_attention_leaves_the_published_one_out(kind, tmp_path, capsys):
    """The rest is timm's; the line about what was read names the tensors."""
    name = {
        "hybrid": "mobilenetv4_hybrid_medium",
        "efficientvit": "efficientvit_b0",
        "shvit": "shvit_s1",
    }[kind]
    place = {
        "hybrid": r"blocks\.\d\.\d+\.attn\.",
        "efficientvit": r"stages\.2\.blocks\.1\.context_module\.",
        "shvit": r"stages\.1\.blocks\.0\.mixer\.m\.",
    }[kind]
    expected = create(name, tmp_path / "own")
    assert "not used" not in capsys.readouterr().err
    model = create(name, tmp_path / "other", attention="kao_qkv")
    assert re.search(f"not used: {place}", capsys.readouterr().err)
    fresh = {n.name for n in model.layers if n.name.endswith("_attention")}
    assert fresh
    for layer in expected.layers:
        if layer.name in fresh:
            continue
        found = model.get_layer(layer.name).get_weights()
        for one, other in zip(found, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_closed_net_takes_timms_weights_and_a_new_head(tmp_path, small):
    model = create(SMALL, tmp_path, attention="kao_kv", num_classes=3)
    assert model.output_shape == (None, 3)
    norm = model.get_layer("block_15_project_norm")
    expected = small.get_layer("block_15_project_norm").get_weights()
    np.testing.assert_array_equal(norm.get_weights(), expected)
    assert norm.momentum == 0.9


@pytest.mark.parametrize(
    "name",
    [
        SMALL,
        pytest.param("efficientvit_b0", marks=pytest.mark.slow),
        pytest.param("shvit_s1", marks=pytest.mark.slow),
    ],
)
def test_timms_weights_without_the_top(name, tmp_path):
    names, shapes = FILE[f"{name}/names"], FILE[f"{name}/shapes"]
    path = timm_files.write(tmp_path / name, names, shapes)
    body = kanets.create_model(
        name, weights=path, input_shape=(64, 64, 3), include_top=False
    )
    whole = create(name, tmp_path / "whole")
    for layer in body.layers:
        theirs = whole.get_layer(layer.name).get_weights()
        for ours, expected in zip(layer.get_weights(), theirs, strict=True):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_net_with_another_attention_reads_its_own_files(suffix, tmp_path):
    options = {"attention": "kao_qkv", "input_shape": (32, 32, 3)}
    net = SHViT(variant="s1", **options)
    path = tmp_path / f"net{suffix}"
    (net.save if suffix == ".keras" else net.save_weights)(path)
    same = kanets.create_model("shvit_s1", weights=path, **options)
    x = pixels(1, 32, 32, 3)
    np.testing.assert_allclose(run(same, x), run(net, x), atol=1e-6)


@pytest.mark.slow
def test_a_saved_net_is_the_same(small, tmp_path):
    x = pixels(1, 64, 48, 3)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(run(loaded, x), run(small, x))
    small.save_weights(tmp_path / "small.weights.h5")
    model = MobileNetV4(
        (64, 48, 3),
        weights=tmp_path / "small.weights.h5",
        classifier_activation=None,
    )
    np.testing.assert_allclose(run(model, x), run(small, x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind == "hybrid" else [])
        for kind in OTHERS
    ],
)
def test_a_fresh_net_in_daily_use(kind, tmp_path):
    """Saved, without a top, with other strides, in half precision."""
    build, variant = OTHERS[kind]
    model = build((64, 64, 3), variant, classes=5, dropout_rate=0.5)
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    x = pixels(2, 64, 64, 3)
    np.testing.assert_array_equal(run(loaded, x), run(model, x))
    strides = (1, 1, 2, 2, 2, 2)[-6 if kind == "shvit" else -5 :]
    body = build((32, 32, 3), variant, include_top=False, strides=strides)
    side = 32 // np.prod(strides)
    assert body.output_shape[1:3] == (side, side)
    means = build((64, 64, 3), variant, include_top=False, pooling="avg")
    assert means.output_shape == (None, body.output_shape[-1])
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = build((64, 64, 3), variant, classes=5)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    assert half.output.dtype == "float32"
    np.testing.assert_allclose(run(half, x), run(model, x), atol=0.05)


@pytest.mark.slow
def test_the_body_of_a_segmenter():
    backbone = MobileNetV4((64, 64, 3), strides=(2, 2, 2, 2, 1))
    model = KANetSegmenter(
        (64, 96, 3), classes=4, backbone=backbone, output_stride=16
    )
    assert model.output_shape == (None, 64, 96, 4)


@pytest.mark.parametrize(
    ("build", "arguments", "text"),
    [
        (MobileNetV4, {"variant": "small"}, "'conv_small'.*variant='small'"),
        (MobileNetV4, {"strides": (2, 2)}, r"5 numbers.*strides=\(2, 2\)"),
        (MobileNetV4, {"attention": "kao_q"}, "Received: .*'kao_q'"),
        (MobileNetV4, {"pooling": "sum"}, "pooling='sum'"),
        (EfficientViT, {"variant": "l1"}, "'b3'.*variant='l1'"),
        (EfficientViT, {"classes": 0}, "classes must be a positive .*=0"),
        (SHViT, {"variant": "s5"}, "'s4'.*variant='s5'"),
        (SHViT, {"strides": (2,) * 5}, "6 numbers.*of the stem.*stage 2"),
        (SHViT, {"input_shape": (3, 64, 64)}, r"shape=\(3, 64, 64\)"),
        (MobileNetV4, {"input_shape": (64, 64, 1)}, r"shape=\(64, 64, 1\)"),
        (
            SHViT,
            {"attention": keras.layers.Identity()},
            "not one layer. Received: attention=<Identity",
        ),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_errors(build, arguments, text):
    with pytest.raises(ValueError, match=text):
        build(**arguments)
