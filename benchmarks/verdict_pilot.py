"""Which attention, in which form and where, is worth its parameters?

    python benchmarks/verdict_pilot.py run --data cifar10 \
        --weights efficientnet_lite0.npz --folder runs/verdict_pilot
    python benchmarks/verdict_pilot.py table --folder runs/verdict_pilot

One pass over the forms of `verdict_forms.py`, to choose what is worth long
trainings. Body: EfficientNet-Lite0 with its ImageNet weights
(`efficientnet_lite.py`); in its eleven blocks of stride 1 from 24 channels on
stands a form that starts closed (asserted: outputs differ by 0.0). Task:
5,000 pictures of CIFAR-10 (JPEG), upscaled to 96 px, and 10,000 held-out ones,
both drawn from `train`; `test` chooses nothing. Three epochs of AdamW, 5e-4
for the body and 1e-3 for what is new, warm-up and cosine, flips and shifts.
A seed sets order, augmentation and fresh weights; the split is always the
same, and so are, within a seed, order, augmentation and head. To spare hours
the stem and the first two blocks, before any form, are frozen: what they say
of the pictures is computed once a seed. The rest trains.

`run`: a run is a process; it appends its row to `rows.csv` when all is done,
and a row that is there is not repeated. `correct/` keeps which pictures were
named rightly and the loss of each; `weights/`, the net.

`table` copies the rows to `verdict_pilot.csv` and prints means and paired
differences to "none" and to the control "mlp" over the seeds that both have,
with 95 % intervals from resampled pictures. These hold for the seeds at hand:
another seed moves a difference by some tenths of a point.

A run takes about 200 seconds of one core (x86-64 with AVX-512, TensorFlow
2.21, one thread). What a form costs is not measured here.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tables import append, read

HERE = Path(__file__).parent
TRAIN, HELD_OUT = 5_000, 10_000
SIDE, EPOCHS, BATCH, SHIFT = 96, 3, 50, 4
BODY_RATE, NEW_RATE, DECAY, WARM_UP = 5e-4, 1e-3, 0.01, 30
CHOICE = ("none", "mlp", "means_mlp_expanded", "mlp_expanded")
CHOICE += ("kao_norm_expanded", "kao_self_expanded", "kao_norm")
PLAN = [  # the most important first
    *((form, seed) for seed in (0, 1, 2) for form in CHOICE),
    *((form, 0) for form in ("kao_qkv", "means_mlp", "cross_mlp")),
    *((form, 0) for form in ("kao_relu6", "kao_mlp", "kao_gate")),
    *((form, 0) for form in ("means_mlp_last", "means_conv", "kao_axis")),
    *((form, 0) for form in ("kao_kv", "mlp_dw", "se")),
]


def pictures(folder, data=None):
    """The fixed split, decoded once: x, y of training and held-out."""
    path = folder / "cifar10.npz"
    if not path.exists():
        from PIL import Image

        groups = sorted(p for p in (data / "train").iterdir() if p.is_dir())
        files = [
            (f, y) for y, g in enumerate(groups) for f in sorted(g.iterdir())
        ]
        order = np.random.default_rng(0).permutation(len(files))
        chosen = [files[i] for i in order[: TRAIN + HELD_OUT]]
        x = np.stack(
            [np.asarray(Image.open(f).convert("RGB")) for f, _ in chosen]
        )
        np.savez(path, x=x, y=np.array([y for _, y in chosen], "int32"))
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def augmented(x, y, seed):
    """All epochs' pictures in order: shuffled, flipped and shifted."""
    random = np.random.default_rng(seed)
    padded = np.pad(x, ((0, 0), (SHIFT,) * 2, (SHIFT,) * 2, (0, 0)), "reflect")
    height, width = x.shape[1:3]
    xs, ys = [], []
    for _ in range(EPOCHS):
        for i in random.permutation(len(x)):
            top, left = random.integers(0, 2 * SHIFT + 1, 2)
            picture = padded[i, top : top + height, left : left + width]
            xs.append(picture[:, ::-1] if random.random() < 0.5 else picture)
            ys.append(y[i])
    return np.stack(xs), np.array(ys)


def build(form, seed, weights, side=SIDE, size=32):
    """A net with the published body, whose head depends on the seed alone."""
    import keras
    from efficientnet_lite import efficientnet_lite0, load
    from verdict_forms import inserter

    keras.utils.set_random_seed(seed)
    net = efficientnet_lite0(
        (size, size, 3), classes=10, insert=inserter(form), side=side
    )
    load(net, weights)
    head = net.get_layer("fc")
    inputs = head.kernel.shape[0]
    random = np.random.default_rng(seed)
    limit = (6 / (inputs + 10)) ** 0.5
    kernel = random.uniform(-limit, limit, (inputs, 10)).astype("float32")
    head.set_weights([kernel, np.zeros(10, "float32")])
    return net


def optimizer(net, steps):
    import keras

    from kanets.train.optimizers import LayerwiseAdamW

    new = ("new_", "fc")
    body = {
        variable.path: BODY_RATE / NEW_RATE
        for layer in net.layers
        if not layer.name.startswith(new)
        for variable in layer.trainable_variables
    }
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps - WARM_UP,
        warmup_target=NEW_RATE,
        warmup_steps=WARM_UP,
    )
    return LayerwiseAdamW(rate, weight_decay=DECAY, factors=body)


