"""A backend that something is not written for is named."""

import keras
import numpy as np
import pytest

import ylg
from kanets import cli
from kanets.train.recipes.gan import train_gan
from ylg.backends import for_backend
from ylg.descent import descend
from ylg.gan.gradients import gradient_step
from ylg.inversion import invert


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: gradient_step(None, [], None, None), "Training a GAN"),
        (lambda: ylg.SAGAN.fit(None), "Training a GAN"),
        (lambda: train_gan(None, "nowhere"), "Training a GAN"),
        (lambda: invert(None, None, None), "Inversion"),
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


def test_an_export_is_refused_before_the_model_is_read(monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert cli.main(["export", "nowhere", "--to", "nowhere"])
    message = capsys.readouterr().err
    assert "Exporting needs the TensorFlow backend" in message
    assert "backend='torch'" in message and "nowhere" not in message


def test_the_choice_is_the_backends():
    backend = keras.backend.backend()
    assert for_backend("It", **{backend: "this", "other": "that"}) == "this"
