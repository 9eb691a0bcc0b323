"""What is a pretrained net worth on other pictures, with which attention?

    python benchmarks/transfer.py --data DATA --sets flowers hymenoptera
    python benchmarks/transfer.py --data DATA --sets cifar10 tiny_imagenet_64
    python benchmarks/transfer.py camvid --data DATA
    python benchmarks/transfer.py price

DATA holds a folder a set, with `train/` and `val/` or `test/`. Every run sees
`SEEN` pictures of `SIDE` pixels, of at most `PICTURES` that are drawn from
`train` once for all, by the recipe of `kanets finetune`; only the start
differs (`WAYS`; that of 32 px is a run of
`training/kanet_qkv_tiny_imagenet_32.toml`, once an entry), and what begins with
random weights has a greater rate. The last epoch is kept; `val` or `test` is
looked at once, at the end, and chooses nothing. A seed sets fresh weights,
order and augmentation.

A row a run goes to `transfer.csv`; a row that is there is not repeated, a run
that was stopped continues. About two minutes of one core a run. `camvid` puts
the same bodies under a segmenter without attention of its own and writes
`transfer_camvid.csv`: mean IoU on `val` after three epochs of crops of 192
pixels, about as many as the others see in all, by the recipe of
`kanet_lite0_camvid`; three minutes a run. `price` writes `transfer_price.csv`:
parameters, multiply-adds, the milliseconds of a picture in LiteRT on one
thread, and training pictures a second, the ways taking turns.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
from measure import machine
from tables import append_run, holds, read, write
from verdict import maps
from verdict_price import exported, feeds_of, opened

import kanets
from kanets import evaluation, recipes

HERE = Path(__file__).parent
SIDE, PICTURES, SEEN = 96, 1_000, 4_000
SCRATCH_RATE = 3e-3
CAMVID_EPOCHS, CAMVID_CROP = 3, 192
BODY = "efficientnet_lite0_imagenet"
POSITION = {"attention_position": "expansion"}
HEADS = {"num_heads": 2, "key_dim": 5}
WAYS = {
    "scratch": {"name": BODY, "pretrained": False},
    "32-px entry": {"name": "runs/kanet_qkv_tiny_imagenet_32"},
    "no attention": {"name": BODY},
    "kao_rectified": {"name": "kanet_lite0_imagenet"},
    **{
        name: {
            "name": BODY,
            "attention": {"name": name, "projections": "qkvo", **HEADS},
            **POSITION,
        }
        for name in ("kao_qkv", "kao_kv", "dense")
    },
}
# Under a segmenter also what looks nowhere, of about as many parameters.
CAMVID_WAYS = {
    **WAYS,
    "1x1 maps": {"name": BODY, "attention": maps(20), **POSITION},
}


def pictures_of(source):
    """Class and file of each picture of `source/train`, in one random order."""
    groups = sorted(p for p in (source / "train").iterdir() if p.is_dir())
    files = [(g.name, f) for g in groups for f in sorted(g.iterdir())]
    order = np.random.default_rng(0).permutation(len(files))
    return [files[i] for i in order]


def link(files, folder):
    """A folder of links to pictures, where they are not there yet."""
    for name, file in files:
        (folder / name).mkdir(parents=True, exist_ok=True)
        place = folder / name / file.name
        if not place.exists():
            place.symlink_to(file.resolve())


def subset(source, folder):
    """A folder of links to at most `PICTURES` pictures of `source/train`."""
    files = pictures_of(source)[:PICTURES]
    link(files, folder)
    labels = source / "classes.tsv"
    if labels.exists() and not (folder / labels.name).exists():
        (folder / labels.name).symlink_to(labels.resolve())
    return folder, len(files)


def recipe(way, source, pictures, seed):
    """The recipe of a fine-tune, with another start."""
    epochs = round(SEEN / pictures)
    plan = recipes.finetune_recipe(
        BODY, source, epochs=epochs, image_size=(SIDE, SIDE), seed=seed
    )
    changes = {"model": WAYS[way], "keep": "last", "patience": 0}
    changes["data"] = dataclasses.replace(plan.data, validation=0.0)
    if way == "scratch":
        rate = {"learning_rate": SCRATCH_RATE}
        changes["optimize"] = dataclasses.replace(plan.optimize, **rate)
        changes["finetune"] = dataclasses.replace(
            plan.finetune, layer_decay=1.0, fit_head=False
        )
    return dataclasses.replace(plan, **changes)


def transfer(options):
    path = HERE / "transfer.csv"
    for seed in options.seeds:
        for name in options.sets:
            source, pictures = subset(
                options.data / name, options.runs / f"{name}_{PICTURES}"
            )
            for way in WAYS:
                if holds(read(path), set=name, way=way, seed=seed):
                    continue
                run = options.runs / f"{name}_{way}_{seed}".replace(" ", "_")
                plan = recipe(way, source, pictures, seed)
                start = time.process_time()
                result = recipes.train(plan, run, verbose=0)
                taken = time.process_time() - start
                measured = evaluation.evaluate(run, options.data / name)
                row = {
                    "set": name,
                    "way": way,
                    "seed": seed,
                    "accuracy": f"{measured['accuracy']:.4f}",
                    "correct": measured["correct"],
                    "pictures_tested": measured["pictures"],
                    "pictures_train": pictures,
                    "epochs": plan.epochs,
                    "side": SIDE,
                    "parameters": result["parameters"],
                    "cpu_seconds_train": round(taken),
                }
                append_run(path, row)
    summarize(read(path))


def body_of(way, folder):
    """The net that a segmenter takes its body from, saved in a folder."""
    given = CAMVID_WAYS[way]
    if Path(given["name"]).is_dir():
        return given["name"]
    path = folder / f"body_{way}".replace(" ", "_")
    if not path.exists():
        kanets.save_model(kanets.create_model(**given), path)
    return str(path)


def camvid_recipe(way, source, seed, folder):
    """That of the entry, shorter and with another body."""
    plan = recipes.read(HERE.parent / "training/kanet_lite0_camvid.toml")
    changes = {"epochs": CAMVID_EPOCHS, "seed": seed}
    changes["segmenter"] = {
        **plan.segmenter,
        "attention": None,
        "backbone": body_of(way, folder),
    }
    changes["data"] = dataclasses.replace(plan.data, source=str(source))
    changes["augment"] = dataclasses.replace(
        plan.augment, crop_size=(CAMVID_CROP, CAMVID_CROP)
    )
    if way == "scratch":
        changes["finetune"] = dataclasses.replace(
            plan.finetune, body_factor=1.0
        )
    return dataclasses.replace(plan, **changes)


def camvid(options):
    path = HERE / "transfer_camvid.csv"
    source = options.data / "camvid"
    for seed in options.seeds:
        for way in CAMVID_WAYS:
            if holds(read(path), way=way, seed=seed):
                continue
            run = options.runs / f"camvid_{way}_{seed}".replace(" ", "_")
            plan = camvid_recipe(way, source, seed, options.runs)
            start = time.process_time()
            result = recipes.train(plan, run, verbose=0)
            taken = time.process_time() - start
            measured = evaluation.evaluate(
                run, source / "val", ignore_label=plan.data.ignore_label
            )
            row = {
                "way": way,
                "seed": seed,
                "mean_iou": f"{measured['mean_iou']:.4f}",
                "pictures_tested": measured["pictures"],
                "epochs": plan.epochs,
                "crop": CAMVID_CROP,
                "parameters": result["parameters"],
                "cpu_seconds_train": round(taken),
            }
            append_run(path, row)
    summarize([{**row, "set": "camvid"} for row in read(path)], "mean_iou")


def summarize(rows, figure="accuracy"):
    """Prints mean and standard deviation over the seeds."""
    for name, way in dict.fromkeys((r["set"], r["way"]) for r in rows):
        values = [
            100 * float(r[figure])
            for r in rows
            if (r["set"], r["way"]) == (name, way)
        ]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(
            f"{name}, {way}: {statistics.mean(values):.1f} +- {spread:.1f} % "
            f"({len(values)} seeds)"
        )


def price(options, batch=32, rounds=10):
    """Time to predict and to train, the ways side by side."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (batch, SIDE, SIDE, 3)).astype("float32")
    y = random.integers(10, size=batch)
    rows, runs, models = {}, {}, {}
    for way, arguments in WAYS.items():
        if way == "scratch":
            continue
        model = opened(
            kanets.create_model(
                **arguments, num_classes=10, input_shape=(SIDE, SIDE, 3)
            )
        )
        rows[way] = {
            "way": way,
            "side": SIDE,
            "parameters": model.count_params(),
            "multiply_adds": kanets.nets.multiply_adds(model),
        }
        path = options.runs / "price" / way.replace(" ", "_")
        runs[way] = exported(model, path, "litert")
        model.compile("adamw", "sparse_categorical_crossentropy")
        models[way] = model
    taken = {way: ([], []) for way in rows}
    for i in range(rounds + 2):
        for way, model in models.items():
            feeds = feeds_of(runs[way], x[:1])
            start = time.perf_counter()
            runs[way](**feeds)
            middle = time.perf_counter()
            model.train_on_batch(x, y)
            end = time.perf_counter()
            if i >= 2:
                taken[way][0].append(1e3 * (middle - start))
                taken[way][1].append(batch / (end - middle))
    for way, (milliseconds, pictures) in taken.items():
        rows[way] |= {
            "litert_ms": round(statistics.median(milliseconds), 2),
            "training_pictures_per_second": round(
                statistics.median(pictures), 1
            ),
            "machine": machine("tensorflow", "ai-edge-litert"),
        }
        print(rows[way])
    write(HERE / "transfer_price.csv", list(rows.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = {"run": transfer, "camvid": camvid, "price": price}
    parser.add_argument("command", nargs="?", choices=commands, default="run")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["hymenoptera"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    commands[options.command](options)


if __name__ == "__main__":
    main()
