"""Does what came 10,000 steps ago still count?

    nice -n 19 python benchmarks/hierarchy.py

Ten minutes of one core, on JAX, which compiles the loops of recurrent nets.
`HierarchicalAttention` (blocks of 10, 32 channels, four heads) beside
`keras.layers.LSTM` and `GRU` of about the same number of parameters.

    gradient   hierarchy_gradient.csv: how much the output depends on the first
               of n inputs, as norms of the gradient at initialisation, over
               that of the last input and over their mean; float64, mean of
               eight sequences, median of three seeds
    recall     hierarchy_recall.csv: one of n symbols is marked, among the
               first tenth; which of eight is it? Sequences of 10 at first,
               and longer ones (ten times, twice for the LSTM, which finds
               that easier) as soon as 95 % of the last 50 batches are told
               right, for SECONDS of CPU or until 10,000 are mastered; all
               sequences are new. Accuracy is of 512 others
    time       hierarchy_time.csv: milliseconds of CPU a sequence, forward
               and backward, four at a time; median, fastest and slowest of
               five calls; the exponent of n up to this row

`--part` runs one of these, and `hierarchy.png` shows what is in the tables.
"""

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

from measure import machine
from tables import read, write

HERE = Path(__file__).parent
WINDOW, UNITS, HEADS, SYMBOLS = 10, 32, 4, 8
LENGTHS = (10, 100, 1_000, 10_000)
TIMED = (1_000, 3_000, 10_000, 30_000)
KINDS = ("hierarchical", "lstm", "gru")
NAMES = {"hierarchical": "hierarchical", "lstm": "LSTM", "gru": "GRU"}
STAGES = {
    "hierarchical": LENGTHS,
    "lstm": (*(10 * 2**i for i in range(10)), LENGTHS[-1]),
}
SEEDS = (0, 1, 2)
LEAST = 1e-300  # where what is 0 in float64 is drawn
BATCH, RATE, SECONDS, TESTED = 16, 3e-3, 36, 512


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=PARTS)
    part = parser.parse_args().part
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    sys.path.insert(0, str(HERE.parent))
    for name in PARTS if part is None else [part]:
        rows = []
        for row in PARTS[name]():
            rows.append({**row, "machine": machine("keras", "jax")})
            print(*list(row.values()), flush=True)
            write(table(name), rows)
    if all(table(name).exists() for name in ("gradient", "time")):
        plot()


def table(part):
    return HERE / f"hierarchy_{part}.csv"


def build(kind, length, dtype=None):
    """A net of a sequence (length, SYMBOLS + 1), which says SYMBOLS logits.

    With length None it has four levels; otherwise as many as it takes.
    """
    import keras

    from kanets import attention

    inputs = keras.Input((length, SYMBOLS + 1), dtype=dtype or "float32")
    if kind == "hierarchical":
        windows = [WINDOW] * 4 if length is None else WINDOW
        layer = attention.HierarchicalAttention(
            windows, UNITS, HEADS, dtype=dtype
        )
    else:
        cell = keras.layers.LSTM if kind == "lstm" else keras.layers.GRU
        layer = cell(width(kind), dtype=dtype)
    outputs = keras.layers.Dense(SYMBOLS, dtype=dtype)(layer(inputs))
    return keras.Model(inputs, outputs)


def outputs_of(model, weights, x):
    """What a model says with these values of its trainable variables."""
    others = [v.value for v in model.non_trainable_variables]
    return model.stateless_call(weights, others, x)[0]


def width(kind):
    """Units of a recurrent net as large as four levels are."""
    target = build("hierarchical", LENGTHS[-1]).count_params()
    gates = 4 if kind == "lstm" else 3

    def count(units):
        biases = 1 if kind == "lstm" else 2
        cell = gates * units * (units + SYMBOLS + 1 + biases)
        return cell + (units + 1) * SYMBOLS

    return min(range(1, 200), key=lambda units: abs(count(units) - target))


def path(kind, length):
    """Steps from the first input to the output."""
    if kind == "hierarchical":
        return math.ceil(round(math.log(length, WINDOW), 9))
    return length


def gradients():
    import jax
    import keras
    import numpy as np

    for kind in KINDS:
        for length in LENGTHS:
            with jax.enable_x64(True):
                model = build(kind, length, "float64")

                def loss(x, way, weights, model=model):
                    outputs = outputs_of(model, weights, x)
                    return (outputs * way).sum()

                slope_of = jax.jit(jax.grad(loss))
                last, mean = [], []
                for seed in SEEDS:
                    keras.utils.set_random_seed(seed)
                    rng = np.random.default_rng(seed)
                    x = rng.normal(size=(8, length, SYMBOLS + 1))
                    way = rng.normal(size=(8, SYMBOLS))
                    fresh = build(kind, length, "float64").trainable_variables
                    found = slope_of(x, way, [v.value for v in fresh])
                    norms = np.linalg.norm(found, axis=-1).mean(0)
                    last.append(norms[0] / norms[-1])
                    mean.append(norms[0] / norms.mean())
            yield {
                "kind": kind,
                "length": length,
                "path": path(kind, length),
                "parameters": model.count_params(),
                "first_over_last": f"{statistics.median(last):.3g}",
                "first_over_mean": f"{statistics.median(mean):.3g}",
            }


