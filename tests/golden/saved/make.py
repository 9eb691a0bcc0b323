"""Wrote what lies beside it, once, with the code of commit d6d36e8.

    git worktree add /tmp/old d6d36e8 && cd /tmp/old
    KERAS_BACKEND=tensorflow python <this file> <folder>
    KERAS_BACKEND=jax python <this file> <folder> pallas

A file of each kind that people have saved: `<name>.keras`, with an input and
the output in `<name>.npz`, and runs stopped after their first of two epochs.
`tests/test_saved.py` loads them for ever; it is not run again.
"""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np

import kanets
import ylg
from kanets import layers, recipes
from tests.layer_checks import fill_weights, random
from tests.photos import write_photos, write_streets

SIDE = 8
STRIDES = (2, 1, 2, 2, 1)


def around(*chain, shape=(SIDE, SIDE, 8)):
    x = inputs = keras.Input(shape)
    for layer in chain:
        x = layer(x)
    return keras.Model(inputs, x)


def grid_layer():
    return layers.KroneckerAttention(
        mode="kv", num_heads=2, projections="qkvo", scale=0.5, use_bias=True
    )


def models():
    """Model by name; what it is called with follows from its inputs."""
    yield (
        "kanet",
        kanets.KANet((32, 32, 3), 0.01, classes=3, strides=STRIDES),
    )
    for name in ("kao_qkv", "kao_kv", "dense", "dense_pool", "ylg"):
        yield (
            f"modules_{name}",
            around(
                layers.AttnModule(8, 2, attention=name),
                layers.AttnSkipModule(8, 2, attention=name),
                layers.AttnModule(8, 2, strides=2, attention=name),
            ),
        )
    yield (
        "modules_plain",
        around(
            layers.BaseModule(8, 2, dilation_rate=2),
            layers.BaseSkipModule(16, 2, strides=2),
            layers.AttnModule(16, 2, attention=None),
        ),
    )
    yield (
        "modules_literal",
        around(
            layers.AttnSkipModule(
                8,
                2,
                attention_scale=None,
                attention_norm=False,
                attention_activation=None,
            )
        ),
    )
    yield (
        "modules_given",
        around(layers.AttnModule(8, 2, attention=grid_layer)),
    )
    yield (
        "grid_attention",
        around(
            grid_layer(),
            layers.KroneckerAttention(mode="qkv", projections=""),
            layers.DenseAttention(
                pool_size=2, num_heads=4, projections="qv", scale="rsqrt"
            ),
            layers.BatchNormalization(epsilon=1e-4),
        ),
    )
    yield (
        "pattern_attention",
        around(
            ylg.layers.LocalSparseAttention2D(num_heads=8),
            ylg.layers.LocalSparseAttention2D(
                num_heads=4,
                alignment="tiled",
                spectral_norm=True,
                iterate_at_inference=True,
            ),
            ylg.layers.NonLocalAttention2D(num_heads=2, spectral_norm=True),
        ),
    )
    yield (
        "superconcentrator",
        around(
            ylg.layers.SuperconcentratorAttention(num_heads=2, seed=3),
        ),
    )
    small = keras.Input((3, 5, 8))
    large = keras.Input((9, 12, 4))
    yield (
        "resize_like",
        keras.Model([small, large], layers.ResizeLike()([small, large])),
    )
    yield (
        "kanet_segmenter",
        kanets.KANetSegmenter((32, 48, 3), alpha=0.01, classes=3),
    )
    yield (
        "generator",
        ylg.gan.generator(32, width=2, num_classes=3, latent_size=8),
    )
    yield (
        "generator_official",
        ylg.gan.generator(32, width=2, latent_size=8, official=True),
    )
    yield (
        "discriminator",
        ylg.gan.discriminator(32, width=2, num_classes=3, attention="dense"),
    )


def compiled():
    """Model, data and name: saved after a step, optimizer included."""
    for name, optimizer in (
        (
            "compiled_adamw",
            kanets.optimizers.LayerwiseAdamW(
                0.01, factors={"dense/kernel": 0.5}
            ),
        ),
        (
            "compiled_sgd",
            kanets.optimizers.LayerwiseSGD(0.01, momentum=0.9),
        ),
        (
            "compiled_lookahead",
            ylg.Lookahead(keras.optimizers.Adam(0.01), 2),
        ),
    ):
        x = inputs = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(3, 1, name="dense")(x)
        x = keras.layers.Softmax()(x)
        model = keras.Model(inputs, x)
        loss = kanets.losses.SegmentationCrossentropy(2, [1.0, 2.0, 0.5])
        model.compile(optimizer, loss)
        labels = np.arange(32).reshape(2, 4, 4) % 3
        yield name, model, random(2, 4, 4, 3), labels.astype("int32")
    gan = ylg.SAGAN(32, width=2, num_classes=3, latent_size=8, num_heads=2)
    gan.compile()
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    yield "sagan", gan, images.astype("float32"), np.arange(4) % 3


