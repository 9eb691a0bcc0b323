"""A tiny net with a table of timm's names, and repositories of its weights."""

import json

import keras
import numpy as np
import safetensors.numpy

from kanets.layers import BatchNormalization, residual_attention
from kanets.nets.parts import imagenet_scale
from kanets.nets.registry import NETS, Net
from kanets.zoo import Architecture

CLASSES = 1000
CONFIG = {
    "architecture": "timms_tiny",
    "num_classes": CLASSES,
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.25, 0.2],
        "crop_pct": 0.8,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "license": "mit",
    },
}
_RANDOM = np.random.default_rng(0)
TENSORS = {
    "stem.weight": _RANDOM.normal(size=(8, 3, 4, 4)),
    "bn.weight": _RANDOM.uniform(0.5, 1, 8),
    "bn.bias": _RANDOM.normal(size=8),
    "bn.running_mean": _RANDOM.normal(size=8),
    "bn.running_var": _RANDOM.uniform(0.5, 2, 8),
    "head.weight": _RANDOM.normal(size=(CLASSES, 8)),
    "head.bias": _RANDOM.normal(size=CLASSES),
}


def build(input_shape, classes, attention=None, include_top=True):
    inputs = keras.Input(input_shape)
    x = imagenet_scale(inputs)
    x = keras.layers.Conv2D(8, 4, strides=4, use_bias=False, name="stem")(x)
    x = BatchNormalization(name="stem_norm")(x)
    if attention is not None:
        x = residual_attention(x, attention, name="attention")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if include_top:
        x = keras.layers.Dense(
            classes, activation="softmax", name="predictions"
        )(x)
    return keras.Model(inputs, x, name="tiny")


def names(**_):
    return {
        "stem": ("conv", "stem"),
        "stem_norm": ("norm", "bn"),
        "predictions": ("dense", "head"),
    }


def install(monkeypatch):
    """Puts the net among those of the zoo."""
    net = Net(
        "Tiny",
        f"{__name__}:build",
        "classification",
        "a net",
        closed=("attention",),
        timm=f"{__name__}:names",
        timm_name="timms_{}",
    )
    tiny = Architecture(
        name="tiny",
        task="classification",
        net="Tiny",
        arguments={},
        input_shape=(32, 32, 3),
        num_classes=CLASSES,
    )
    monkeypatch.setitem(NETS, "Tiny", net)
    for module in ("zoo", "zoo.creating", "zoo.entries", "zoo.timm"):
        monkeypatch.setattr(f"kanets.{module}.ARCHITECTURES", (tiny,))


def write(folder, **changes):
    """A repository; `changes` are those of its `config.json`."""
    folder.mkdir(parents=True)
    tensors = {name: x.astype("float32") for name, x in TENSORS.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder
