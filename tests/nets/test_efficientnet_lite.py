"""EfficientNet-Lite: counts, maps, the authors' logits, and daily use.

`python -m tests.nets.test_efficientnet_lite` writes
tests/golden/efficientnet_lite_tiny.npz anew.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import EfficientNetLite
from kanets.nets import feature_maps, logits_model
from tests.backends import counts_once, to_numpy
from tests.layer_checks import fill_weights
from training.convert_efficientnet_lite import GOLDEN, random_pictures

TINY = Path(__file__).parent.parent / "golden" / "efficientnet_lite_tiny.npz"
STRIDES = (2, 2, 2, 1, 1)
ATTENDING = (2, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15)
CHEAP = {"name": "kao_qkv", "projections": ""}


def pixels(*shape, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return values.astype("float32")


def make_tiny(input_shape=(32, 32, 3), **arguments):
    """A lite0 of small pictures with filled weights; logits."""
    arguments = {"classifier_activation": None, "classes": 5, **arguments}
    model = EfficientNetLite(input_shape, strides=STRIDES, **arguments)
    fill_weights(model.weights)
    return model


def run(model, x):
    return to_numpy(model(x, training=False))


@pytest.fixture(scope="module")
def tiny():
    """Not to be changed by a test."""
    return make_tiny()


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@counts_once
@pytest.mark.parametrize(
    ("variant", "side", "trainable", "moments", "maps"),
    [  # as in the authors' files
        ("lite0", 224, 4_652_008, 42_016, (112, 56, 28, 14, 7)),
        ("lite1", 240, 5_416_680, 53_664, (120, 60, 30, 15, 8)),
        ("lite2", 260, 6_092_072, 58_096, (130, 65, 33, 17, 9)),
    ],
)
def test_counts_and_maps_at_full_size(variant, side, trainable, moments, maps):
    model = EfficientNetLite(variant=variant)
    assert model.name == f"efficientnet_{variant}"
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, 1000)
    assert count(model.trainable_variables) == trainable
    assert count(model.non_trainable_variables) == moments
    channels = (16, 24, 40, 112, 320)
    if variant == "lite2":
        channels = (16, 24, 48, 120, 352)
    assert {n: t.shape[1:] for n, t in feature_maps(model).items()} == {
        f"level{n}": (size, size, wide)
        for n, (size, wide) in enumerate(
            zip(maps, channels, strict=True), start=1
        )
    }


def test_layers_have_the_names_that_files_of_weights_rely_on(tiny):
    block = ["expand", "expand_norm", "depthwise", "depthwise_norm"]
    block += ["project", "project_norm"]
    expected = ["stem", "stem_norm", "fc", "head", "head_norm"]
    expected += [f"block_{i}_{n}" for i in range(16) for n in block]
    expected = set(expected) - {"block_0_expand", "block_0_expand_norm"}
    assert {layer.name for layer in tiny.layers if layer.weights} == expected
    sums = {layer.name for layer in tiny.layers if layer.name.endswith("_add")}
    assert sums == {f"block_{i}_add" for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)}


def test_saved_outputs(tiny):
    golden = np.load(TINY)
    for name, actual in tiny_outputs(tiny).items():
        largest = np.abs(golden[name]).max()
        assert largest > 0.5
        np.testing.assert_allclose(actual, golden[name], atol=1e-4 * largest)


def tiny_outputs(model):
    x = pixels(2, 32, 32, 3)
    maps = keras.Model(model.input, feature_maps(model)["level4"])
    return {"logits": run(model, x), "level4": run(maps, x)}


def test_the_entry_answers_as_the_network_of_its_authors():
    """Their logits; its kernels are rounded to float16."""
    model = kanets.create_model("efficientnet_lite0_imagenet")
    logits = run(logits_model(model), random_pictures(224).astype("float32"))
    expected = np.load(GOLDEN)["logits"]
    assert np.abs(expected).max() > 3
    np.testing.assert_allclose(logits, expected, atol=0.03)
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    ("position", "attention"),
    [
        ("output", "kao_qkv"),
        pytest.param("expansion", CHEAP, marks=pytest.mark.thorough),
    ],
)
def test_attention_starts_closed_in_blocks_of_stride_1(
    tiny, position, attention
):
    place = {"attention": attention, "attention_position": position}
    model = make_tiny(**place)
    for layer in tiny.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    names = {layer.name for layer in model.layers}
    looking = {n for n in names if n.endswith("_attention")}
    assert looking == {f"block_{i}_attention" for i in ATTENDING}
    closed = EfficientNetLite(
        (32, 32, 3),
        strides=STRIDES,
        classes=5,
        classifier_activation=None,
        **place,
    )
    for layer in tiny.layers:
        closed.get_layer(layer.name).set_weights(layer.get_weights())
    x = pixels(2, 32, 32, 3)
    difference = run(closed, x) - run(tiny, x)
    assert np.abs(difference).max() == 0.0
    # And the branches are there: filled, they are seen.
    assert np.abs(run(model, x) - run(tiny, x)).max() > 0.01
    channels = 24 if position == "output" else 6 * 24
    assert model.get_layer("block_2_attention").output.shape[-1] == channels
    maps = feature_maps(model)
    assert [maps[n].shape for n in maps] == [
        tensor.shape for tensor in feature_maps(tiny).values()
    ]


def test_preprocessing(tiny):
    x = pixels(2, 32, 32, 3)
    bare = make_tiny(include_preprocessing=False)
    np.testing.assert_allclose(
        run(bare, (x - 127) / 128), run(tiny, x), atol=1e-3
    )
    assert "preprocessing" not in [layer.name for layer in bare.layers]


@pytest.mark.thorough
def test_probabilities_tops_and_dropout(tiny):
    x = pixels(2, 32, 32, 3)
    logits = run(tiny, x)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = run(make_tiny(classifier_activation="softmax"), x)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    maps = run(make_tiny(include_top=False), x)
    assert maps.shape == (2, 4, 4, 1280)
    means = run(make_tiny(include_top=False, pooling="avg"), x)
    np.testing.assert_allclose(means, maps.mean((1, 2)), atol=1e-4)
    assert make_tiny(dropout_rate=0.5).layers[-2].rate == 0.5
    assert "dropout" not in [layer.name for layer in tiny.layers]


@pytest.mark.thorough
def test_open_sizes_and_other_inputs(tiny):
    x = pixels(2, 32, 32, 3)
    model = make_tiny((None, None, 3))
    assert feature_maps(model)["level5"].shape == (None, None, None, 320)
    np.testing.assert_allclose(run(model, x), run(tiny, x), atol=1e-4)
    inputs = keras.Input((32, 32, 3))
    flipped = keras.ops.flip(inputs, axis=2)
    model = make_tiny(None, input_tensor=flipped)
    assert model.inputs[0] is inputs
    np.testing.assert_allclose(
        run(model, x[:, :, ::-1]), run(tiny, x), atol=1e-4
    )


@pytest.mark.parametrize(
    "output_stride", [pytest.param(8, marks=pytest.mark.thorough), 16]
)
def test_a_dilated_net_holds_the_maps_of_the_strided_one(output_stride):
    """Between the cells of the strided net come others; odd sizes keep the
    cells aligned."""
    x = pixels(1, 65, 33, 3)
    maps = []
    for stride in (None, output_stride):
        model = EfficientNetLite(
            (65, 33, 3), include_top=False, output_stride=stride
        )
        fill_weights(model.weights)
        level5 = feature_maps(model)["level5"]
        maps.append(run(keras.Model(model.input, level5), x))
    step = 32 // output_stride
    assert maps[0].shape[1:3] == (3, 2)
    assert maps[1].shape[1:3] == (2 * step + 1, step + 1)
    largest = np.abs(maps[0]).max()
    assert largest > 0.5
    np.testing.assert_allclose(
        maps[1][:, ::step, ::step], maps[0], atol=1e-4 * largest
    )


@pytest.mark.thorough
def test_a_saved_model_is_the_same(tiny, tmp_path):
    x = pixels(2, 32, 32, 3)
    path = tmp_path / "tiny.keras"
    tiny.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(run(loaded, x), run(tiny, x))
    path = tmp_path / "tiny.weights.h5"
    tiny.save_weights(path)
    model = EfficientNetLite(
        (32, 32, 3),
        weights=path,
        classes=5,
        classifier_activation=None,
        strides=STRIDES,
    )
    np.testing.assert_array_equal(run(model, x), run(tiny, x))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"variant": "b0"}, "one of .*'lite2'.* Received: variant='b0'"),
        ({"strides": (2, 2)}, r"24, 40, 80 and 192.* strides=\(2, 2\)"),
        ({"pooling": "sum"}, "pooling='sum'"),
        ({"classes": 0}, "classes must be a positive .*classes=0"),
        ({"input_shape": (3, 32, 32)}, r"input_shape=\(3, 32, 32\)"),
        ({"output_stride": 4}, "output_stride=4"),
        ({"attention_position": "input"}, "attention_position='input'"),
        ({"attention": "kao_q"}, "Received: .*'kao_q'"),
    ],
    ids=str,
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        EfficientNetLite(**arguments)


if __name__ == "__main__":
    np.savez_compressed(TINY, **tiny_outputs(make_tiny()))
