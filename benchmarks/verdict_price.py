"""What do the forms of the verdict cost, in time and in 8-bit integers?

    python benchmarks/verdict_price.py latency --folder runs/verdict \
        --weights efficientnet_lite0.npz
    python benchmarks/verdict_price.py int8 --folder runs/verdict \
        --weights efficientnet_lite0.npz --seed 0

`latency` writes `verdict_price.csv`: parameters, multiply-adds and the
milliseconds of a picture of 224 px on one thread, in LiteRT float32 and int8
and in ONNX Runtime. The forms take turns; a ratio is that to "none" in the
same round, the median over the rounds. On a machine that does nothing else.
`int8` writes `verdict_int8.csv`: the nets that `verdict.py` trained, of one
seed, in LiteRT float32 and int8 on the first 2,000 held-out pictures. Exported
nets are kept in `exported/` and not made again. `--forms`: some of them, "none"
the first.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from measure import machine
from tables import write
from verdict import build, pictures
from verdict_forms import FORMS

from kanets.export import export_litert, export_onnx, runtimes
from kanets.nets import multiply_adds

HERE = Path(__file__).parent
KINDS = ("float32", "int8", "onnx")  # LiteRT, LiteRT, ONNX Runtime


def exported(net, path, kind, representative):
    """What runs the net on one thread; made once, kept at `path`."""
    if not path.exists():
        names = [f"class {i}" for i in range(10)]
        if kind == "onnx":
            export_onnx(net, path, names)
        else:
            export_litert(
                net,
                path,
                names,
                precision=kind,
                representative=representative if kind == "int8" else None,
            )
    return runtimes.load(path, 1)


def feeds_of(run, x):
    return {name: x.astype(dtype) for name, (_, dtype) in run.inputs.items()}


def latency(options, side=224, rounds=40):
    """What a form costs beside "none", in three runtimes that take turns."""
    (x, _), _ = pictures(options.folder)
    large = np.array(keras.ops.image.resize(x[:100], (side, side)))
    random = np.random.default_rng(0)
    rows, runners = {}, {}
    for form in options.forms:
        net = build(form, 0, options.weights, side=None, size=side)
        for layer in net.layers:
            if layer.name.endswith("_last"):  # zeros would be optimized away
                kernel, bias = layer.get_weights()
                kernel = random.normal(0, 0.02, kernel.shape)
                layer.set_weights([kernel, bias])
        rows[form] = {
            "form": form,
            "parameters": net.count_params(),
            "multiply_adds": multiply_adds(net),
        }
        for kind in KINDS:
            path = options.folder / "exported" / f"{form}_{kind}_{side}"
            path.parent.mkdir(exist_ok=True)
            run = exported(net, path, kind, large)
            size = sum(f.stat().st_size for f in path.rglob("model.*"))
            rows[form][f"{kind}_megabytes"] = round(size / 1e6, 2)
            runners[kind, form] = run, feeds_of(run, large[:1])
        keras.backend.clear_session()
    for kind in KINDS:
        taken = {form: [] for form in options.forms}
        for i in range(rounds + 3):
            for form in options.forms:
                run, feeds = runners[kind, form]
                start = time.perf_counter()
                run(**feeds)
                if i >= 3:
                    taken[form].append(1e3 * (time.perf_counter() - start))
        for form, times in taken.items():
            ratio = np.median(np.divide(times, taken["none"]))
            rows[form][f"{kind}_ms"] = round(float(np.median(times)), 2)
            rows[form][f"{kind}_ratio"] = round(float(ratio), 3)
    for row in rows.values():
        row["machine"] = machine("tensorflow", "ai-edge-litert", "onnxruntime")
        print(row)
    write(HERE / "verdict_price.csv", list(rows.values()))


def int8(options, count=2000):
    """What int8 takes from the trained nets of one seed."""
    (train, _), (x, y) = pictures(options.folder)
    rows = []
    for form in options.forms:
        name = f"{form}_{options.seed}"
        weights = options.folder / "weights" / f"{name}.weights.h5"
        if not weights.exists():
            continue
        net = build(form, options.seed, options.weights)
        net.load_weights(weights)
        row, answers = {"form": form, "seed": options.seed}, {}
        for kind in ("float32", "int8"):
            path = options.folder / "exported" / f"{name}_{kind}"
            path.parent.mkdir(exist_ok=True)
            run = exported(net, path, kind, train[:200])
            answers[kind] = np.concatenate(
                [scores(run, x[i : i + 1]) for i in range(count)]
            ).argmax(-1)
            accuracy = 100 * np.mean(answers[kind] == y[:count])
            row[f"{kind}_accuracy"] = round(float(accuracy), 2)
        agreement = 100 * np.mean(answers["float32"] == answers["int8"])
        row["agreement"] = round(float(agreement), 2)
        print(row, flush=True)
        rows.append(row)
        keras.backend.clear_session()
    write(HERE / "verdict_int8.csv", rows)


def scores(run, x):
    """The (B, 10) output of a runner for pictures x."""
    found = run(**feeds_of(run, x))
    return next(v for v in found.values() if v.shape[1:] == (10,))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("latency", "int8"))
    parser.add_argument("--folder", type=Path, default=Path("runs/verdict"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    options = parser.parse_args()
    {"latency": latency, "int8": int8}[options.command](options)


if __name__ == "__main__":
    main()
