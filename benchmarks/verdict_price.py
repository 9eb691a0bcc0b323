"""What does an attention cost where the net runs, and what do 8 bits take?

    python benchmarks/verdict_price.py time --folder runs/verdict
    python benchmarks/verdict_price.py int8 --folder runs/verdict --data DATA

The forms of `verdict.py` at its places of its two nets.

`time` writes `verdict_price.csv`: what a form takes, over what the net without
takes, the two in turns, of CPU time on one thread (least of `TURNS`), for one
picture: of 224 px for the pretrained net, of 32 for the other. In LiteRT
(float32 and int8), ONNX Runtime and the SavedModel, which is given pixels; and
for a training step of 32 pictures of the bench's size, with the most memory
that the process ever had by then. Maps that start at zero get random numbers,
or a runtime would leave them out. About two minutes a form and net.

`int8` writes `verdict_int8.csv`: the bench's nets as it trained them, in LiteRT
float32 and int8 (calibrated on 200 training pictures), on the first 2,000
held-out pictures.

A form is a process; a row that is there is not repeated.
"""

import argparse
import functools
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from measure import KEPT_MEMORY, cpu_turns, machine
from tables import append, holds, read
from verdict import FORMS, TASKS, build, pictures

import kanets
from kanets.export import runtimes

HERE = Path(__file__).parent
TIMES, INT8 = HERE / "verdict_price.csv", HERE / "verdict_int8.csv"
NETS = {"pretrained": "cifar10", "scratch": "scratch"}  # as of these tasks
RUNTIMES = ("litert", "litert_int8", "onnx", "savedmodel")
TURNS, LEAST, BATCH, CLASSES = 15, 0.1, 32, 10


def opened(net, seed=0):
    """The net itself, maps of zeros filled with small random numbers."""
    random = np.random.default_rng(seed)
    for layer in net.layers:
        for weight in layer.weights:
            if len(weight.shape) > 1 and not np.any(weight):
                weight.assign(random.normal(0, 0.02, weight.shape))
    return net


def exported(net, path, kind, representative=None):
    """What runs a net on one thread; exported once, kept at `path`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [str(i) for i in range(net.output.shape[-1])]
        options = {}
        if kind == "litert_int8":
            options = {"precision": "int8", "representative": representative}
        format = kind.partition("_")[0]
        getattr(kanets, f"export_{format}")(net, path, names, **options)
    signature = "serve_images" if kind == "savedmodel" else None
    return runtimes.load(path, 1, signature=signature)


def feeds_of(run, x):
    return {name: x.astype(dtype) for name, (_, dtype) in run.inputs.items()}


def least(calls):
    """By name, the least milliseconds of CPU time of all turns."""
    taken = cpu_turns(calls, TURNS, LEAST)
    return {name: min(values) for name, values in taken.items()}


def training(nets, body):
    """Calls that take a training step each, by name."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (BATCH, body.side, body.side, 3))
    y = random.integers(CLASSES, size=BATCH)
    for name, make in nets.items():
        net = make()
        net.compile("adamw", "sparse_categorical_crossentropy")
        step = functools.partial(net.train_on_batch, x.astype("float32"), y)
        step(), step()
        yield name, step


def price(options):
    """Adds the row of one form in one net."""
    net, form = options.net, options.form
    body = TASKS[NETS[net]][1]
    side = body.deployed_side
    steps = dict(training({form: lambda: build(body, form, 0, CLASSES)}, body))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    nets = {
        name: opened(build(body, name, 0, CLASSES, side))
        for name in dict.fromkeys(("none", form))
    }
    row = {
        "net": net,
        "form": form,
        "side": side,
        "parameters": nets[form].count_params(),
        "multiply_adds": kanets.nets.multiply_adds(nets[form]),
    }
    x = np.random.default_rng(0).uniform(0, 255, (16, side, side, 3))
    for kind in RUNTIMES:
        calls = {}
        for name, model in nets.items():
            path = options.folder / "price" / f"{net}_{name}_{kind}"
            run = exported(model, path, kind, x.astype("float32"))
            calls[name] = functools.partial(run, **feeds_of(run, x[:1]))
        taken = least(calls)
        row[f"{kind}_ms"] = f"{taken[form]:.4g}"
        row[f"{kind}_ratio"] = f"{taken[form] / taken['none']:.3f}"
    if form != "none":
        plain = {"none": lambda: build(body, "none", 0, CLASSES)}
        steps |= dict(training(plain, body))
    taken = least(steps)
    row |= {
        "training_ms": f"{taken[form]:.4g}",
        "training_ratio": f"{taken[form] / taken['none']:.3f}",
        "training_memory_mb": round(memory),
        "machine": machine(
            *("tensorflow", "keras", "ai-edge-litert", "onnxruntime")
        ),
    }
    print(*list(row.values())[:-1], flush=True)
    append(TIMES, row)


def int8(options, count=2000):
    """Adds the row of a trained net: what int8 takes from it."""
    task, form, seed = options.net, options.form, options.seed
    (train, labels), (x, y) = pictures(task, options.data, options.folder)
    name = f"{task}_{form}_{seed}"
    net = build(TASKS[task][1], form, seed, int(labels.max()) + 1)
    net.load_weights(options.folder / "weights" / f"{name}.weights.h5")
    row, answers = {"task": task, "form": form, "seed": seed}, {}
    for kind in ("litert", "litert_int8"):
        path = options.folder / "exported" / f"{name}_{kind}"
        run = exported(net, path, kind, train[:200])
        answers[kind] = np.concatenate(
            [
                run(**feeds_of(run, x[i : i + 1]))["probabilities"]
                for i in range(count)
            ]
        ).argmax(-1)
        right = 100 * np.mean(answers[kind] == y[:count])
        row[f"{kind}_accuracy"] = f"{right:.2f}"
    agreement = 100 * np.mean(answers["litert"] == answers["litert_int8"])
    row |= {"agreement": f"{agreement:.2f}", "pictures": count}
    print(row, flush=True)
    append(INT8, row)


def every(options):
    """A process for each row that is not there."""
    variables = {**os.environ, **KEPT_MEMORY, "TF_CPP_MIN_LOG_LEVEL": "3"}
    variables |= {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1"}
    for name in ("INTRA", "INTER"):
        variables[f"TF_NUM_{name}OP_THREADS"] = "1"
    path, key = (TIMES, "net") if options.command == "time" else (INT8, "task")
    for net in options.nets or (NETS if key == "net" else TASKS):
        for form in options.forms:
            case = {key: net, "form": form}
            if key == "task":
                case["seed"] = options.seed
                file = f"{net}_{form}_{options.seed}.weights.h5"
                if not (options.folder / "weights" / file).exists():
                    continue
            if holds(read(path), **case):
                continue
            command = [sys.executable, __file__, *sys.argv[1:]]
            command += ["--net", net, "--form", form]
            failed = subprocess.run(command, env=variables).returncode
            if failed:
                print(f"{case} failed: {failed}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("time", "int8"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/verdict"))
    parser.add_argument("--nets", nargs="+", help="or, of `int8`, tasks")
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--net", help="the row of this and `--form` alone")
    parser.add_argument("--form", choices=FORMS)
    options = parser.parse_args()
    one = {"time": price, "int8": int8}[options.command]
    one(options) if options.form else every(options)


if __name__ == "__main__":
    main()
