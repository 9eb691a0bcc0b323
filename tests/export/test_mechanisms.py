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
