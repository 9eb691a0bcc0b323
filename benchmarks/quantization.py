"""What do 8-bit integers cost, measured on pictures or learned?

    python benchmarks/quantization.py --data DATA

DATA holds `cifar10`. `kanet_qkv_cifar10` (`ENTRIES`) leaves as LiteRT in
int8 in two ways: with ranges measured on 200 training pictures, and after
two epochs that train for 8 bits (`[quantize] from_epoch = 1`, AdamW from 3e-5)
on 10,000 of their training pictures, beside the same two epochs without. A row
each goes to `benchmarks/quantization.csv`: the accuracy on the pictures that
the entry was measured on, and of a file the share of pictures of which it says
what the Keras model says that it was made of. Runs are kept in
`runs/quantization/`; one that is complete is not repeated.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from tables import write

import kanets
from kanets import data, recipes
from kanets.evaluation.files import representative
from kanets.export import runtimes

HERE = Path(__file__).parent
# The data set, and every how manieth training picture makes 10,000 of them.
ENTRIES = {
    "kanet_qkv_cifar10": ("cifar10", 5),
}
BATCH = 50  # of a file; divides the numbers of pictures


def subset(source, every, folder):
    """A folder of links to every `every`-th picture of each class."""
    for group in sorted((source / "train").iterdir()):
        (folder / group.name).mkdir(parents=True, exist_ok=True)
        for path in sorted(group.iterdir())[::every]:
            link = folder / group.name / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
    return folder


def recipe(entry, source, quantized):
    rate = 3e-4 if quantized else 3e-5  # of which 8 bits take a tenth
    return recipes.from_dict(
        {
            "model": {"name": entry},
            "epochs": 2,
            "batch_size": 128,
            "keep": "last",
            "data": {"source": str(source), "validation": 0.0},
            "augment": {"crop": 4},
            "optimize": {
                "name": "adamw",
                "learning_rate": rate,
                "warmup_epochs": 0.0,
                "weight_decay": 0.05,
            },
            "finetune": {"norm_momentum": 0.99},  # it saw these pictures
            "quantize": {"from_epoch": 1 if quantized else 0},
        }
    )


def said(model, folder, pictures, calibration=None):
    """What the int8 file of a model says of pictures, their classes."""
    if not folder.exists():
        kanets.export_litert(
            model,
            folder,
            precision="int8",
            representative=calibration,
            batch_size=BATCH,
        )
    file = runtimes.load(folder)
    parts = np.split(pictures.astype("float32"), len(pictures) // BATCH)
    found = [file(images=part)["probabilities"] for part in parts]
    return np.concatenate(found).argmax(-1)


def measure(entry, folder, every, runs):
    """The rows of an entry."""
    model = kanets.load_model(entry)
    source = subset(folder, every, runs / f"{entry}_pictures")
    test = data.load_test(folder, class_names=model.class_names)
    pictures = test.pictures.take(range(test.num_pictures))
    labels = np.concatenate([keras.ops.convert_to_numpy(y) for _, y in test])
    calibration = representative(model, source)
    models = {"float": model}
    for way in ("float, two epochs", "8 bits, two epochs"):
        run = runs / f"{entry}_{'int8' if '8' in way else 'float'}"
        recipes.train(recipe(entry, source, "8" in way), run)
        models[way] = kanets.load_model(run)
    files = {
        "int8, ranges measured": ("float", calibration),
        "int8, two epochs, ranges measured": ("float, two epochs", calibration),
        "int8, ranges learned": ("8 bits, two epochs", None),
    }
    answers = {
        way: net.predict(pictures, batch_size=BATCH, verbose=0).argmax(-1)
        for way, net in models.items()
    }
    rows = [(way, found, None) for way, found in answers.items()]
    for way, (origin, given) in files.items():
        name = "".join(c if c.isalnum() else "_" for c in f"{entry}_{way}")
        found = said(models[origin], runs / name, pictures, given)
        rows.append((way, found, np.mean(found == answers[origin])))
    for way, found, agreement in rows:
        yield {
            "entry": entry,
            "form": way,
            "accuracy": f"{100 * np.mean(found == labels):.2f}",
            "agreement": "" if agreement is None else f"{100 * agreement:.2f}",
            "pictures": len(labels),
            "keras": keras.version(),
            "backend": keras.backend.backend(),
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default="runs/quantization")
    options = parser.parse_args()
    rows = []
    for entry, (name, every) in ENTRIES.items():
        found = measure(entry, options.data / name, every, options.runs)
        for row in found:
            rows.append(row)
            print(row, flush=True)
        write(HERE / "quantization.csv", rows)


if __name__ == "__main__":
    main()
