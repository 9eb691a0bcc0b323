"""Which net wins under the same recipe and budget? Three seeds each.

    python benchmarks/comparison.py cifar10 --data cifar10
    python benchmarks/comparison.py tiny_imagenet_32 --data tiny_imagenet_32
    python benchmarks/comparison.py camvid --data camvid
    python benchmarks/comparison.py speed

The first two train every net of `NETS` with every seed, one after the other,
in `runs/comparison/<data>/<net>_<seed>` (a run that was stopped continues),
and write a row per run to `benchmarks/comparison_<data>.csv`, where a row that
is there is not repeated: the figure is that of `kanets evaluate` after the
last epoch on the test or validation pictures, which choose nothing.
All nets have the same recipe, strides and width multiplier; `--alpha` and
`--epochs` set the budget. `camvid` does the same with the recipe
`training/kanet_segmenter_camvid.toml`, whose body is that of the run
`runs/kanet_qkv_tiny_imagenet_32`, and every attention of `SEGMENTERS` after the
pyramid. `speed` measures the classifiers side by side in this
process, in rounds, and writes `benchmarks/comparison_speed.csv` (medians).
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from tables import holds, read, write

from kanets import evaluation, recipes
from kanets.nets import multiply_adds
from kanets.train.recipes.files import arguments

HERE = Path(__file__).parent
STRIDES = [2, 1, 2, 2, 1]
EPOCHS = 2
NETS = {
    "kanet_qkv": {"name": "KANet", "attention": "kao_qkv"},
    "mobilenet_v2": {"name": "MobileNetV2"},
    "kanet_none": {"name": "KANet", "attention": "none"},
    "kanet_kv": {"name": "KANet", "attention": "kao_kv"},
    "mobilenet_v3_small": {"name": "MobileNetV3Small"},
    "kanet_dense_pool": {"name": "KANet", "attention": "dense_pool"},
    "kanet_dense": {"name": "KANet", "attention": "dense"},
    "kanet_ylg": {"name": "KANet", "attention": "ylg"},
    **{
        f"kanet_{name.removeprefix('kao_')}": {
            "name": "KANet",
            "attention": name,
        }
        for name in (
            *("kao_rectified", "axial", "window", "neighborhood"),
            *("lsh", "smyrf", "adaptive_span"),
        )
    },
}
SEGMENTERS = ("kao_qkv", "none", "dense", "kao_kv")
# What is measured, and options of `evaluate`.
DATA_SETS = {
    "cifar10": ("accuracy", {}),
    "tiny_imagenet_32": ("accuracy", {}),
    "camvid": ("mean_iou", {"ignore_label": 11}),
}


def recipe(net, source, alpha, epochs, seed):
    """The recipe of all nets; only the model and the seed differ."""
    return recipes.from_dict(
        {
            "model": {**NETS[net], "alpha": alpha, "strides": STRIDES},
            "epochs": epochs,
            "batch_size": 128,
            "seed": seed,
            "keep": "last",
            "data": {"source": str(source)},
            "augment": {"crop": 4},
            "optimize": {
                "name": "sgd",
                "learning_rate": 0.05,
                "warmup_epochs": 0.25,
                "weight_decay": 0.005,
            },
        }
    )


def build(net, alpha, classes):
    options = arguments({**NETS[net], "alpha": alpha})
    make = recipes.NETS[options.pop("name")]
    return make((32, 32, 3), classes=classes, strides=STRIDES, **options)


def segmentation_recipe(attention, source, epochs, seed):
    """The recipe `kanet_segmenter_camvid` with another attention."""
    recipe = recipes.read(
        HERE.parent / "training" / "kanet_segmenter_camvid.toml"
    )
    return dataclasses.replace(
        recipe,
        segmenter={**recipe.segmenter, "attention": attention},
        data=dataclasses.replace(recipe.data, source=str(source)),
        epochs=recipe.epochs if epochs is None else epochs,
        seed=seed,
    )


def compare(options):
    figure, evaluation_options = DATA_SETS[options.question]
    segments = options.question == "camvid"
    names = options.nets or (SEGMENTERS if segments else NETS)
    path = HERE / f"comparison_{options.question}.csv"
    rows = read(path)
    for seed in options.seeds:
        for name in names:
            run = Path(options.runs) / options.question / f"{name}_{seed}"
            if segments:
                plan = segmentation_recipe(
                    name, options.data, options.epochs, seed
                )
                alpha = plan.segmenter["alpha"]
            else:
                alpha = options.alpha
                epochs = options.epochs or EPOCHS
                plan = recipe(name, options.data, alpha, epochs, seed)
            case = dict(net=name, seed=seed, alpha=alpha, epochs=plan.epochs)
            if holds(rows, **case):
                continue
            result = recipes.train(plan, run, verbose=2)
            measured = evaluation.evaluate(
                run, options.data, **evaluation_options
            )
            rows.append(
                {
                    "net": name,
                    "seed": str(seed),
                    figure: f"{measured[figure]:.4f}",
                    "pictures": measured["pictures"],
                    "parameters": result["parameters"],
                    "alpha": str(alpha),
                    "epochs": str(plan.epochs),
                    "keras": keras.version(),
                    "backend": keras.backend.backend(),
                }
            )
            print(rows[-1], flush=True)
            write(path, rows)
            keras.utils.clear_session()
    summarize(rows, figure)


def summarize(rows, figure):
    """Prints mean and standard deviation over the seeds."""
    for name in dict.fromkeys(row["net"] for row in rows):
        values = [float(r[figure]) for r in rows if r["net"] == name]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(
            f"{name}: {figure} {statistics.mean(values):.4f} +- {spread:.4f} "
            f"({len(values)} seeds)"
        )


def speed(options):
    models = {}
    for net in options.nets or NETS:
        model = build(net, options.alpha, 10)
        model.compile("sgd", "sparse_categorical_crossentropy")
        models[net] = model
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (128, 32, 32, 3)).astype("float32")
    labels = generator.integers(10, size=128)
    steps = {net: [] for net in models}
    answers = {net: [] for net in models}
    for turn in range(options.rounds + 2):
        for net, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(images, labels)
            middle = time.perf_counter()
            model.predict_on_batch(images[:1])
            end = time.perf_counter()
            if turn > 1:  # the first ones compile and warm up
                steps[net].append(middle - start)
                answers[net].append(end - middle)
    rows = [
        {
            "net": net,
            "alpha": options.alpha,
            "parameters": model.count_params(),
            "multiply_adds": multiply_adds(model),
            "training_images_per_s": round(128 / statistics.median(steps[net])),
            "latency_ms": f"{statistics.median(answers[net]) * 1e3:.2f}",
            "rounds": options.rounds,
            "keras": keras.version(),
            "backend": keras.backend.backend(),
        }
        for net, model in models.items()
    ]
    write(HERE / "comparison_speed.csv", rows)
    for row in rows:
        print(row)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("question", choices=[*DATA_SETS, "speed"])
    parser.add_argument("--data", help="the folder of the data set")
    parser.add_argument("--runs", default="runs/comparison")
    parser.add_argument("--alpha", type=float, default=0.25)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--nets", nargs="+", help="default: all")
    options = parser.parse_args()
    if options.question == "speed":
        speed(options)
    elif options.data is None:
        parser.error("--data is needed")
    else:
        compare(options)


if __name__ == "__main__":
    main()
