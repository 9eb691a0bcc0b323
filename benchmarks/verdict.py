"""Which attention should one put into a compact net?

    python benchmarks/verdict.py run --data DATA --folder runs/verdict
    python benchmarks/verdict.py table

Every mechanism that people put into convolutional nets, by its name and by
`kanets.insert_attention`, at the same places of the same net, with one recipe;
beside it controls. A `TASK` is a set of pictures and a net: EfficientNet-Lite0
with ImageNet's weights on pictures of 96 px, or a MobileNetV2 of half width
from random weights on 32 px. DATA holds the sets; what is trained on and the
held-out pictures that are judged are drawn from `train/` once for all, and
`val` and `test` are not looked at. Mechanisms start closed: outputs differ by
0.0 from those of the net without, which is asserted. Those with heads have four
of 16 channels, and maps at both ends; all else is as `kanets.attention.make`
has it. AdamW with warm-up and cosine, flips and shifts, batches of 50. A seed
sets order, augmentation, head and fresh weights; within a seed only the
mechanism differs. To spare hours the stem and two blocks of the pretrained net,
before any mechanism, are frozen, and what they say is computed once a seed.

`run`: a run is a process, two to four minutes of one core (x86-64 with
AVX-512); it adds its row to `verdict.csv` when all is done, and a row that is
there is not repeated. FOLDER keeps `correct/`, which held-out pictures were
named rightly, and `weights/`.

`table` prints means over the seeds, and the difference to "none" on the same
pictures and seeds, with its 95 % interval, pictures and seeds both resampled.
It also takes what is new in `correct/` into `verdict.npz`, a bit a picture, so
that intervals can be had without the runs.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
from tables import append, read

import kanets
from kanets.attention import table as mechanisms
from kanets.zoo.loading import head_name

HERE = Path(__file__).parent
ROWS, CORRECT = HERE / "verdict.csv", HERE / "verdict.npz"
BATCH, DECAY, WARM_UP = 50, 0.01, 0.05
HELD_OUT = 10_000


class Pretrained:
    """EfficientNet-Lite0 on pictures of 96 px, but for its first blocks."""

    side, rate, new_rate = 96, 5e-4, 1e-3
    deployed_side = 224
    # Its blocks of stride 1 from 24 channels on, behind what is frozen.
    frozen = "block_1_project_norm"
    after = "block_(2|4|6|7|9|10|12|13|14)_add|block_(8|15)_project_norm"
    inside = "block_(2|4|6|7|8|9|10|12|13|14|15)_expand_norm_relu6"

    def net(self, classes, side):
        return kanets.create_model(
            "efficientnet_lite0_imagenet",
            num_classes=classes,
            input_shape=(side, side, 3),
        )


class Scratch:
    """MobileNetV2 of half width, whose first convolution divides nothing."""

    side, rate, new_rate = 32, 2e-3, 2e-3
    deployed_side = 32
    frozen = None
    after = "block_[0-9]+_add"
    inside = "block_(2|4|5|7|8|9|11|12|14|15)_expand_relu"

    def net(self, classes, side):
        return kanets.nets.MobileNetV2(
            (side, side, 3),
            classes=classes,
            alpha=0.5,
            strides=(1, 2, 2, 2, 1),
        )


# The set, the net, pictures to train on, epochs.
TASKS = {
    "cifar10": ("cifar10", Pretrained(), 5_000, 3),
    "flowers": ("flowers", Pretrained(), 1_600, 9),
    "tiny_imagenet": ("tiny_imagenet_64", Pretrained(), 10_000, 3),
    "scratch": ("cifar10", Scratch(), 20_000, 3),
}


@keras.saving.register_keras_serializable(package="verdict")
class Maps(keras.layers.Layer):
    """1x1, ReLU6, 1x1: the control that looks nowhere.

    With `means`, of the means of rows and columns, summed: what Kronecker
    attention sees, without its weights.
    """

    wants_norm = False

    def __init__(self, hidden=128, means=False, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.means = hidden, means

    def build(self, shape):
        last = {"kernel_initializer": "zeros"}
        self.first = keras.layers.Conv2D(self.hidden, 1, activation="relu6")
        self.last = keras.layers.Conv2D(shape[-1], 1, **last)
        self.first.build(shape)
        self.last.build((*shape[:-1], self.hidden))

    def call(self, x):
        if not self.means:
            return self.last(self.first(x))
        rows, columns = (
            self.last(self.first(keras.ops.mean(x, axis, keepdims=True)))
            for axis in (2, 1)
        )
        return rows + columns

    def start_at_zero(self):
        return True

    def get_config(self):
        given = {"hidden": self.hidden, "means": self.means}
        return {**super().get_config(), **given}


def maps(hidden=128, means=False):
    def make(scale=None, dtype=None, name=None):
        return Maps(hidden, means, dtype=dtype, name=name)

    return make


HEADS = {"num_heads": 4, "key_dim": 16, "projections": "qkvo"}
# As in the zoo's entries: as many parameters as HEADS after the block.
INSIDE = {"num_heads": 2, "key_dim": 2, "value_dim": 8, "use_bias": True}
INSIDE["projections"] = "qkvo"
CONTROLS = ("none", "maps", "maps_of_means", "maps_inside", "dense")
OURS = ("kao_qkv", "kao_kv", "kao_rectified", "kao_rectified_inside")
PEERS = (
    *("squeeze_excitation", "efficient_channel", "cbam", "global_context"),
    *("coordinate", "efficient_local", "multi_query", "linear", "separable"),
    *("efficient_additive", "spatial_reduction", "cross_covariance"),
    *("single_head", "single_head_modulation", "non_local", "axial"),
    *("window", "neighborhood"),
    # Gates stand there in the nets of their papers.
    *("squeeze_excitation_inside", "efficient_channel_inside"),
    "coordinate_inside",
)
FORMS = (*CONTROLS, *OURS, *PEERS)


def chosen(form):
    """Where a form stands, `after` or `inside`, and what it is."""
    if form == "maps_inside":  # as many parameters as `kao_rectified_inside`
        return "inside", maps(21)
    if form.startswith("maps"):
        return "after", maps(means=form == "maps_of_means")
    place = "inside" if form.endswith("_inside") else "after"
    name = form.removesuffix("_inside")
    known = mechanisms.parameters(mechanisms.MECHANISMS[name].layer)
    given = INSIDE if place == "inside" else HEADS
    return place, {
        "name": name,
        **{key: value for key, value in given.items() if key in known},
    }


def build(body, form, seed, classes, side=None):
    """A body with a form in it; its head depends on the seed."""
    keras.utils.set_random_seed(seed)
    net = body.net(classes, side or body.side)
    if form == "none":
        return net
    keras.utils.set_random_seed(seed)
    place, what = chosen(form)
    return kanets.insert_attention(net, getattr(body, place), what)


def pictures(task, data, folder):
    """Those of a task: x, y to train on, and held out."""
    name, body, count, _ = TASKS[task]
    return drawn(folder / f"{task}.npz", data / name, body.side, count)


def drawn(path, source, side, count):
    """The fixed split of a set, decoded once: x, y of training and held-out."""
    if not path.exists():
        train, _ = kanets.data.load(
            source, image_size=(side, side), validation=0.0
        )
        x, y = arrays(train, count + HELD_OUT)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, x=x, y=y)
        partial.rename(path)
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    return (x[:count], y[:count]), (x[count:], y[count:])


def arrays(batches, count=None):
    """Pixels and labels of a set, or of some of it, drawn once for all."""
    order = np.random.default_rng(0).permutation(batches.num_pictures)[:count]
    places = batches.rows[order]
    x = batches.pictures.take(places).astype("uint8")
    return x, batches.labels[places]


def augmented(x, y, epochs, seed):
    """All epochs' pictures in order: shuffled, flipped and shifted."""
    random = np.random.default_rng(seed)
    shift = x.shape[1] // 8
    padded = np.pad(x, ((0, 0), (shift,) * 2, (shift,) * 2, (0, 0)), "reflect")
    height, width = x.shape[1:3]
    rows = np.concatenate([random.permutation(len(x)) for _ in range(epochs)])
    found = np.empty((len(rows), height, width, 3), "uint8")
    for place, i in enumerate(rows):
        top, left = random.integers(0, 2 * shift + 1, 2)
        picture = padded[i, top : top + height, left : left + width]
        found[place] = picture[:, ::-1] if random.random() < 0.5 else picture
    return found, y[rows]


