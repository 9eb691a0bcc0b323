"""What should a KANet of today's blocks look like?

    python benchmarks/version2.py time
    python benchmarks/version2.py run --data DATA --folder runs/version2

`KANet(version=2)` beside version 1, which is the paper's, and MobileNetV4 conv
small, whose strides are such that it takes about as long. `CANDIDATES` are
what version 2 was chosen from, at 32 px: universal inverted bottlenecks
(MobileNetV4), few of them at large maps, with Kronecker attention behind some.
Version 2 must not be slower than version 1 in any runtime.

`time` writes `version2_time.csv`: parameters, multiply-adds, and the
milliseconds of CPU time of a picture on one thread (least of 15 turns, all in
turns) in LiteRT float32 and int8 and in ONNX Runtime, also over those of
version 1. Some seconds a net.

`run` writes `version2.csv`: from random weights, 20,000 pictures of `train/` of
CIFAR-10 at 32 px or of Tiny ImageNet at 64, eight epochs of AdamW, warm-up and
cosine, flips and shifts, batches of 50; judged, at the end, on 10,000 others of
`train`. With `--teach`, nets also learn from the zoo's large entry of the set
(weight 0.7, temperature 2), which sees what they see. A row that is there is
not repeated; five to eight minutes of one core each, and as long a seed for
what the teacher says, by OpenVINO.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from measure import cpu_turns, machine
from tables import append_run, holds, read, write
from verdict import augmented, drawn, schedule
from verdict_price import exported, feeds_of, opened

import kanets
from kanets.layers import (
    conv_norm,
    residual_attention,
    universal_inverted_bottleneck,
)
from kanets.nets.parts import classifier

HERE = Path(__file__).parent
PICTURES, EPOCHS, BATCH, DECAY = 20_000, 8, 50, 0.05
WEIGHT, TEMPERATURE = 0.7, 2.0  # of a teacher
ATTENTION = {"name": "kao_rectified", "num_heads": 2, "key_dim": 8}
RUNTIMES = ("litert", "litert_int8", "onnx")


class Task(NamedTuple):
    """A set, and what nets of its pictures are like."""

    folder: str
    side: int
    classes: int
    strides: tuple
    of_mobilenet: tuple  # its strides
    teacher: str


TASKS = {
    "cifar10": Task(
        *("cifar10", 32, 10, (1, 2, 2, 2, 1), (1, 2, 2, 2, 2)),
        "kanet_lite0_cifar10",
    ),
    "tiny_imagenet": Task(
        *("tiny_imagenet_64", 64, 200, (2, 2, 2, 2, 1), (2, 2, 2, 2, 2)),
        "kanet_lite0_tiny_imagenet_64",
    ),
}


class Plan(NamedTuple):
    """Stem, fused block, bottlenecks of (channels, expansion, kernel, stride).

    `attends` are the bottlenecks with attention behind them. `pools_first`: the
    head's map is one of the means, as in MobileNetV3 and V4.
    """

    stem: int
    fused: tuple  # channels inside and out, stride
    blocks: tuple
    head: int
    attends: tuple = ()
    pools_first: bool = False


def stage(channels, kernel, *expansions, stride=2):
    """Blocks of which the first strides."""
    return [
        (channels, expansion, kernel, stride if i == 0 else 1)
        for i, expansion in enumerate(expansions)
    ]


_DEEP = (*stage(56, 3, 4, 3, 3), *stage(112, 3, 4, 4, 4, 4))
_WIDE = (*stage(64, 3, 4, 3), *stage(160, 3, 4, 3, 3))
_KERNELS = (*stage(48, 5, 4, 3, 3), *stage(112, 5, 4, 4, 4, 4))
_LATE = (*stage(48, 3, 4, 3), *stage(128, 3, 4, 4, 4, 4))
# Two stages on the last maps, as the larger pictures' strides need them.
_FIVE = (*stage(56, 3, 4, 3), *stage(112, 3, 4, 4))
_FIVE += (*stage(144, 3, 4, 4, stride=1),)
_MORE = (*stage(56, 3, 4, 3), *stage(112, 3, 4, 4, 4))
_MORE += (*stage(144, 3, 4, 4, stride=1),)
CANDIDATES = {
    "deep": Plan(16, (56, 28, 2), _DEEP, 640),
    "deep_attends": Plan(16, (56, 28, 2), _DEEP, 640, (2, 4, 6)),
    "wide": Plan(16, (56, 28, 2), _WIDE, 640),
    "wide_attends": Plan(16, (56, 28, 2), _WIDE, 640, (1, 4)),
    "large_kernels": Plan(16, (48, 24, 2), _KERNELS, 640),
    "late_attends": Plan(16, (48, 24, 2), _LATE, 960, (1, 3, 5)),
    "five": Plan(16, (48, 24, 2), _FIVE, 640),
    "five_attends": Plan(16, (48, 24, 2), _FIVE, 640, (1, 3, 5)),
    "more": Plan(16, (48, 24, 2), _MORE, 960, (), True),
    "more_attends": Plan(16, (48, 24, 2), _MORE, 960, (1, 4, 6), True),
}


def of_plan(plan):
    task = TASKS["cifar10"]
    inputs = keras.Input((task.side, task.side, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = conv_norm(x, plan.stem, 3, 1, "relu", name="stem")
    inside, out, stride = plan.fused
    x = conv_norm(x, inside, 3, stride, "relu", name="fused_expand")
    x = conv_norm(x, out, name="fused_project")
    for i, (channels, expansion, kernel, stride) in enumerate(plan.blocks):
        name = f"block_{i}"
        x = universal_inverted_bottleneck(
            x, channels, expansion, None, kernel, stride, "relu", name=name
        )
        if i in plan.attends:
            x = residual_attention(x, ATTENTION, name=f"{name}_attention")
    pool = keras.layers.GlobalAveragePooling2D(keepdims=True)
    if plan.pools_first:
        x = pool(x)
    x = conv_norm(x, plan.head, activation="relu", name="head")
    x = keras.layers.Flatten()(x if plan.pools_first else pool(x))
    return keras.Model(inputs, classifier(x, task.classes, "softmax", 0.0))


def build(name, task):
    if name in CANDIDATES:
        return of_plan(CANDIDATES[name])
    shape, classes = (task.side, task.side, 3), task.classes
    if name.startswith("version"):
        version = int(name[len("version")])
        attention = "kao_qkv" if version == 1 else ATTENTION
        return kanets.KANet(
            shape,
            0.5,
            classes=classes,
            version=version,
            strides=task.strides,
            attention=None if name.endswith("without") else attention,
        )
    strides = task.of_mobilenet
    return kanets.nets.MobileNetV4(shape, classes=classes, strides=strides)


NETS = ("version1", "version2", "mobilenetv4_conv_small")


def measure(options):
    random = np.random.default_rng(0)
    side = options.task.side
    x = random.uniform(0, 255, (16, side, side, 3)).astype("float32")
    calls, rows = {kind: {} for kind in RUNTIMES}, {}
    for name in options.nets:
        net = opened(build(name, options.task))
        rows[name] = {
            "task": options.name,
            "net": name,
            "parameters": net.count_params(),
            "multiply_adds": kanets.nets.multiply_adds(net),
        }
        for kind in RUNTIMES:
            path = options.folder / "exported" / f"{options.name}_{name}_{kind}"
            run = exported(net, path, kind, x)
            calls[kind][name] = functools.partial(run, **feeds_of(run, x[:1]))
        keras.utils.clear_session()
    for kind in RUNTIMES:
        taken = {n: min(t) for n, t in cpu_turns(calls[kind]).items()}
        for name, row in rows.items():
            row[f"{kind}_ms"] = f"{taken[name]:.3f}"
            row[f"{kind}_ratio"] = f"{taken[name] / taken['version1']:.3f}"
    for row in rows.values():
        row["machine"] = machine("tensorflow", "ai-edge-litert", "onnxruntime")
        print(*list(row.values())[:-1], flush=True)
    path = HERE / "version2_time.csv"
    others = [row for row in read(path) if row["task"] != options.name]
    write(path, others + list(rows.values()))


def run(options):
    path, task = HERE / "version2.csv", options.task
    options.folder.mkdir(parents=True, exist_ok=True)
    (x, y), (seen, truth) = drawn(
        options.folder / f"{options.name}.npz",
        options.data / task.folder,
        task.side,
        PICTURES,
    )
    teacher = task.teacher if options.teach else ""
    for seed in options.seeds:
        cases = {
            name: {
                "task": options.name,
                "net": name,
                "teacher": teacher,
                "rate": options.rate,
                "seed": seed,
            }
            for name in options.nets
        }
        rows = read(path)
        cases = {n: c for n, c in cases.items() if not holds(rows, **c)}
        if not cases:
            continue
        inputs, labels = augmented(x, y, EPOCHS, seed)
        labels = keras.ops.convert_to_numpy(
            keras.ops.one_hot(labels, task.classes)
        )
        if teacher:
            said = answers(
                teacher, inputs, options.folder / f"{options.name}_{seed}.npy"
            )
            labels = np.concatenate([labels, said], axis=-1)
        for name, case in cases.items():
            keras.utils.set_random_seed(seed)
            net = kanets.nets.logits_model(build(name, task))
            start = time.process_time()
            train(net, inputs, labels, options.rate, bool(teacher))
            taken = time.process_time() - start
            scores = net.predict(seen.astype("float32"), 200, verbose=0)
            row = {
                **case,
                "accuracy": f"{100 * np.mean(scores.argmax(-1) == truth):.2f}",
                "pictures_train": len(x),
                "pictures_judged": len(seen),
                "epochs": EPOCHS,
                "cpu_seconds_train": round(taken),
            }
            append_run(path, row)


def train(net, inputs, labels, peak, taught):
    """Of logits, by labels or, taught, by labels and a teacher's logits."""
    steps = len(inputs) // BATCH
    if taught:
        loss = kanets.losses.DistillationCrossentropy(
            WEIGHT, temperature=TEMPERATURE
        )
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(
        schedule(peak, steps), weight_decay=DECAY
    )
    net.compile(optimizer, loss, jit_compile=False)
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        net.train_on_batch(inputs[rows].astype("float32"), labels[rows])


