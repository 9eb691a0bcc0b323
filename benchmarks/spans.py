"""Which spans do the layers of a character model learn, and what is that worth?

    nice -n 19 python benchmarks/spans.py

Half an hour of one core. Trains two models with `fit`, for twelve epochs, on
what Python says of its own language (`pydoc_data.topics`, 0.46 million
characters), in 16 texts side by side, of which the last tenth is held out: four
layers of `CausalSpanAttention`, each with the `SegmentMemory` of its inputs,
one model with spans that are learned and one with the whole span for all.
Writes `spans.csv`, a row a head, and `spans.png`, the spans after each epoch.

    span             positions, mean of the layer's heads and each head's own
    bits             a character of what was held out, in segments, the
                     memory kept
    multiply_adds    of scores and sums a position, all layers, as
                     far as spans reach with their ramp; trimmed
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from pydoc_data import topics

from measure import machine
from tables import write

HERE = Path(__file__).parent
TEXTS, LENGTH, LAYERS, HEADS, WIDTH = 16, 64, 4, 4, 64
# The penalty of a whole span, over all heads, is about the paper's.
SPAN, RAMP, PENALTY = 128, 4, 3e-5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(HERE.parent))
    rows = []
    for kind in ("adaptive", "fixed"):
        found, curve = train(kind, arguments.epochs)
        rows += found
        write(Path(__file__).with_suffix(".csv"), rows)
        if kind == "adaptive":
            plot(curve)


def segments():
    """Characters as int32 (steps, TEXTS, LENGTH + 1), and how many kinds."""
    import numpy as np

    text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    known = sorted(set(text))
    codes = {character: code for code, character in enumerate(known)}
    numbers = np.array([codes[character] for character in text], "int32")
    steps = (len(numbers) // TEXTS - 1) // LENGTH
    size = len(numbers) // TEXTS
    parts = np.stack(
        [
            numbers[i * size : i * size + steps * LENGTH + 1]
            for i in range(TEXTS)
        ]
    )
    x = parts[:, :-1].reshape(TEXTS, steps, LENGTH).swapaxes(0, 1)
    y = parts[:, 1:].reshape(TEXTS, steps, LENGTH).swapaxes(0, 1)
    return x, y, len(known)


def build(kind, characters):
    import keras

    from kanets import attention

    layers = keras.layers
    inputs = keras.Input((LENGTH,), batch_size=TEXTS, dtype="int32")
    x = layers.Embedding(characters, WIDTH)(inputs)
    for number in range(1, LAYERS + 1):
        normed = layers.LayerNormalization()(x)
        key, key_mask = attention.SegmentMemory(SPAN)(normed)
        attended = attention.CausalSpanAttention(
            SPAN,
            RAMP,
            span=kind,
            span_penalty=PENALTY,
            num_heads=HEADS,
            sees_itself=True,
            name=f"layer_{number}",
        )(normed, key=key, key_mask=key_mask)
        x = layers.Add()([x, attended])
        hidden = layers.LayerNormalization()(x)
        hidden = layers.Dense(2 * WIDTH, "relu")(hidden)
        x = layers.Add()([x, layers.Dense(WIDTH)(hidden)])
    outputs = layers.Dense(characters)(layers.LayerNormalization()(x))
    return keras.Model(inputs, outputs)


def train(kind, epochs):
    """Rows of the table, and the spans of the layers' heads by epoch."""
    import keras
    import numpy as np
    import tensorflow as tf

    from kanets import attention

    keras.utils.set_random_seed(0)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    x, y, characters = segments()
    held = len(x) // 10
    model = build(kind, characters)
    looking = [model.get_layer(f"layer_{n + 1}") for n in range(LAYERS)]
    memories = [
        layer
        for layer in model.layers
        if isinstance(layer, attention.SegmentMemory)
    ]

    def new_texts(*_):
        for memory in memories:
            memory.reset_state()

    curve = []

    def remember(epoch, logs):
        if kind == "adaptive":
            curve.append([layer.spans() for layer in looking])
        means = [s.mean().round(1) for s in (curve or [[]])[-1]]
        print(kind, epoch, logs, means, flush=True)

    # `fit` evaluates what is held out right after what comes before it.
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalCrossentropy(
                from_logits=True, name="nats"
            )
        ],
    )
    begin = time.process_time()
    history = model.fit(
        x[:-held].reshape(-1, LENGTH),
        y[:-held].reshape(-1, LENGTH),
        batch_size=TEXTS,
        epochs=epochs,
        shuffle=False,
        validation_data=(
            x[-held:].reshape(-1, LENGTH),
            y[-held:].reshape(-1, LENGTH),
        ),
        validation_batch_size=TEXTS,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_begin=new_texts, on_epoch_end=remember
            )
        ],
        verbose=0,
    )
    seconds = time.process_time() - begin
    bits = history.history["val_nats"][-1] / math.log(2)
    rows = []
    for number, layer in enumerate(looking, start=1):
        spans = [SPAN] * HEADS
        if kind == "adaptive":
            spans = layer.spans()
        for head, span in enumerate(spans, start=1):
            rows.append(
                {
                    "kind": kind,
                    "layer": number,
                    "head": head,
                    "span": f"{span:.1f}",
                    "layer_mean": f"{np.mean(spans):.1f}",
                    "bits": f"{bits:.4f}",
                    "multiply_adds": multiply_adds(kind, looking),
                    "epochs": epochs,
                    "cpu_seconds": f"{seconds:.0f}",
                    "machine": machine("keras", "tensorflow"),
                }
            )
    return rows, np.array(curve)


def multiply_adds(kind, looking):
    """Scores, positions and sums of a position, trimmed to the spans."""
    total = 0
    for layer in looking:
        reach = SPAN
        if kind == "adaptive":
            reach = min(SPAN, math.ceil(layer.spans().max() + RAMP))
        total += 3 * WIDTH * reach
    return total


def plot(curve):
    """Spans of the heads and their means by epoch: (epochs, LAYERS, HEADS)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    epochs = range(1, len(curve) + 1)
    for layer in range(LAYERS):
        [line] = axes.plot(
            epochs, curve[:, layer].mean(1), label=f"layer {layer + 1}", lw=2
        )
        axes.plot(epochs, curve[:, layer], color=line.get_color(), lw=0.5)
    axes.set_xlabel("epochs")
    axes.set_ylabel(f"span, of {SPAN} positions")
    axes.set_ylim(bottom=0)
    axes.legend(title="mean; thin: a head")
    figure.savefig(HERE / "spans.png", dpi=110)


if __name__ == "__main__":
    main()