def schedule(peak, steps):
    """A linear warm-up to a rate, then a cosine to zero."""
    warm_up = round(WARM_UP * steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps - warm_up,
        warmup_target=peak,
        warmup_steps=warm_up,
    )


def optimizer(net, body, steps):
    from kanets.train.optimizers import LayerwiseAdamW

    head = head_name([layer.name for layer in net.layers])
    fresh = {
        variable.path
        for layer in net.layers
        if "_attention" in layer.name or layer.name == head
        for variable in layer.trainable_variables
    }
    factors = {
        variable.path: body.rate / body.new_rate
        for variable in net.trainable_variables
        if variable.path not in fresh
    }
    rate = schedule(body.new_rate, steps)
    return LayerwiseAdamW(rate, weight_decay=DECAY, factors=factors)


def split_at(net, layer):
    """A frozen net up to `layer`, and a net of what comes after."""
    between = net.get_layer(layer).output
    stem = keras.Model(net.input, between)
    stem.trainable = False
    return stem, keras.Model(between, net.output)


def frozen(stem, x, path):
    """What the frozen part says of pictures, kept in float16."""
    if not path.exists():
        shape = (len(x), *stem.output.shape[1:])
        partial = path.with_suffix(".partial.npy")
        found = np.lib.format.open_memmap(partial, "w+", "float16", shape)
        for i in range(0, len(x), 100):
            found[i : i + 100] = stem.predict_on_batch(x[i : i + 100])
        found.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


