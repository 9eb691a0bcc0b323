"""What should a KANet of today's blocks look like?

    python benchmarks/version2.py time
    python benchmarks/version2.py run --data DATA --folder runs/version2

Candidates (`PLANS`) for `KANet(version=2)` at 32 px: universal inverted
bottlenecks (MobileNetV4), few of them at large maps, with Kronecker attention
behind some, beside KANet as the paper has it and MobileNetV4 conv small of the
same strides. A candidate must not be slower than the former in any runtime.

`time` writes `version2_time.csv`: parameters, multiply-adds, and the
milliseconds of CPU time of a picture on one thread (least of 15 turns, all in
turns) in LiteRT float32 and int8 and in ONNX Runtime, also over those of
KANet. Some seconds a candidate.

`run` writes `version2.csv`: from random weights, 20,000 pictures of
`cifar10/train`, eight epochs of AdamW, warm-up and cosine, flips and shifts,
batches of 50; judged, at the end, on 10,000 others of `train`. A row that is
there is not repeated; five to eight minutes of one core each.
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
from verdict import augmented, pictures
from verdict_price import exported, feeds_of, opened

import kanets
from kanets.layers import (
    conv_norm,
    residual_attention,
    universal_inverted_bottleneck,
)
from kanets.nets.parts import classifier

HERE = Path(__file__).parent
SIDE, CLASSES, EPOCHS, BATCH, DECAY = 32, 10, 8, 50, 0.05
STRIDES = (1, 2, 2, 2, 1)
ATTENTION = {"name": "kao_rectified", "num_heads": 2, "key_dim": 8}
RUNTIMES = ("litert", "litert_int8", "onnx")


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
PLANS = {
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
    inputs = keras.Input((SIDE, SIDE, 3))
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
    return keras.Model(inputs, classifier(x, CLASSES, "softmax", 0.0))


def build(name):
    if name in PLANS:
        return of_plan(PLANS[name])
    shape = (SIDE, SIDE, 3)
    if name.startswith("version"):
        version = int(name[len("version")])
        attention = "kao_qkv" if version == 1 else ATTENTION
        return kanets.KANet(
            shape,
            0.5,
            classes=CLASSES,
            version=version,
            strides=STRIDES,
            attention=None if name.endswith("without") else attention,
        )
    return kanets.nets.MobileNetV4(shape, classes=CLASSES, strides=STRIDES)


NETS = (
    *("version1", "version1_without", "version2", "version2_without"),
    *("mobilenetv4_conv_small", *PLANS),
)


def measure(options):
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (16, SIDE, SIDE, 3)).astype("float32")
    calls, rows = {kind: {} for kind in RUNTIMES}, {}
    for name in options.nets:
        net = opened(build(name))
        rows[name] = {
            "net": name,
            "parameters": net.count_params(),
            "multiply_adds": kanets.nets.multiply_adds(net),
        }
        for kind in RUNTIMES:
            path = options.folder / "exported" / f"{name}_{kind}"
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
    write(HERE / "version2_time.csv", list(rows.values()))


def run(options):
    path = HERE / "version2.csv"
    options.folder.mkdir(parents=True, exist_ok=True)
    (x, y), (seen, truth) = pictures("scratch", options.data, options.folder)
    for seed in options.seeds:
        for name in options.nets:
            if holds(read(path), net=name, rate=options.rate, seed=seed):
                continue
            keras.utils.set_random_seed(seed)
            net = build(name)
            steps = len(x) // BATCH * EPOCHS
            rate = keras.optimizers.schedules.CosineDecay(
                0.0,
                decay_steps=steps - steps // 20,
                warmup_target=options.rate,
                warmup_steps=steps // 20,
            )
            optimizer = keras.optimizers.AdamW(rate, weight_decay=DECAY)
            net.compile(
                optimizer,
                "sparse_categorical_crossentropy",
                jit_compile=False,
            )
            inputs, labels = augmented(x, y, EPOCHS, seed)
            start = time.process_time()
            for step in range(steps):
                rows = slice(step * BATCH, (step + 1) * BATCH)
                net.train_on_batch(inputs[rows].astype("float32"), labels[rows])
            taken = time.process_time() - start
            scores = net.predict(seen.astype("float32"), 200, verbose=0)
            row = {
                "net": name,
                "rate": options.rate,
                "seed": seed,
                "accuracy": f"{100 * np.mean(scores.argmax(-1) == truth):.2f}",
                "pictures_train": len(x),
                "pictures_judged": len(seen),
                "epochs": EPOCHS,
                "cpu_seconds_train": round(taken),
            }
            append_run(path, row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("time", "run"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/version2"))
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    {"time": measure, "run": run}[options.command](options)


if __name__ == "__main__":
    main()