def inputs_of(model):
    given = []
    for index, tensor in enumerate(model.inputs):
        shape = [2, *(16 if n is None else n for n in tensor.shape[1:])]
        x = random(*shape, seed=index)
        if tensor.dtype == "int32":
            x = np.arange(2, dtype="int32")
        elif shape[-1] == 3:
            x = (127 + 50 * x).clip(0, 255)
        given.append(x)
    return given


def settled(model, x):
    """Outputs that differ: singular vectors found, the last kernel small."""
    for _ in range(10):
        model(x, training=True)
    outputs = model.predict_on_batch(x)
    squashed = np.abs(outputs).max() <= 1
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    for _ in range(20):
        if kernels and outputs.std() > (0.3 if squashed else 10):
            kernels[-1].assign(0.5 * kernels[-1])
            outputs = model.predict_on_batch(x)
    return outputs


def save(folder, name, model, given, outputs=None):
    if outputs is None:
        outputs = settled(model, given if len(given) > 1 else given[0])
    model.save(folder / f"{name}.keras")
    arrays = {f"input{i}": x for i, x in enumerate(given)}
    np.savez_compressed(folder / f"{name}.npz", output=outputs, **arrays)
    print(name, model.count_params(), outputs.shape, outputs.std())


class Stop(Exception):
    pass


def stopped_runs(folder, work):
    """Runs of two epochs, stopped in the second; how they would have ended."""
    photos = write_photos(work / "photos", 12, 6, (32, 32), "png")
    streets = write_streets(work / "streets", 6, 2, (16, 24))
    shared = {"epochs": 2, "batch_size": 4, "seed": 1}
    optimize = {"name": "adamw", "learning_rate": 0.01, "average": 0.5}
    plans = {
        "classifier": {
            "model": {
                "name": "KANet",
                "alpha": 0.01,
                "strides": list(STRIDES),
                "dropout_rate": 0.1,
            },
            "optimize": optimize,
            "data": {"source": str(photos)},
        },
        "segmenter": {
            "segmenter": {"name": "KANetSegmenter", "alpha": 0.01},
            "optimize": optimize,
            "data": {
                "source": str(streets),
                "class_names": ["blue", "red"],
                "ignore_label": 7,
            },
        },
        "gan": {
            "gan": {"width": 2, "latent_size": 8, "num_heads": 2},
            "steps_per_epoch": 2,
            "data": {"source": str(photos / "train"), "validation": 0.0},
        },
    }
    for name, fields in plans.items():
        recipe = recipes.from_dict({**fields, **shared})
        to = folder / f"run_{name}"
        write_log = kanets.checkpoints.write_log

        def write_and_stop(directory, rows, write_log=write_log):
            write_log(directory, rows)
            raise Stop

        kanets.checkpoints.write_log = write_and_stop
        try:
            recipes.train(recipe, to, verbose=0)
        except Stop:
            pass
        kanets.checkpoints.write_log = write_log
        shutil.rmtree(to / "tensorboard", ignore_errors=True)
        whole = work / name
        shutil.copytree(to, whole)
        recipes.train(recipe, whole, verbose=0)
        shutil.copy(whole / "log.csv", to / "log_of_both_epochs.csv")
        text = (to / "recipe.toml").read_text()
        for source in (photos, streets):
            text = text.replace(str(source), f"<{source.name}>")
        (to / "recipe.toml").write_text(text)


def pallas(folder):
    model = around(
        layers.KroneckerAttention(mode="qkv", implementation="pallas"),
        layers.KroneckerAttention(mode="kv", implementation="pallas"),
        ylg.layers.LocalSparseAttention2D(implementation="pallas"),
    )
    fill_weights(model.variables)
    save(folder, "pallas", model, inputs_of(model))


def main(folder, part="all"):
    folder = Path(folder)
    keras.utils.set_random_seed(0)
    if part == "pallas":
        return pallas(folder)
    for name, model in models():
        fill_weights(model.variables)
        save(folder, name, model, inputs_of(model))
    for name, model, x, labels in compiled():
        model.fit(x, labels, batch_size=4, epochs=1, verbose=0)
        # What a second epoch would have brought tells whether the
        # optimizer's state was saved, too.
        given = inputs_of(model) if name != "sagan" else [x]
        outputs = (
            model.generate(2, seed=0)
            if name == "sagan"
            else model.predict(x, verbose=0)
        )
        save(folder, name, model, [x] if name != "sagan" else given, outputs)
        history = model.fit(x, labels, batch_size=4, epochs=1, verbose=0)
        (folder / f"{name}.json").write_text(json.dumps(history.history))
    work = Path("/tmp/saved_work")
    shutil.rmtree(work, ignore_errors=True)
    stopped_runs(folder, work)


main(*sys.argv[1:])
