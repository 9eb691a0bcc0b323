"""What does a net lose with its smallest weights, and what is its file then?

    python benchmarks/pruning.py --data DATA --folder runs/pruning

`kanet_lite0_imagenet` with a new head on 5,000 pictures of CIFAR-10 at 96 px:
four epochs of AdamW at 1e-3, warm-up and cosine, flips and shifts, batches of
50; the share of zeros rises over the first three (`kanets.pruning`). Judged, at
the end, on 10,000 other pictures of `train/`. Writes `pruning.csv`: accuracy,
and the bytes of the LiteRT file in float32 and float16, with the zeros and
without. A row that is there is not repeated; four minutes of one core each.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from tables import append_run, holds, read
from verdict import BATCH, augmented, drawn, schedule

import kanets

HERE = Path(__file__).parent
SIDE, PICTURES, EPOCHS, RISES = 96, 5_000, 4, 3
RATE, DECAY = 1e-3, 0.01
SPARSITIES = (0.0, 0.5, 0.75, 0.9)


def trained(sparsity, seed, x, y):
    keras.utils.set_random_seed(seed)
    net = kanets.create_model(
        "kanet_lite0_imagenet", num_classes=10, input_shape=(SIDE, SIDE, 3)
    )
    steps = EPOCHS * len(x) // BATCH
    net.compile(
        keras.optimizers.AdamW(schedule(RATE, steps), weight_decay=DECAY),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    callbacks = []
    if sparsity:
        callbacks = [kanets.pruning.MagnitudePruning(sparsity, to_epoch=RISES)]
    inputs, labels = augmented(x, y, EPOCHS, seed)

    def batches():
        for start in range(0, len(inputs), BATCH):
            rows = slice(start, start + BATCH)
            yield inputs[rows].astype("float32"), labels[rows]

    net.fit(
        batches(),
        epochs=EPOCHS,
        steps_per_epoch=steps // EPOCHS,
        callbacks=callbacks,
        verbose=2,
    )
    return net


def sizes(net):
    """The bytes of its LiteRT files, by precision and whether sparse."""
    names = [str(i) for i in range(net.output_shape[-1])]
    found = {}
    for precision in ("float32", "float16"):
        for kind in ("", "_sparse"):
            with tempfile.TemporaryDirectory() as folder:
                to = kanets.export_litert(
                    net,
                    Path(folder) / "exported",
                    names,
                    precision=precision,
                    sparse=bool(kind),
                )
                size = (to / "model.tflite").stat().st_size
            found[f"{precision}{kind}_bytes"] = size
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    path = HERE / "pruning.csv"
    options.folder.mkdir(parents=True, exist_ok=True)
    (x, y), (seen, truth) = drawn(
        options.folder / "cifar10.npz", options.data / "cifar10", SIDE, PICTURES
    )
    for seed in options.seeds:
        for sparsity in SPARSITIES:
            case = {"sparsity": sparsity, "seed": seed}
            if holds(read(path), **case):
                continue
            net = trained(sparsity, seed, x, y)
            scores = net.predict(seen.astype("float32"), 100, verbose=0)
            right = 100 * np.mean(scores.argmax(-1) == truth)
            row = {
                **case,
                "accuracy": f"{right:.2f}",
                "zeros": f"{kanets.pruning.sparsity(net):.4f}",
                **sizes(net),
                "pictures_train": len(x),
                "pictures_judged": len(seen),
                "epochs": EPOCHS,
            }
            append_run(path, row)


if __name__ == "__main__":
    main()
