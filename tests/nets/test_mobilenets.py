"""The yardsticks are keras.applications' nets but for their strides."""

import keras
import numpy as np
import pytest

from kanets.nets import KANet, MobileNetV2, MobileNetV3Small, feature_maps
from kanets.nets.mobilenets import V2_REDUCING, V3_SMALL_REDUCING
from tests.backends import counts_once, to_numpy
from tests.layer_checks import fill_weights

# The last layer of each level, as `feature_maps` has them for a KANet.
V2_ENDS = (
    "expanded_conv_project_BN",
    "block_2_add",
    "block_5_add",
    "block_12_add",
    "block_16_project_BN",
)
V3_SMALL_ENDS = (
    "conv_bn",
    "expanded_conv_project_bn",
    "expanded_conv_2_add",
    "expanded_conv_7_add",
    "expanded_conv_10_add",
)
NETS = {
    "v2": (
        MobileNetV2,
        keras.applications.MobileNetV2,
        {},
        (V2_REDUCING, V2_ENDS, 52),
    ),
    "v3_small": (
        MobileNetV3Small,
        keras.applications.MobileNetV3Small,
        {"include_preprocessing": False},
        (V3_SMALL_REDUCING, V3_SMALL_ENDS, 34),
    ),
}
nets = pytest.mark.parametrize("net", NETS)


def pixels(*shape):
    values = np.random.default_rng(0).uniform(0, 255, shape)
    return values.astype("float32")


def theirs(net, input_shape, alpha, classes):
    _, make, arguments, _ = NETS[net]
    return make(input_shape, alpha, weights=None, classes=classes, **arguments)


@counts_once
@pytest.mark.parametrize(
    ("net", "alpha", "classes", "parameters"),
    [
        ("v2", 1.0, 1000, 3_538_984),
        pytest.param("v2", 0.35, 7, None, marks=pytest.mark.slow),
        ("v3_small", 1.0, 1000, 2_554_968),
        pytest.param("v3_small", 0.5, 7, None, marks=pytest.mark.slow),
    ],
)
def test_same_parameters(net, alpha, classes, parameters):
    ours = NETS[net][0](alpha=alpha, classes=classes)
    expected = theirs(net, (224, 224, 3), alpha, classes)
    assert ours.count_params() == expected.count_params()
    assert ours.count_params() == parameters or parameters is None
    for a, b in zip(ours.weights[:-4], expected.weights[:-4], strict=True):
        assert (
            a.shape == b.shape
            and a.path.split("/")[1:] == (b.path.split("/")[1:])
        )
    assert ours.output_shape == (None, classes)


@nets
@pytest.mark.parametrize(
    "size",
    [(32, 32), pytest.param((33, 45), marks=pytest.mark.slow)],
    ids=str,
)
def test_same_outputs(net, size):
    # Keras pads by itself before "valid": at even sizes as at odd ones that
    # is what "same" does.
    expected = theirs(net, (*size, 3), 0.35, 5)
    fill_weights(expected.weights)
    ours = NETS[net][0]((*size, 3), 0.35, 5)
    for a, b in zip(ours.weights, expected.weights, strict=True):
        a.assign(keras.ops.reshape(b, a.shape))
    x = pixels(2, *size, 3)
    scaled = x / 127.5 - 1
    probabilities = to_numpy(expected(scaled, training=False))
    assert probabilities.std() > 1e-3
    np.testing.assert_allclose(
        to_numpy(ours(x, training=False)), probabilities, atol=1e-5
    )


@pytest.mark.slow
@nets
@pytest.mark.parametrize(
    "strides",
    [
        (2, 1, 2, 2, 1),
        pytest.param((1, 2, 1, 2, 2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_maps_are_as_large_as_a_kanets(net, strides):
    make, _, _, (reducing, ends, _) = NETS[net]
    ours = make((32, 47, 3), 0.35, 5, strides)
    kanet = KANet(
        (32, 47, 3), 0.35, attention=None, include_top=False, strides=strides
    )
    for name, level in zip(ends, feature_maps(kanet).values(), strict=True):
        assert ours.get_layer(name).output.shape[1:3] == level.shape[1:3]
    for name, stride in zip(reducing, strides, strict=True):
        assert ours.get_layer(name).strides == (stride, stride)


@pytest.mark.slow
def test_other_strides_keep_the_convolutions():
    # A stride of 1 computes everywhere what a stride of 2 keeps in part.
    far = MobileNetV2((32, 32, 3), 0.35, 5)
    near = MobileNetV2((32, 32, 3), 0.35, 5, strides=(1, 2, 2, 2, 2))
    fill_weights(far.weights)
    near.set_weights(far.get_weights())
    x = pixels(1, 32, 32, 3)
    first, second = (
        to_numpy(
            keras.Model(m.input, m.get_layer("Conv1_relu").output)(
                x, training=False
            )
        )
        for m in (far, near)
    )
    # "same" pads after the picture at stride 2, and on both sides at 1.
    np.testing.assert_allclose(
        first[:, :-1, :-1], second[:, 1:-1:2, 1:-1:2], atol=1e-5
    )


@nets
def test_dropout_and_momentum(net):
    make, _, _, (_, _, count) = NETS[net]
    model = make((32, 32, 3), 0.35, 5, dropout_rate=0.3, name="mine")
    assert model.name == "mine" and model.get_layer("dropout").rate == 0.3
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == count
    assert {layer.momentum for layer in norms} == {0.99}


@pytest.mark.slow
@nets
def test_saves_and_loads(net, tmp_path):
    model = NETS[net][0]((32, 32, 3), 0.35, 5, strides=(2, 1, 2, 2, 1))
    fill_weights(model.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = pixels(1, 32, 32, 3)
    np.testing.assert_allclose(
        to_numpy(loaded(x, training=False)),
        to_numpy(model(x, training=False)),
        atol=1e-6,
    )


@nets
@pytest.mark.parametrize("strides", [(2, 2), (2, 2, 2, 2, 3)])
def test_bad_strides_are_named(net, strides):
    with pytest.raises(
        ValueError, match=r"five numbers, .* Received: strides="
    ):
        NETS[net][0]((32, 32, 3), 0.35, strides=strides)