def sequences(rng, count, length):
    """x (count, length, SYMBOLS + 1), the last a mark, and what is marked."""
    import numpy as np

    rows = np.arange(count)
    symbols = rng.integers(SYMBOLS, size=(count, length))
    places = rng.integers(length // 10, size=count)
    x = np.zeros((count, length, SYMBOLS + 1), "float32")
    x[rows[:, None], np.arange(length), symbols] = 1
    x[rows, places, SYMBOLS] = 1
    return x, symbols[rows, places]


def recall():
    for kind, stages in STAGES.items():
        for seed in SEEDS:
            model, mastered, seconds, batches = trained(kind, stages, seed)
            yield {
                "kind": kind,
                "seed": seed,
                "parameters": model.count_params(),
                "mastered": mastered,
                "cpu_seconds": f"{seconds:.0f}",
                "batches": batches,
                "length": stages[-1],
                "accuracy": f"{accuracy(model, stages[-1]):.3f}",
            }


def trained(kind, stages, seed):
    """The net, the longest length mastered, CPU seconds and batches taken.

    Compilation is not counted.
    """
    import keras
    import numpy as np

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = build(kind, None)
    model.compile(
        keras.optimizers.Adam(RATE, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    taken, batches, mastered = 0.0, 0, 0
    for length in stages:
        recent = []
        while statistics.fmean(recent or [0]) < 0.95 or len(recent) < 50:
            if taken > SECONDS:
                return model, mastered, taken, batches
            begin = time.process_time()
            model.reset_metrics()
            x, y = sequences(rng, BATCH, length)
            _, right = model.train_on_batch(x, y)
            recent = [*recent[-49:], float(right)]
            if len(recent) > 1:
                taken += time.process_time() - begin
            batches += 1
        mastered = length
    return model, mastered, taken, batches


def accuracy(model, length):
    """The part of TESTED new sequences that is told right."""
    import numpy as np

    rng, right = np.random.default_rng(len(SEEDS) + 1), 0
    for _ in range(TESTED // BATCH):
        x, y = sequences(rng, BATCH, length)
        right += (model.predict_on_batch(x).argmax(-1) == y).sum()
    return right / TESTED


def times():
    import jax
    import numpy as np

    for kind in ("hierarchical", "lstm"):
        taken = {}
        for length in TIMED:
            model = build(kind, length)
            x, _ = sequences(np.random.default_rng(0), 4, length)
            weights = [v.value for v in model.trainable_variables]

            def loss(weights, x, model=model):
                outputs = outputs_of(model, weights, x)
                return (outputs**2).mean()

            step = jax.jit(jax.value_and_grad(loss))
            jax.block_until_ready(step(weights, x))
            calls = []
            for _ in range(5):
                begin = time.process_time()
                jax.block_until_ready(step(weights, x))
                calls.append(1e3 * (time.process_time() - begin) / len(x))
            taken[length] = statistics.median(calls)
            yield {
                "kind": kind,
                "length": length,
                "parameters": model.count_params(),
                "milliseconds": f"{taken[length]:.3g}",
                "fastest": f"{min(calls):.3g}",
                "slowest": f"{max(calls):.3g}",
                "exponent": f"{slope(taken):.2f}" if len(taken) > 1 else "",
            }


def slope(taken):
    """The exponent of the length, by least squares, of those so far."""
    import numpy as np

    x, y = np.log(list(taken)), np.log(list(taken.values()))
    return np.polyfit(x, y, 1)[0]


def plot():
    """Gradients and times against the length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = read(table("gradient"))
    for number, kind in enumerate(KINDS):
        points = [
            (int(row["length"]), float(row["first_over_last"]))
            for row in rows
            if row["kind"] == kind
        ]
        seen = [point for point in points if point[1] > 0]
        name = f"{NAMES[kind]}, {path(kind, points[-1][0]):,} steps"
        [line] = left.plot(*zip(*seen, strict=True), "o-", label=name)
        for length, value in points:
            if value == 0:  # less than float64 holds; beside each other
                place = length * 1.15 ** (number - 1)
                left.plot(place, LEAST, "v", color=line.get_color())
    left.set(
        xscale="log",
        yscale="log",
        ylim=(LEAST / 1e20, 1e20),
        yticks=[10.0**-power for power in range(0, 301, 50)],
        xlabel="steps n",
        ylabel="gradient of the first input\nover that of the last",
        title="at initialisation; triangles: 0 in float64",
    )
    left.legend(loc="lower left", title="path from the first of 10,000")
    rows = read(table("time"))
    for kind in KINDS[:2]:
        points = [
            (int(row["length"]), float(row["milliseconds"]))
            for row in rows
            if row["kind"] == kind
        ]
        exponent = [r["exponent"] for r in rows if r["kind"] == kind][-1]
        right.plot(
            *zip(*points, strict=True),
            "o-",
            label=f"{NAMES[kind]}: n^{exponent}",
        )
    right.set(
        xscale="log",
        yscale="log",
        xlabel="steps n",
        ylabel="ms of CPU a sequence",
        title="forward and backward",
    )
    right.legend()
    figure.savefig(HERE / "hierarchy.png", dpi=110)


PARTS = {"gradient": gradients, "recall": recall, "time": times}


if __name__ == "__main__":
    main()
