"""Every mechanism of attention in every format of a phone or an edge box."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.export import (
    export_litert,
    export_onnx,
    export_openvino,
    runtimes,
)
from tests.backends import BACKEND

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(BACKEND != "tensorflow", reason="exports need it"),
]
NAMES = ["ant", "bee", "wasp", "fly"]


@pytest.fixture(scope="module")
def net():
    """All of them side by side: another's rounding might change a hash."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 16, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="tanh")(x)
    found = [attention.make(name)(x) for name in attention.names()]
    x = keras.layers.Flatten()(keras.layers.Concatenate()(found))
    # Wide enough that the classes differ, whatever the weights drawn are.
    wide = keras.initializers.VarianceScaling(8.0)
    x = keras.layers.Dense(4, activation="softmax", kernel_initializer=wide)(x)
    return keras.Model(inputs, x, name="all")


@pytest.mark.parametrize(
    "export",
    [
        export_litert,
        export_onnx,
        pytest.param(export_openvino, marks=pytest.mark.slow),
    ],
)
def test_every_mechanism(export, net, tmp_path):
    x = np.random.default_rng(0).uniform(0, 255, (1, 12, 16, 3))
    x = x.astype("float32")
    expected = net.predict(x, verbose=0)
    assert expected.std() > 0.05
    run = runtimes.load(export(net, tmp_path / "net", NAMES))
    found = run(images=x)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "export",
    [export_litert, pytest.param(export_onnx, marks=pytest.mark.slow)],
)
def test_mechanisms_of_open_size(export, tmp_path):
    """Sizes that no window, stride, cluster or tile divides."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    found = []
    for given in (
        *("window", "neighborhood", "lsh", "smyrf", "adaptive_span", "axial"),
        *("linear", "separable", "efficient_additive", "non_local"),
        {"name": "window", "num_heads": 2, "dilation": 2},
        {"name": "neighborhood", "stride": 3, "kernel_size": 4},
        {"name": "adaptive_span", "span": "dynamic", "max_span": 3},
        {"name": "smyrf", "cluster_size": 5},
        {"name": "spatial_reduction", "key_grid": 3},
        {
            "name": "multi_query",
            "key_stride": 3,
            "query_stride": 3,
            "padding": "same",
        },
        {"name": "non_local", "similarity": "concatenation"},
    ):
        found.append(attention.make(given)(x))
    pool = keras.layers.GlobalAveragePooling2D()
    x = keras.layers.Concatenate()([pool(y) for y in found])
    wide = keras.initializers.VarianceScaling(8.0)
    x = keras.layers.Dense(4, activation="softmax", kernel_initializer=wide)(x)
    net = keras.Model(inputs, x, name="open")
    folder = export(net, tmp_path / "net", NAMES, image_size=(None, None))
    run = runtimes.load(folder)
    random = np.random.default_rng(0)
    for size in ((7, 13), (12, 16), (5, 1)):
        x = random.uniform(0, 255, (1, *size, 3)).astype("float32")
        expected = keras.ops.convert_to_numpy(net(x, training=False))
        found = run(images=x)["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def alone(identifier):
    """A classifier that sees nothing but what one mechanism makes."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 8, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    x = keras.layers.Flatten()(attention.make(identifier)(x))
    wide = keras.initializers.VarianceScaling(4.0)
    x = keras.layers.Dense(4, activation="softmax", kernel_initializer=wide)(x)
    return keras.Model(inputs, x, name="alone")


@pytest.mark.parametrize("name", attention.names())
def test_every_mechanism_in_8_bits(name, tmp_path):
    """What is hidden has a score that integers can hold beside the others."""
    # And "ylg", whose sums 8 bits hold coarsely.
    hides = name in {
        *("window", "neighborhood", "lsh", "smyrf", "adaptive_span")
    }
    # Sharp weights, which are far from the mean of all that is seen.
    given = {"name": name, "scale": 3.0} if hides else {"name": name}
    net = alone(given)
    x = np.random.default_rng(0).uniform(0, 255, (40, 6, 4, 3))
    x = x.repeat(2, 1).repeat(2, 2).astype("float32")
    folder = export_litert(
        net, tmp_path / "net", NAMES, precision="int8", representative=x[:24]
    )
    expected = net.predict(x, verbose=0)
    found = runtimes.load(folder)(images=x)["probabilities"]
    error = np.abs(found - expected).mean()
    assert error < 0.04
    if hides:
        mean = alone({**given, "scale": 0.0})
        mean.set_weights(net.get_weights())
        apart = np.abs(mean.predict(x, verbose=0) - expected).mean()
        assert error < 0.5 * apart
