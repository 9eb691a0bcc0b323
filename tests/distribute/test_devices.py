"""Where it is computed: `on_device`, and the command line's --device."""

import subprocess
import sys

import keras
import pytest

from kanets.cli.running import program
from kanets.distribute.devices import accelerators, on_device

SCRIPT = """
import keras, numpy as np
from kanets.distribute.devices import on_device

with on_device("cpu:2"):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 2)), batch_size=4, verbose=0)
    result = model(np.ones((1, 3)))
print({device.id for device in result.devices()})
print({d.id for v in model.variables for d in v.value.devices()})
"""


@pytest.fixture
def two_gpus(monkeypatch):
    def listed(kind=None):
        return ["cpu:0"] if kind == "cpu" else ["gpu:0", "gpu:1"]

    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(keras.distribution, "list_devices", listed)


def test_what_is_chosen_is_all_there_is(two_gpus):
    assert accelerators() == ["gpu:0", "gpu:1"]
    with on_device("CPU"):
        assert accelerators() == []
    with on_device("gpu:1"):
        assert accelerators() == ["gpu:1"]
    assert accelerators() == ["gpu:0", "gpu:1"]


@pytest.mark.parametrize("name", ["gpu:2", "tpu", "cuda:0", ""])
def test_what_is_not_there_is_refused(two_gpus, name):
    message = "must be one of cpu:0, gpu:0, gpu:1. Received: " + repr(name)
    with pytest.raises(ValueError, match=message), on_device(name):
        raise AssertionError("entered")


@pytest.mark.thorough
def test_a_net_is_trained_there():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"KERAS_BACKEND": "jax", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["{2}", "{2}"], done.stderr[-2000:]


def test_the_commands_that_compute_take_it():
    commands = program().commands
    having = {
        name
        for name, each in commands.items()
        if any("--device" in option.opts for option in each.params)
    }
    assert having == {
        *("train", "finetune", "evaluate", "predict"),
        *("generate", "interpolate", "invert"),
    }
