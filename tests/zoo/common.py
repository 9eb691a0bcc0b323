"""Small models, and zoos of one entry, for the tests of the zoo."""

import dataclasses

import keras
import numpy as np

import kanets
import ylg
from kanets import zoo
from tests.backends import to_numpy

NAMES = ("ant", "bee", "wasp")
PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
PICTURES = PICTURES.astype("float32")
ARGUMENTS = {"alpha": 0.1, "strides": [2, 1, 2, 1, 1]}
SEGMENTER = {"alpha": 0.1, "strides": [2, 1, 2, 2, 1], "output_stride": 8}
SAGAN = {"image_size": 32, "width": 2, "latent_size": 4, "attention": None}


def make_model():
    keras.utils.set_random_seed(0)
    return kanets.KANet((16, 16, 3), classes=3, **ARGUMENTS)


def make_plain():
    """The cheapest, where any model will do."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="plain")


def make_segmenter():
    keras.utils.set_random_seed(0)
    return kanets.nets.KANetSegmenter((16, 16, 3), classes=3, **SEGMENTER)


def make_gan():
    keras.utils.set_random_seed(0)
    return ylg.SAGAN(num_classes=3, **SAGAN)


def make_entry(folder, **fields):
    """Writes the `entry.json` of a model folder.

    Args:
        folder: the model folder.
        **fields: those that are not a small KANet's.

    Returns:
        The `Entry`.
    """
    files = {
        path.relative_to(folder).as_posix(): zoo.sha256(path)
        for name in ("config.json", "labels.txt", "model.weights.h5")
        for path in sorted(folder.rglob(name))
    }
    entry = zoo.Entry(
        name=folder.name,
        task="classification",
        net="KANet",
        arguments=ARGUMENTS,
        input_shape=(16, 16, 3),
        num_classes=3,
        parameters=1,
        multiply_adds=2,
        weights_bytes=sum(p.stat().st_size for p in folder.rglob("*.h5")),
        files=files,
        data="insects",
        metric="top-1 accuracy, 2 test pictures",
        value=0.5,
        evaluate_command="kanets evaluate kanet_x --data insects/test",
        recipe="none.toml",
        train_command="kanets train none.toml --data insects",
        seed=0,
        versions={"kanets": "0.1.0", "keras": "3.12.0", "python": "3.11"},
        machine="two cores",
        licence="Apache-2.0",
    )
    entry = dataclasses.replace(entry, **fields)
    entry.to_json(folder / "entry.json")
    return entry


def predict(model, pictures=PICTURES):
    return to_numpy(model(pictures, training=False))
