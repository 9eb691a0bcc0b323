"""The yardstick is keras.applications' MobileNetV2 but for its strides."""

import keras
import numpy as np
import pytest

from kanets.nets import KANet, MobileNetV2, feature_maps
from kanets.nets.mobilenet_v2 import REDUCING
from tests.backends import counts_once, to_numpy
from tests.layer_checks import fill_weights


def pixels(*shape):
    values = np.random.default_rng(0).uniform(0, 255, shape)
    return values.astype("float32")


def theirs(input_shape, alpha, classes):
    return keras.applications.MobileNetV2(
        input_shape, alpha, weights=None, classes=classes
    )


@counts_once
@pytest.mark.parametrize(
    ("alpha", "classes", "parameters"),
    [(1.0, 1000, 3_538_984), (0.35, 7, None)],
)
def test_same_parameters(alpha, classes, parameters):
    ours = MobileNetV2(alpha=alpha, classes=classes)
    expected = theirs((224, 224, 3), alpha, classes)
    assert ours.count_params() == expected.count_params()
    assert ours.count_params() == parameters or parameters is None
    for a, b in zip(ours.weights, expected.weights, strict=True):
        assert (
            a.shape == b.shape
            and a.path.split("/")[1:] == (b.path.split("/")[1:])
        )
    assert ours.output_shape == (None, classes)


@pytest.mark.parametrize("size", [(32, 32), (33, 45)], ids=str)
def test_same_outputs(size):
    # Keras pads by itself before "valid": at even sizes as at odd ones that
    # is what "same" does.
    expected = theirs((*size, 3), 0.35, 5)
    fill_weights(expected.weights)
    ours = MobileNetV2((*size, 3), 0.35, 5)
    ours.set_weights(expected.get_weights())
    x = pixels(2, *size, 3)
    scaled = keras.applications.mobilenet_v2.preprocess_input(x.copy())
    probabilities = to_numpy(expected(scaled, training=False))
    assert probabilities.std() > 1e-3
    np.testing.assert_allclose(
        to_numpy(ours(x, training=False)), probabilities, atol=1e-5
    )


@pytest.mark.parametrize("strides", [(2, 1, 2, 2, 1), (1, 2, 1, 2, 2)], ids=str)
def test_maps_are_as_large_as_a_kanets(strides):
    ours = MobileNetV2((32, 47, 3), 0.35, 5, strides)
    kanet = KANet(
        (32, 47, 3), 0.35, attention=None, include_top=False, strides=strides
    )
    ends = (
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "block_16_project_BN",
    )
    for name, level in zip(ends, feature_maps(kanet).values(), strict=True):
        assert ours.get_layer(name).output.shape == level.shape
    for name, stride in zip(REDUCING, strides, strict=True):
        assert ours.get_layer(name).strides == (stride, stride)


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


def test_dropout_and_momentum():
    model = MobileNetV2((32, 32, 3), 0.35, 5, dropout_rate=0.3, name="mine")
    assert model.name == "mine" and model.get_layer("dropout").rate == 0.3
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 52
    assert {layer.momentum for layer in norms} == {0.99}


def test_saves_and_loads(tmp_path):
    model = MobileNetV2((32, 32, 3), 0.35, 5, strides=(2, 1, 2, 2, 1))
    fill_weights(model.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = pixels(1, 32, 32, 3)
    np.testing.assert_allclose(
        to_numpy(loaded(x, training=False)),
        to_numpy(model(x, training=False)),
        atol=1e-6,
    )


@pytest.mark.parametrize("strides", [(2, 2), (2, 2, 2, 2, 3)])
def test_bad_strides_are_named(strides):
    with pytest.raises(
        ValueError, match=r"five numbers, .* Received: strides="
    ):
        MobileNetV2((32, 32, 3), 0.35, strides=strides)
