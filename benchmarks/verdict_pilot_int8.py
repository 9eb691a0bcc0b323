"""What do 8-bit integers cost the forms of the verdict's pilot?

    python benchmarks/verdict_pilot_int8.py --folder runs/verdict_pilot \
        --weights efficientnet_lite0.npz --seed 0

Writes `verdict_pilot_int8.csv`: the nets that `verdict_pilot.py` trained, of
one seed, in LiteRT float32 and int8 on the first 2,000 held-out pictures.
Exported nets are kept in `exported/` and not made again.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from tables import write
from verdict_forms import FORMS
from verdict_pilot import build, pictures
from verdict_price import feeds_of

from kanets.export import export_litert, runtimes

HERE = Path(__file__).parent


def exported(net, path, kind, representative):
    """What runs the net on one thread; made once, kept at `path`."""
    if not path.exists():
        names = [f"class {i}" for i in range(10)]
        export_litert(
            net,
            path,
            names,
            precision=kind,
            representative=representative if kind == "int8" else None,
        )
    return runtimes.load(path, 1)


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
    write(HERE / "verdict_pilot_int8.csv", rows)


def scores(run, x):
    """The (B, 10) output of a runner for pictures x."""
    found = run(**feeds_of(run, x))
    return next(v for v in found.values() if v.shape[1:] == (10,))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default="runs/verdict_pilot")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    options = parser.parse_args()
    int8(options)


if __name__ == "__main__":
    main()
