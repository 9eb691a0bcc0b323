"""Which part of the recipe of `kanets finetune` is worth how much?

    python benchmarks/finetune_recipe.py --data DATA --runs FOLDER

`kanet_lite0_imagenet` on at most 1,000 pictures of 96 px of a set's `train/`,
4,000 seen, by the recipe of `kanets finetune` with one part changed (`WAYS`);
judged, once, at the end, on 1,000 others of `train/`, or on half of them where
there are fewer. `val` and `test` are not looked at. A row a run goes to
`finetune_recipe.csv`; one that is there is not repeated. A minute and a half of
one core each.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from tables import append_run, holds, read
from transfer import link, pictures_of, summarize

from kanets import evaluation, recipes

HERE = Path(__file__).parent
ENTRY, SIDE, PICTURES, SEEN = "kanet_lite0_imagenet", 96, 1_000, 4_000
WAYS = {
    "as it is": {},
    "random head": {"finetune": {"fit_head": False}},
    "no smoothing": {"optimize": {"label_smoothing": 0.0}},
    "random head, no smoothing": {
        "finetune": {"fit_head": False},
        "optimize": {"label_smoothing": 0.0},
    },
    "less decay": {"optimize": {"weight_decay": 0.01}},
    "wider shifts": {"augment": {"crop": SIDE // 8}},
    "short warm-up": {"optimize": {"warmup_epochs": 0.4}},
}


def split(source, folder):
    """Links to the pictures to learn from and to be judged by."""
    files = pictures_of(source)
    count = min(PICTURES, len(files) // 2)
    link(files[:count], folder / "learn")
    link(files[count : 2 * count], folder / "judge")
    return folder / "learn", folder / "judge", count


def recipe(way, learn, count, seed):
    plan = recipes.finetune_recipe(
        ENTRY,
        learn,
        epochs=round(SEEN / count),
        image_size=(SIDE, SIDE),
        seed=seed,
    )
    changes = {
        section: dataclasses.replace(getattr(plan, section), **given)
        for section, given in WAYS[way].items()
    }
    changes["data"] = dataclasses.replace(plan.data, validation=0.0)
    return dataclasses.replace(plan, **changes, keep="last", patience=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    sets = ["flowers", "cifar10", "hymenoptera"]
    parser.add_argument("--sets", nargs="+", default=sets)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--runs", type=Path, default=Path("runs/recipe"))
    options = parser.parse_args()
    path = HERE / "finetune_recipe.csv"
    for seed in options.seeds:
        for name in options.sets:
            learn, judge, count = split(
                options.data / name, options.runs / name
            )
            for way in options.ways:
                if holds(read(path), set=name, way=way, seed=seed):
                    continue
                run = options.runs / f"{name}_{way}_{seed}".replace(" ", "_")
                plan = recipe(way, learn, count, seed)
                start = time.process_time()
                recipes.train(plan, run, verbose=0)
                taken = time.process_time() - start
                measured = evaluation.evaluate(run, judge)
                row = {
                    "set": name,
                    "way": way,
                    "seed": seed,
                    "accuracy": f"{measured['accuracy']:.4f}",
                    "pictures_train": count,
                    "pictures_judged": measured["pictures"],
                    "epochs": plan.epochs,
                    "cpu_seconds_train": round(taken),
                }
                append_run(path, row)
    summarize(read(path))


if __name__ == "__main__":
    main()
