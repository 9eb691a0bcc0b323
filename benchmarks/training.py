"""How many pictures a second does `fit()` train on, and is it kept fed?

    python benchmarks/training.py

Five minutes on two quiet cores. Writes `training.csv` and `training.png`
beside this file and prints the rates; `--parts` and `--quick` try some and
write nothing.

`fit`: pictures a second of `fit()` with SGD, nets of width 0.5 and 10 classes
at 32 px, batches of 128 from memory; also with batch normalisation as Keras
computes it, which the MobileNets have. KANets have a partner of the same
strides: `kanets.nets.MobileNetV2` those of our recipes, which reduce by 8, and
`keras.applications.MobileNetV2` its own, which reduce by 32.

`pipeline`: pictures a second of the batches alone, augmented as in the
recipes (mirrored, shifted by 4), from the JPEGs of the embedded sample:
decoded once, as sets that fit in memory are, and each time, as others are. It
has to be faster than `fit()`: a set is prepared in a thread beside it.

`gan`: steps a second of SAGANs of an eighth of the papers' width or less, with
dense attention, whose keys are pooled by 2, and with YLG's, in the largest map
that both networks have: 16 x 16, 32 x 32 and 64 x 64 in pictures of twice that
side. One step updates both networks.

Contenders of a part take turns (`measure.py`) in one process. `peak_mib` is
what another process, whose allocator keeps no freed blocks, grows by during a
call: what a step needs beside weights and pictures.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import (
    HONEST_MEMORY,
    Worker,
    machine,
    peak_memory,
    serve,
    take_turns,
)
from nets import mobilenet_v2
from tables import write

HERE = Path(__file__).parent
BATCH, STEPS = 128, 4  # of a call of `fit()`
STRIDES = (2, 1, 2, 2, 1)
FITS = {
    "KANet": {"net": "KANet", "strides": STRIDES},
    "KANet, Keras's normalisation": {
        "net": "KANet",
        "strides": STRIDES,
        "fused": False,
    },
    "MobileNetV2": {"net": "MobileNetV2", "strides": STRIDES},
    "KANet, strides of 2": {"net": "KANet", "strides": (2,) * 5},
    "keras.applications.MobileNetV2": {"net": "keras", "strides": (2,) * 5},
}
PIPELINES = {
    "pipeline, decoded once": {"in_memory": True},
    "pipeline, decoded each time": {"in_memory": False},
}
# Side of the pictures: width and batch.
SAGANS = {32: (8, 16), 64: (8, 16), 128: (4, 2)}
GANS = {
    f"{attention}, {side} px": {"attention": attention, "side": side}
    for side in SAGANS
    for attention in ("dense", "ylg")
}
PARTS = {
    "fit": ("pictures", {**FITS, **PIPELINES}, BATCH * STEPS),
    "gan": ("steps", GANS, 1),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    variables = {"KERAS_BACKEND": "tensorflow"}
    worker = Worker(__file__, variables)
    measured = Worker(__file__, {**variables, **HONEST_MEMORY})
    rows = []
    for part in options.parts or PARTS:
        unit, cases, count = PARTS[part]
        figures = take_turns(
            {name: (worker, case) for name, case in cases.items()},
            seconds=0.5 if options.quick else 8,
            rounds=4,
        )
        for name, figure in figures.items():
            rate = ""
            if figure["milliseconds"]:
                rate = f"{1e3 * count / float(figure['milliseconds']):.4g}"
            row = {"contender": name, "unit": unit, "per_second": rate}
            row.update(figure, peak_mib=peak_memory(measured, cases[name]))
            row["machine"] = machine("tensorflow", "keras")
            rows.append(row)
            print(*list(row.values())[:-1], sep="\t", flush=True)
    worker.close()
    measured.close()
    report(rows)
    if not (options.parts or options.quick):
        write(HERE / "training.csv", rows)
        plot(rows)


def prepare(**case):
    if "net" in case:
        return fit(**case)
    if "in_memory" in case:
        return pipeline(**case)
    return gan(**case)


def fit(net, strides, fused=True):
    import keras

    import kanets
    from kanets.layers import BatchNormalization
    from kanets.nets import CLASSIFIERS

    shape, settings = (32, 32, 3), {"alpha": 0.5, "classes": 10}
    if net == "keras":
        model = mobilenet_v2(shape, **settings)
    elif net == "KANet":
        model = kanets.KANet(shape, strides=strides, **settings)
    else:
        model = CLASSIFIERS[net](shape, strides=strides, **settings)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    images, labels = pictures(BATCH * STEPS, 32)

    def call():
        # Kept apart: what the fused normalisation is worth, which the
        # MobileNets do not have.
        fused_form = BatchNormalization._has_fused_form
        if not fused:
            BatchNormalization._has_fused_form = lambda *_: False
        try:
            model.fit(images, labels, batch_size=BATCH, verbose=0)
        finally:
            BatchNormalization._has_fused_form = fused_form

    return call


def pipeline(in_memory):
    """Makes as many pictures as a call of `fit()` takes."""
    from kanets import data
    from kanets.train.augment import Augmentation

    data.folders.MEMORY_BUDGET = 2**30 if in_memory else 0
    folder = tempfile.TemporaryDirectory()
    source = data.unpack_sample(Path(folder.name) / "sample")
    batches, _ = data.load(source, batch_size=BATCH)
    batches = data.augmented(batches, Augmentation(10, (32, 32), crop=4))

    def take():
        for index in range(STEPS):
            batches[index]
        return folder  # which is deleted with this function

    return take


def gan(attention, side):
    import keras

    import ylg

    keras.utils.set_random_seed(0)
    width, batch = SAGANS[side]
    model = ylg.SAGAN(
        side,
        width=width,
        num_classes=10,
        attention=attention,
        attention_size=side // 2,
    )
    model.compile()
    images, labels = pictures(batch, side)
    return lambda: model.train_on_batch(images, labels)


def pictures(count, side):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, 3), "uint8")
    return images.astype("float32"), random.integers(0, 10, count)


def report(rows):
    """Prints what the rates are to be compared for."""
    rates = {
        row["contender"]: float(row["per_second"])
        for row in rows
        if row["per_second"]
    }
    ours, *_ = FITS
    compared = [
        (ours, "MobileNetV2"),
        ("KANet, Keras's normalisation", "MobileNetV2"),
        ("KANet, strides of 2", "keras.applications.MobileNetV2"),
        *((name, ours) for name in PIPELINES),
        *((f"ylg, {side} px", f"dense, {side} px") for side in SAGANS),
    ]
    for above, below in compared:
        if {above, below} <= set(rates):
            factor = rates[above] / rates[below]
            print(f"{above} / {below}: {factor:.2f}")


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    axes = figure.subplots(1, len(PARTS))
    for axis, (unit, cases, _) in zip(axes, PARTS.values(), strict=True):
        shown = [r for r in rows if r["contender"] in cases and r["per_second"]]
        names = [row["contender"] for row in shown]
        rates = [float(row["per_second"]) for row in shown]
        bars = axis.barh(names, rates)
        axis.bar_label(bars, [f"{rate:.3g}" for rate in rates], padding=2)
        axis.invert_yaxis()
        axis.set(xlabel=f"{unit} a second")
        if unit == "steps":
            axis.set_xscale("log")
        axis.margins(x=0.15)
    figure.savefig(HERE / "training.png", dpi=110)


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
