"""What is a pretrained model worth on few pictures?

    python benchmarks/finetuning.py --cifar10 cifar10 --hymenoptera hymenoptera

Moves a zoo entry to photos of ants and bees (245 to train), to a tenth and to
a hundredth of CIFAR-10's training pictures (every tenth or hundredth file of a
class), in four ways: from scratch (the same net with fresh weights), the head
alone (linear probe), all layers, and all layers with a learning rate that
falls by a factor from layer to layer. All ways of a task have the same epochs,
augmentation and schedule; the peak learning rate is that of the way. No test
picture is looked at before the end. Runs are kept in `runs/finetuning/`; one
that is complete is not repeated. A row per run goes to
`benchmarks/finetuning.csv`: the accuracy is that of `kanets evaluate`.
"""

import argparse
from pathlib import Path

import keras
from tables import write

from kanets import evaluation, recipes

HERE = Path(__file__).parent
# Peak learning rate, and what differs in the recipe.
WAYS = {
    "scratch": (3e-3, {"pretrained": False}, {}),
    "linear probe": (1e-2, {}, {"frozen": True}),
    "full": (1e-3, {}, {}),
    "full, layer decay 0.9": (2e-3, {}, {"layer_decay": 0.9}),
}
# Epochs, batch, side of the pictures (None: their own), greatest shift.
TASKS = {
    "hymenoptera": (20, 16, 64, 6),
    "cifar10 1 %": (40, 32, None, 4),
    "cifar10 10 %": (8, 64, None, 4),
}


def subset(source, every, folder):
    """A folder of links to every `every`-th picture of each class."""
    for group in sorted((source / "train").iterdir()):
        (folder / group.name).mkdir(parents=True, exist_ok=True)
        for path in sorted(group.iterdir())[::every]:
            link = folder / group.name / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
    return folder


def recipe(model, way, task, source, seed):
    epochs, batch_size, side, crop = TASKS[task]
    rate, arguments, changes = WAYS[way]
    frozen = epochs if changes.get("frozen") else 0
    return recipes.from_dict(
        {
            "model": {"name": model, **arguments},
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            "keep": "last",
            "data": {
                "source": str(source),
                "image_size": side and [side, side],
                "validation": 0.0,
            },
            "augment": {"crop": crop},
            "optimize": {
                "name": "adamw",
                "learning_rate": rate,
                "weight_decay": 0.05,
                "label_smoothing": 0.1,
            },
            "finetune": {
                "frozen_epochs": frozen,
                "layer_decay": changes.get("layer_decay", 1.0),
            },
        }
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="kanet_qkv_tiny_imagenet_32")
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--hymenoptera", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default="runs/finetuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs = options.runs
    sets = {
        "hymenoptera": (
            options.hymenoptera / "train",
            options.hymenoptera / "val",
        ),
        "cifar10 1 %": (
            subset(options.cifar10, 100, runs / "cifar10_1_percent"),
            options.cifar10 / "test",
        ),
        "cifar10 10 %": (
            subset(options.cifar10, 10, runs / "cifar10_10_percent"),
            options.cifar10 / "test",
        ),
    }
    rows = []
    for seed in options.seeds:
        for task, (source, test) in sets.items():
            for way in WAYS:
                name = f"{task}_{way}_{seed}"
                run = runs / "".join(c if c.isalnum() else "_" for c in name)
                plan = recipe(options.model, way, task, source, seed)
                recipes.train(plan, run, verbose=0)
                measured = evaluation.evaluate(run, test)
                rows.append(
                    {
                        "task": task,
                        "way": way,
                        "seed": seed,
                        "accuracy": f"{measured['accuracy']:.4f}",
                        "correct": measured["correct"],
                        "pictures": measured["pictures"],
                        "model": options.model,
                        "keras": keras.version(),
                        "backend": keras.backend.backend(),
                    }
                )
                print(rows[-1], flush=True)
                write(HERE / "finetuning.csv", rows)
                keras.utils.clear_session()


if __name__ == "__main__":
    main()
