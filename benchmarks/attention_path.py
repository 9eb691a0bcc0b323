"""How should the attention path of a KANet be scaled and normalised?

    python benchmarks/attention_path.py --data cifar10 --rates 0.2 0.05

trains one small KANet per variant for two epochs on CIFAR-10 (JPEG), all else
equal, and appends a row each to `benchmarks/attention_path.csv`. A row that
is already there is not run again. `cifar10` holds `train/` and `test/`, a
folder per class.
"""

import argparse
import itertools
import platform
from pathlib import Path

import keras
import numpy as np
import tables

import kanets

BATCH, EPOCHS = 128, 2
OUTPUT = Path(__file__).with_suffix(".csv")


def chain(*makers):
    """A callable that makes layers and runs them one after the other."""
    return lambda: keras.Sequential([make() for make in makers])


def kao(**arguments):
    return lambda: kanets.layers.KroneckerAttention(mode="qkv", **arguments)


norm = keras.layers.BatchNormalization


def closed_norm():
    """Batch norm whose scale starts at zero: the path opens as it earns."""
    return norm(gamma_initializer="zeros")


# name: (attention, scale, normalised, activation)
VARIANTS = {
    "no attention path": (None, None, False, None),
    "literal": ("kao_qkv", None, False, None),
    "scale": ("kao_qkv", "rsqrt", False, None),
    "norm": ("kao_qkv", None, True, None),
    "scale, norm": ("kao_qkv", "rsqrt", True, None),
    "norm, relu6": ("kao_qkv", None, True, "relu6"),
    "scale, norm, relu6": ("kao_qkv", "rsqrt", True, "relu6"),
    "scale, norm that starts at 0": (
        chain(kao(scale="rsqrt"), closed_norm),
        None,
        False,
        None,
    ),
    "norm before, norm, relu6": (chain(norm, kao()), None, True, "relu6"),
    "norm before, scale, norm, relu6": (
        chain(norm, kao(scale="rsqrt")),
        None,
        True,
        "relu6",
    ),
    "scale, norm, relu6, 4 heads": (
        kao(scale="rsqrt", num_heads=4),
        None,
        True,
        "relu6",
    ),
    "scale, norm, relu6, qkv maps": (
        kao(scale="rsqrt", projections="qkv"),
        None,
        True,
        "relu6",
    ),
    "kv: scale, norm, relu6": ("kao_kv", "rsqrt", True, "relu6"),
    "dense: scale, norm, relu6": ("dense", "rsqrt", True, "relu6"),
}


def read(folder):
    batches = kanets.data.load_test(folder, batch_size=1000)
    parts = [batches[index] for index in range(len(batches))]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def run(variant, peak_rate, seed, train, test):
    attention, scale, normalised, activation = VARIANTS[variant]
    keras.utils.set_random_seed(seed)
    model = kanets.KANet(
        (32, 32, 3),
        alpha=0.5,
        classes=10,
        strides=(2, 1, 2, 2, 1),
        attention=attention,
        attention_scale=scale,
        attention_norm=normalised,
        attention_activation=activation,
    )
    steps = EPOCHS * -(-len(train[0]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=peak_rate, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        *train, batch_size=BATCH, epochs=EPOCHS, verbose=0
    ).history
    _, accuracy = model.evaluate(*test, batch_size=500, verbose=0)
    return {
        "variant": variant,
        "peak_rate": peak_rate,
        "seed": seed,
        "test_accuracy": round(float(accuracy), 4),
        "train_loss_epoch1": round(history["loss"][0], 4),
        "train_loss_epoch2": round(history["loss"][1], 4),
        "parameters": model.count_params(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "machine": platform.machine(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    done = {
        (row["variant"], float(row["peak_rate"]), int(row["seed"]))
        for row in tables.read(OUTPUT)
    }
    train, test = read(arguments.data / "train"), read(arguments.data / "test")
    for cell in itertools.product(
        arguments.variants, arguments.rates, arguments.seeds
    ):
        if cell in done:
            continue
        row = run(*cell, train, test)
        print(row, flush=True)
        tables.append(OUTPUT, row)


if __name__ == "__main__":
    main()
