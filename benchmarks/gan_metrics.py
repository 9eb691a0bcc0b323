"""How far are our GAN metrics from torch-fidelity's and clean-fid's?

    python benchmarks/gan_metrics.py --golden FOLDER

Compares each step (resize, features of the Inception of 2015 with weights that
`tests/ylg/inception_recipe.py` makes, distances of stored features, and all of
it from pictures to figures) with what those two gave. FOLDER holds
`fid_pictures.npz` and `fid_sets.npz`; the copies in `tests/golden`, the
default, lack the sets of pictures, so that the last step is left out. Writes
`gan_metrics.csv` beside this file: "exact" is the reference's definition in
float64 on the same features. A quarter of an hour on two cores.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
FIDELITY, CLEAN = "torch-fidelity", "clean-fid"
# clean-fid's names of modes are ours; torch-fidelity's resize is one of them.
MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")
KERNELS = {
    "default": {},
    "poly2": {"degree": 2, "gamma": 0.01, "coef0": 0.5},
    "rbf": {"kernel": "rbf", "sigma": 10},
}
SCORES = {
    "splits10": {"splits": 10, "seed": 2020},
    "splits4": {"splits": 4, "seed": 2020},
    "splits1": {"splits": 1, "seed": 2020},
    "splits10_unshuffled": {"splits": 10},
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--golden", type=Path, default=ROOT / "tests/golden")
    golden = parser.parse_args().golden
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT)]
    import numpy as np
    from tables import write

    files = [ROOT / "tests/golden", golden]  # names and shapes are in ours
    pictures, sets = (
        {k: x for path in files for k, x in np.load(path / name).items()}
        for name in ("fid_pictures.npz", "fid_sets.npz")
    )
    net = make_net(pictures)
    rows = [
        *resizes(pictures),
        *features(pictures, net),
        *figures(sets),
        *from_pictures(sets, net),
    ]
    for row in rows:
        print(*row.values())
    write(HERE / "gan_metrics.csv", rows)


def make_net(pictures):
    from tests.ylg.inception_recipe import make_weights
    from ylg import metrics

    named = (str(row).split() for row in pictures["variables"])
    shapes = {name: map(int, shape) for name, *shape in named}
    net = metrics.InceptionV3_2015()
    metrics.load_inception_weights(net, make_weights(shapes))
    return net


def resizes(pictures):
    """The largest difference of a pixel, of rows and columns that are kept."""
    from ylg import metrics

    for reference, key, mode in (
        (FIDELITY, "tf1", "legacy_tensorflow"),
        *((CLEAN, mode, mode) for mode in MODES),
    ):
        worst = 0
        for i in numbers(pictures):
            found = metrics.resize(pictures[f"picture{i}"], mode)
            kept = pictures[f"resized{i}/{key}/rows"]
            worst = max(worst, abs(found[[0, 150, 298]] - kept).max())
            kept = pictures[f"resized{i}/{key}/cols"]
            worst = max(worst, abs(found[:, [0, 149, 298]] - kept).max())
        yield row("resize", reference, mode, "pixels of 255", error=worst)


def features(pictures, net):
    """The largest difference, over the largest feature."""
    import numpy as np

    for mode in MODES:
        picked = [pictures[f"picture{i}"] for i in numbers(pictures)]
        found = [predict(net, x[None], mode) for x in picked]
        expected = {(CLEAN, "2048"): pictures[f"cleanfid_features/{mode}"]}
        if mode == "legacy_tensorflow":
            for name in net.output:
                expected[FIDELITY, name] = pictures[f"features/{name}"]
        for (reference, name), kept in expected.items():
            kept = kept[numbers(pictures)]
            ours = np.concatenate([y[name] for y in found])
            error = abs(ours - kept).max() / abs(kept).max()
            yield row("features", reference, mode, name, error=error)


def figures(sets):
    """Of features that are stored, so that the definitions alone count."""
    for case, a, b, logits in (
        ("small", "small/X", "small/Y", "small/logits"),
        ("pictures/64", "A_64", "B_64", None),
        *[("stored/2048", "A_2048_float16", "B_2048_float16", None)],
        ("stored", None, None, "A_logits_unbiased_float16"),
    ):
        if a is not None:
            yield from of_features(sets, case, sets[a], sets[b])
        if logits is not None:
            yield from scores(sets, case, sets[logits])


def of_features(sets, case, fake, real, mode="-"):
    from ylg import metrics

    def kept(key, value, reference=FIDELITY):
        return row(
            *(case, reference, mode, key.removeprefix("cleanfid_")),
            kept=sets[f"{case}/{key}"],
            exact=sets.get(f"{case}/{key}_f64"),
            ours=value,
        )

    distance = metrics.frechet_distance(fake, real)
    yield kept("fid", distance)
    if f"{case}/cleanfid_fid" in sets:
        yield kept("cleanfid_fid", distance, CLEAN)
    if f"{case}/cleanfid_kid" in sets:
        kernel = metrics.kernel_distance(real, fake, 20, 60, 5)
        yield kept("cleanfid_kid", kernel.value, CLEAN)
    for name, options in KERNELS.items():
        kernel = metrics.kernel_distance(fake, real, 20, 50, 2020, **options)
        yield kept(f"kid_{name}_mean", kernel.value)
        yield kept(f"kid_{name}_std", kernel.std)
    for k in (1, 3):
        precision, recall = metrics.precision_recall(real, fake, k)
        yield kept(f"prc{k}_precision", precision)
        yield kept(f"prc{k}_recall", recall)


def scores(sets, case, logits, mode="-"):
    from ylg import metrics

    for name, options in SCORES.items():
        found = metrics.inception_score(logits, from_logits=True, **options)
        for value, part in zip(found, ("mean", "std"), strict=True):
            key = f"isc_{name}_{part}"
            kept = sets[f"{case}/{key}"]
            yield row(case, FIDELITY, mode, key, kept=kept, ours=value)


def from_pictures(sets, net):
    """The whole way."""
    if "A" not in sets:
        return
    from ylg import metrics

    mode = "legacy_tensorflow"
    fake, real = (predict(net, sets[name], mode) for name in "AB")
    case = "pictures/2048"
    yield from of_features(sets, case, fake["2048"], real["2048"], mode)
    yield from scores(sets, "pictures", fake["logits_unbiased"], mode)
    for mode in MODES:
        fake = predict(net, sets["A"][:48], mode)["2048"]
        real = predict(net, sets["B"][:40], mode)["2048"]
        kernel = metrics.kernel_distance(real, fake, 20, 40, 5)
        case = f"cleanfid/{mode}"
        for key, value in (
            ("fid", metrics.frechet_distance(fake, real)),
            ("kid", kernel.value),
        ):
            kept, exact = (sets[f"{case}/{key}{end}"] for end in ("", "_f64"))
            yield row("pictures", CLEAN, mode, key, kept, exact, value)


def predict(net, pictures, mode):
    import numpy as np

    from ylg import metrics

    parts = []
    for start in range(0, len(pictures), 16):
        pixels = metrics.resize(pictures[start : start + 16], mode)
        parts.append(net.predict_on_batch(metrics.normalize(pixels, mode)))
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        for name in parts[0]
    }


def numbers(pictures):
    return [i for i in range(6) if f"picture{i}" in pictures]


def row(step, reference, mode, what, kept=None, exact=None, ours=None, error=0):
    """A figure with its errors, absolute and relative, or an error alone."""
    found = {
        "step": step,
        "reference": reference,
        "resize": mode,
        "what": what,
        "theirs": "" if kept is None else f"{kept:.10g}",
        "exact": "" if exact is None else f"{exact:.10g}",
        "ours": "" if ours is None else f"{ours:.10g}",
        "error": f"{error if ours is None else abs(ours - kept):.1e}",
        "relative": "",
        "from_exact": "",
    }
    if ours is not None and kept:
        found["relative"] = f"{abs(ours / kept - 1):.1e}"
    if exact is not None:
        found["from_exact"] = f"{abs(ours - exact):.1e}"
    return found


if __name__ == "__main__":
    main()