def one(options):
    """Trains and judges one form with one seed, and appends the row."""
    import keras
    from verdict import frozen, split_at

    form, seed, folder = options.form, options.seed, options.folder
    train, (x, y) = pictures(folder)
    net = build(form, seed, options.weights)
    plain = build("none", seed, options.weights)
    logits = net(x[:16], training=False).numpy()
    difference = float(
        np.abs(logits - plain(x[:16], training=False).numpy()).max()
    )
    if difference:
        raise SystemExit(f"{form} does not start closed: {difference}")
    added = net.count_params() - plain.count_params()
    del plain
    stem, rest = split_at(net, "block_1_project_norm")
    inputs, labels = augmented(*train, seed)
    inputs = frozen(stem, inputs, folder / f"frozen_{seed}.npy")
    seen = frozen(stem, x, folder / "frozen_held_out.npy")
    rounding = np.abs(
        logits - rest(np.float32(seen[:16]), training=False).numpy()
    ).max()
    print(f"float16 between the parts moves logits by {rounding:.1e}")
    keras.utils.set_random_seed(seed)
    rest.compile(
        optimizer(rest, len(inputs) // BATCH),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    losses = []
    for i in range(0, len(inputs), BATCH):
        batch = np.float32(inputs[i : i + BATCH])
        losses.append(rest.train_on_batch(batch, labels[i : i + BATCH]))
        if len(losses) == options.steps:
            return print(f"{time.process_time() - start_cpu:.1f} s", losses)
    middle, middle_cpu = time.perf_counter(), time.process_time()
    logits = np.concatenate(
        [
            rest.predict_on_batch(np.float32(seen[i : i + 100]))
            for i in range(0, len(seen), 100)
        ]
    ).astype("float64")
    end = time.perf_counter()
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(logits, y[:, None], -1)[:, 0]
    correct = logits.argmax(-1) == y
    name = f"{form}_{seed}"
    for part in ("correct", "weights"):
        (folder / part).mkdir(exist_ok=True)
    np.savez_compressed(
        folder / "correct" / f"{name}.npz",
        correct=np.packbits(correct),
        count=len(correct),
        loss=loss.astype("float32"),
    )
    net.save_weights(folder / "weights" / f"{name}.weights.h5")
    row = {
        "form": form,
        "seed": seed,
        "accuracy": round(100 * float(correct.mean()), 2),
        "loss": round(float(loss.mean()), 4),
        "parameters_added": added,
        "difference_at_start": difference,
        "seconds_train": round(middle - start, 1),
        "cpu_seconds_train": round(middle_cpu - start_cpu, 1),
        "seconds_test": round(end - middle, 1),
        "side": SIDE,
        "epochs": EPOCHS,
        "pictures_train": TRAIN,
        "pictures_held_out": HELD_OUT,
    }
    print(row, flush=True)
    append(folder / "rows.csv", row)


def rows_of(folder):
    return read(folder / "rows.csv")


def run(options):
    """The plan, a process a run; what is in `rows.csv` is passed over."""
    options.folder.mkdir(parents=True, exist_ok=True)
    pictures(options.folder, options.data)
    variables = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for form, seed in PLAN:
        done = {(r["form"], r["seed"]) for r in rows_of(options.folder)}
        if (form, str(seed)) in done:
            continue
        command = [sys.executable, __file__, "one"]
        command += ["--folder", str(options.folder), "--form", form]
        command += ["--seed", str(seed), "--weights", str(options.weights)]
        print(time.strftime("%H:%M:%S"), form, seed, flush=True)
        failed = subprocess.run(command, env=variables).returncode
        if failed:
            print(f"{form} {seed} failed: {failed}", flush=True)


def table(options):
    """Prints what the rows so far say, and keeps them beside this script."""
    rows = rows_of(options.folder)
    (HERE / "verdict_pilot.csv").write_bytes(
        (options.folder / "rows.csv").read_bytes()
    )
    found = {}
    for row in rows:
        name = f"{row['form']}_{row['seed']}.npz"
        path = options.folder / "correct" / name
        if not path.exists():
            print(f"{name} is not here: its row stands in the file alone.")
            continue
        with np.load(path) as file:
            correct = np.unpackbits(file["correct"], count=file["count"])
            found.setdefault(row["form"], {})[row["seed"]] = (
                100.0 * correct,
                file["loss"],
            )
    print("| form | seeds | accuracy | loss |", end="")
    print(" to none | in loss | to mlp | in loss |")
    print("|---|---|---|---|---|---|---|---|")
    for form, seeds in found.items():
        cells = [form, str(len(seeds))]
        for i, digits in ((0, 2), (1, 4)):
            mean = np.mean([figures[i] for figures in seeds.values()])
            cells.append(f"{mean:.{digits}f}")
        for other in ("none", "mlp"):
            shared = seeds.keys() & found.get(other, {}).keys()
            for i, digits in ((0, 2), (1, 4)):
                if form == other or not shared:
                    cells.append("")
                    continue
                difference = np.mean(
                    [seeds[k][i] - found[other][k][i] for k in shared], axis=0
                )
                low, high = interval(difference)
                cells.append(
                    f"{difference.mean():+.{digits}f} "
                    f"[{low:+.{digits}f}, {high:+.{digits}f}]"
                )
        print("|", " | ".join(cells), "|")


def interval(values, resamples=2000):
    """95 % of the means of `values` when these are drawn with replacement."""
    random = np.random.default_rng(0)
    means = [
        values[random.integers(0, len(values), len(values))].mean()
        for _ in range(resamples)
    ]
    return np.percentile(means, (2.5, 97.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("--folder", type=Path, default="runs/verdict_pilot")
    parser.add_argument("--data", type=Path, default=Path("cifar10"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--form")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="stop there, to try it")
    options = parser.parse_args()
    COMMANDS[options.command](options)


COMMANDS = {
    "run": run,
    "one": one,
    "table": table,
}


if __name__ == "__main__":
    main()
