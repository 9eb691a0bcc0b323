"""A backend that something is not written for is named."""

import keras
import numpy as np
import pytest

from ylg.backends import for_backend
from ylg.descent import descend
from ylg.gan.gradients import gradient_step


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: gradient_step(None, [], None, None), "Training a GAN"),
        (
            lambda: descend(
                None, np.zeros((1, 2)), [], keras.optimizers.SGD(), 1, 0
            ),
            "Inversion",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "numpy", "openvino"])
def test_an_unknown_backend_is_named(call, what, backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    text = rf"{what} needs .*\['jax', 'tensorflow'\].*backend='{backend}'"
    with pytest.raises(ValueError, match=text):
        call()


def test_the_choice_is_the_backends():
    backend = keras.backend.backend()
    assert for_backend("It", **{backend: "this", "other": "that"}) == "this"