def one(options):
    """Trains and judges one form with one seed, and adds its row."""
    task, form, seed = options.task, options.form, options.seed
    folder = options.folder
    _, body, count, epochs = TASKS[task]
    (x, y), (seen, truth) = pictures(task, options.data, folder)
    classes = int(y.max()) + 1
    net = build(body, form, seed, classes)
    plain = build(body, "none", seed, classes)
    batch = seen[:16].astype("float32")
    gap = net.predict_on_batch(batch) - plain.predict_on_batch(batch)
    if gap.any():
        raise SystemExit(f"{form} does not start closed: {np.abs(gap).max()}")
    added = net.count_params() - plain.count_params()
    del plain
    inputs, labels = augmented(x, y, epochs, seed)
    rest = net
    if body.frozen:
        stem, rest = split_at(net, body.frozen)
        inputs = frozen(stem, inputs, folder / f"{task}_{seed}.npy")
        seen = frozen(stem, seen, folder / f"{task}_held_out.npy")
    keras.utils.set_random_seed(seed)
    rest.compile(
        optimizer(rest, body, len(inputs) // BATCH),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    start = time.process_time()
    for step in range(len(inputs) // BATCH):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        given = inputs[rows].astype("float32")
        loss = rest.train_on_batch(given, labels[rows])
        if step + 1 == options.steps:
            taken = time.process_time() - start
            return print(f"{form}: {taken:.1f} s, {added:,}, {loss:.4f}")
    middle = time.process_time()
    for layer in net.layers:
        for weight in layer.weights if "_attention" in layer.name else ():
            if len(weight.shape) > 1 and not np.any(weight):
                raise SystemExit(f"{form} never opened: {weight.path}")
    scores = [
        rest.predict_on_batch(seen[i : i + 100].astype("float32"))
        for i in range(0, len(seen), 100)
    ]
    end = time.process_time()
    scores = np.concatenate(scores).astype("float64")
    correct = scores.argmax(-1) == truth
    loss = -np.log(np.maximum(scores[np.arange(len(truth)), truth], 1e-12))
    name = f"{task}_{form}_{seed}"
    for part in ("correct", "weights"):
        (folder / part).mkdir(exist_ok=True)
    np.save(folder / "correct" / f"{name}.npy", np.packbits(correct))
    net.save_weights(folder / "weights" / f"{name}.weights.h5")
    row = {
        "task": task,
        "form": form,
        "seed": seed,
        "accuracy": round(100 * float(correct.mean()), 2),
        "loss": round(float(loss.mean()), 4),
        "parameters_added": added,
        "cpu_seconds_train": round(middle - start, 1),
        "cpu_seconds_held_out": round(end - middle, 1),
        "side": body.side,
        "epochs": epochs,
        "pictures_train": count,
        "pictures_held_out": len(truth),
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    print(row, flush=True)
    append(ROWS, row)


def run(options):
    """What is asked for, a process a run, a seed of all forms at a time."""
    options.folder.mkdir(parents=True, exist_ok=True)
    variables = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for seed in options.seeds:
        for task in options.tasks:
            for form in options.forms:
                case = {"task": task, "form": form, "seed": str(seed)}
                if any(case.items() <= row.items() for row in read(ROWS)):
                    continue
                command = [sys.executable, __file__, "one"]
                command += ["--task", task, "--form", form]
                command += ["--seed", str(seed), "--data", str(options.data)]
                command += ["--folder", str(options.folder)]
                if options.steps:
                    command += ["--steps", str(options.steps)]
                failed = subprocess.run(command, env=variables).returncode
                if failed:
                    print(f"{case} failed: {failed}", flush=True)


def gather(folder):
    """Takes the runs' `correct/` into `verdict.npz`."""
    kept = dict(np.load(CORRECT)) if CORRECT.exists() else {}
    paths = sorted((folder / "correct").glob("*.npy"))
    new = {path.stem: np.load(path) for path in paths if path.stem not in kept}
    if new:
        np.savez(CORRECT, **kept, **new)


def summary():
    """A dict a task and form: what its rows and bits say, over the seeds."""
    rows, bits = read(ROWS), np.load(CORRECT)
    for task, form in dict.fromkeys((r["task"], r["form"]) for r in rows):
        mine = [r for r in rows if (r["task"], r["form"]) == (task, form)]
        values = [float(row["accuracy"]) for row in mine]
        count = int(mine[0]["pictures_held_out"])
        pairs = []
        for row in mine:
            names = [f"{task}_{f}_{row['seed']}" for f in (form, "none")]
            if form != "none" and all(name in bits for name in names):
                one, two = (np.unpackbits(bits[n], count=count) for n in names)
                pairs.append(100.0 * one - 100.0 * two)
        yield {
            "task": task,
            "form": form,
            "seeds": len(mine),
            "accuracy": float(np.mean(values)),
            "deviation": float(np.std(values, ddof=1)) if mine[1:] else None,
            "difference": float(np.mean(pairs)) if pairs else None,
            "interval": interval(np.array(pairs)) if pairs else None,
            "parameters": int(mine[0]["parameters_added"]),
        }


def table(options):
    """Prints what the rows say."""
    gather(options.folder)
    last = None
    for row in summary():
        if row["task"] != last:
            last = row["task"]
            print(f"\n{last}\n\n| form | seeds | accuracy | to none | added |")
            print("|---|---|---|---|---|")
        low, high = row["interval"] if row["interval"] is not None else (0, 0)
        print(
            f"| {row['form']} | {row['seeds']} | {row['accuracy']:.2f} "
            f"| {row['difference'] or 0:+.2f} [{low:+.2f}, {high:+.2f}] "
            f"| {row['parameters']:,} |"
        )


def interval(values, resamples=2000):
    """95 % of the means of (seeds, pictures), both drawn with replacement."""
    random = np.random.default_rng(0)
    seeds, count = values.shape
    means = [
        values[random.integers(0, seeds, seeds)]
        .mean(0)[random.integers(0, count, count)]
        .mean()
        for _ in range(resamples)
    ]
    return np.percentile(means, (2.5, 97.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("run", "one", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/verdict"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="stop there, to try it")
    parser.add_argument("--task", choices=tuple(TASKS))
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    {"run": run, "one": one, "table": table}[options.command](options)


if __name__ == "__main__":
    main()
