"""Is TensorFlow quicker with oneDNN where it leaves it off?

    python benchmarks/onednn.py

TensorFlow takes oneDNN's kernels of its own accord on CPUs with AVX512_VNNI
or better, and its own elsewhere, unless `TF_ENABLE_ONEDNN_OPTS` says
otherwise. Two processes, one with it and one without, take turns
(`measure.py`) at a training step and at a prediction of whole nets; writes
`onednn.csv`, three minutes of two quiet cores. `--quick` tries it and writes
nothing.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from measure import KEPT_MEMORY, Worker, machine, serve, take_turns
from tables import write

HERE = Path(__file__).parent
CASES = {
    f"{call}, {net}, {side} px, batch {batch}": {
        "call": call,
        "net": net,
        "side": side,
        "batch": batch,
    }
    for call, net, side, batch in (
        ("training step", "kanet_lite0_imagenet", 96, 32),
        ("training step", "KANet", 32, 128),
        ("training step", "keras.applications.MobileNetV2", 96, 32),
        ("training step", "SAGAN", 32, 16),
        ("prediction", "kanet_lite0_imagenet", 224, 1),
        ("prediction", "kanet_lite0_imagenet", 224, 32),
        ("prediction", "KANet", 32, 128),
        ("prediction", "keras.applications.MobileNetV2", 224, 1),
        ("prediction", "keras.applications.MobileNetV2", 224, 32),
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    workers = {
        name: Worker(
            __file__,
            {
                "KERAS_BACKEND": "tensorflow",
                "TF_ENABLE_ONEDNN_OPTS": flag,
                **KEPT_MEMORY,
            },
        )
        for name, flag in (("without", "0"), ("with", "1"))
    }
    rows = []
    for case, arguments in CASES.items():
        figures = take_turns(
            {name: (worker, arguments) for name, worker in workers.items()},
            seconds=1 if options.quick else 5,
            rounds=4,
        )
        without, with_it = (
            float(figures[name]["milliseconds"]) for name in workers
        )
        row = {"case": case, "ratio": f"{with_it / without:.2f}"}
        for name in workers:
            for column in ("milliseconds", "fastest", "slowest"):
                row[f"{column}_{name}"] = figures[name][column]
        row["machine"] = machine("tensorflow", "keras")
        rows.append(row)
        print(*list(row.values())[:-1], sep="\t", flush=True)
    for worker in workers.values():
        worker.close()
    if not options.quick:
        write(HERE / "onednn.csv", rows)


def prepare(call, net, side, batch):
    import keras

    import kanets
    import ylg
    from kanets.zoo import create_model

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch, side, side, 3)).astype("float32")
    labels = random.integers(0, 10, batch)
    shape = (side, side, 3)
    keras.utils.set_random_seed(0)
    if net == "SAGAN":
        model = ylg.SAGAN(
            side, width=8, num_classes=10, attention="dense", attention_size=16
        )
        model.compile()
        return lambda: model.train_on_batch(images, labels)
    if net == "KANet":
        strides = (2, 1, 2, 2, 1)
        model = kanets.KANet(shape, classes=10, alpha=0.5, strides=strides)
    elif net == "kanet_lite0_imagenet":
        model = create_model(net, num_classes=10, input_shape=shape)
    else:
        model = keras.applications.MobileNetV2(shape, weights=None, classes=10)
    if call == "prediction":
        return lambda: model.predict_on_batch(images)
    model.compile("adamw", "sparse_categorical_crossentropy")
    return lambda: model.train_on_batch(images, labels)


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