def answers(teacher, inputs, path):
    """Logits of an entry for pictures of any size, kept at `path`.

    OpenVINO computes them in bfloat16 where the CPU does, in half the time.
    """
    if not path.exists():
        import openvino

        folder = path.parent / "exported" / teacher
        if not folder.exists():
            kanets.export_openvino(kanets.load_model(teacher), folder)
        net = openvino.compile_model(
            next(folder.glob("*.xml")), "CPU", {"INFERENCE_NUM_THREADS": 1}
        )
        _, side, _, _ = net.input(0).partial_shape
        side = side.get_length()
        found = []
        for start in range(0, len(inputs), 100):
            x = inputs[start : start + 100].astype("float32")
            if side != x.shape[1]:
                x = keras.ops.image.resize(x, (side, side))
            found.append(net(keras.ops.convert_to_numpy(x))[0])
        # The least that float16 holds as a logarithm is far below.
        found = np.log(np.maximum(np.concatenate(found), 1e-30))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, found.astype("float16"))
        partial.rename(path)
    return np.load(path).astype("float32")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("time", "run"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/version2"))
    parser.add_argument("--task", choices=TASKS, default="cifar10")
    parser.add_argument("--teach", action="store_true")
    known = (*NETS, "version1_without", "version2_without", *CANDIDATES)
    parser.add_argument("--nets", nargs="+", default=NETS, choices=known)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.name, options.task = options.task, TASKS[options.task]
    {"time": measure, "run": run}[options.command](options)


if __name__ == "__main__":
    main()
