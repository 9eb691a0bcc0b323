"""What does the zoo become in each format, and what does it cost?

    python benchmarks/deployment.py formats --data data
    python benchmarks/deployment.py accuracy --data data
    python benchmarks/deployment.py table

`--data` holds the folders that the entries are evaluated on. Exports
go to `--to`, `runs/deployment`; one that is there is not made again.

`formats`: every entry in every format, verified as by `kanets verify` on 200
pictures (a segmenter: 50; a generator: 200 latents) that no training saw: the
greatest difference of a score (of a generator, of a pixel in -1..1), the share
of equal answers, megabytes, and the latency of one picture with one thread and
with two. Writes `benchmarks/deployment_formats.csv`; with `--entries PATTERN`
only the rows of these.

`accuracy`: the classifiers of CIFAR-10 on all test pictures, as Keras models
and as LiteRT of three precisions, with sizes, and latencies measured in turns.
Writes `benchmarks/deployment_accuracy.csv`.

`table`: prints the tables of `savedmodels/README.md` from what `formats` wrote.
"""

import argparse
import fnmatch
import os
import platform
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from tables import read, write

import kanets
from kanets import export, zoo
from kanets.data.folders import read_pictures
from kanets.evaluation.files import picture_files, representative
from kanets.evaluation.verify import verify
from kanets.export import runtimes

HERE = Path(__file__).parent
FORMATS = [
    ("savedmodel", "float32"),
    ("savedmodel", "float16"),
    ("savedmodel", "bfloat16"),
    ("litert", "float32"),
    ("litert", "float16"),
    ("litert", "int8"),
    ("onnx", "float32"),
    ("openvino", "float32"),
    ("openvino", "float16"),
]
MACHINE = f"{platform.machine()}, {os.cpu_count()} cores"
CAMVID_SIZE = (360, 480)  # of all its pictures


def folders(entry, data):
    """Pictures to verify with and, for int8, of the training set."""
    words = entry.evaluate_command.split()
    measured = data / words[words.index("--data") + 1]
    train = measured.with_name("train")
    return measured, train if train.is_dir() else measured


def write_artifact(model, entry, to, kind, precision, train):
    """Exports one format, unless that was done; returns the folder."""
    folder = to / entry / f"{kind}_{precision}"
    if folder.exists():
        return folder
    options = {}
    if kind != "onnx" and (kind, precision) != ("savedmodel", "float32"):
        options["precision"] = precision
    if not export.is_generator(model):
        size = model.input_shape[1:3]
        options["image_size"] = CAMVID_SIZE if None in size else size
        if precision == "int8":
            options["representative"] = representative(
                model, train, options["image_size"]
            )
    getattr(export, f"export_{kind}")(model, folder, **options)
    return folder


def formats(options):
    path = HERE / "deployment_formats.csv"
    names = {entry.name for entry in zoo.list_models()}
    kept = [
        row
        for row in read(path)
        if row["entry"] in names
        and not fnmatch.fnmatch(row["entry"], options.entries)
    ]
    rows = []
    for entry in zoo.list_models(options.entries):
        model = kanets.load_model(entry.name)
        pictures, train = folders(entry, options.data)
        generates = export.is_generator(model)
        for kind, precision in FORMATS:
            if generates and precision == "int8":
                continue  # refused: its pictures need finer steps
            artifact = write_artifact(
                model, entry.name, options.to, kind, precision, train
            )
            given = None if generates else pictures
            count = 50 if export.is_segmenter(model) else 200
            one = verify(artifact, model, given, count=count)
            two = verify(artifact, model, given, count=1, threads=2)
            difference = one["greatest_difference"]
            rows.append(
                {
                    "entry": entry.name,
                    "format": kind,
                    "precision": precision,
                    "inputs": one["inputs"],
                    "greatest_difference": ""
                    if difference is None
                    else f"{difference:.2e}",
                    "agreement": f"{one['agreement']:.5f}",
                    "megabytes": f"{one['bytes'] / 1e6:.3f}",
                    "latency_ms_1_thread": f"{one['latency_ms']:.2f}",
                    "latency_ms_2_threads": f"{two['latency_ms']:.2f}",
                    "runtime": one["runtime"],
                    "machine": MACHINE,
                }
            )
            print(rows[-1], flush=True)
            write(path, sorted(kept + rows, key=lambda row: row["entry"]))


NAMES = {
    "savedmodel": "SavedModel",
    "litert": "LiteRT",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
}


def table(options):
    """Two tables, a column an entry: equal answers; size and latency."""
    rows = read(HERE / "deployment_formats.csv")
    entries = list(dict.fromkeys(row["entry"] for row in rows))

    def equal(row):
        difference = row["greatest_difference"]
        text = f"{100 * float(row['agreement']):.1f} %"
        if not difference:
            return text
        value = float(difference)
        small = f"{value:.0e}".replace("e-0", "e-")
        return f"{text} ({small if 0 < value < 1e-3 else f'{value:.2g}'})"

    def cost(row):
        times = [
            float(row[f"latency_ms_{n}"]) for n in ("1_thread", "2_threads")
        ]
        digits = [f"{t:.0f}" if t >= 10 else f"{t:.2g}" for t in times]
        return "; ".join([f"{float(row['megabytes']):.1f}", *digits])

    for title, cell in (
        ("equal answers (greatest difference)", equal),
        ("MB; ms with one thread; with two", cost),
    ):
        names = " | ".join(f"`{entry}`" for entry in entries)
        print(f"| {title} | {names} |\n|---{'|---' * len(entries)}|")
        for kind, precision in FORMATS:
            found = {
                row["entry"]: cell(row)
                for row in rows
                if (row["format"], row["precision"]) == (kind, precision)
            }
            cells = " | ".join(found.get(entry, "-") for entry in entries)
            print(f"| {NAMES[kind]} {precision} | {cells} |")
        print()


def accuracy(options):
    test = options.data / "cifar10" / "test"
    files = picture_files([test])
    table = []
    for entry in zoo.list_models("*cifar10", task="classification"):
        model = kanets.load_model(entry.name)
        pictures, rows, _ = read_pictures(files, model.input_shape[1:3], "stop")
        pictures = pictures.take(rows).astype("float32")
        names = list(model.class_names)
        labels = np.array([names.index(path.parent.name) for path in files])
        found = {"keras": model.predict(pictures, verbose=0)}
        sizes = {"keras": ""}
        artifacts = {}
        for precision in ("float32", "float16", "int8"):
            train = options.data / "cifar10" / "train"
            path = write_artifact(
                model, entry.name, options.to, "litert", precision, train
            )
            name = f"litert {precision}"
            size = (path / "model.tflite").stat().st_size
            sizes[name] = f"{size / 1e6:.3f}"
            for threads in (1, 2):
                artifacts[name, threads] = runtimes.load(path, threads)
            run = artifacts[name, 2]
            found[name] = run(images=pictures)["probabilities"]
        latencies = measure(artifacts, pictures[:1], options.rounds)
        for name, scores in found.items():
            correct = int((scores.argmax(-1) == labels).sum())
            table.append(
                {
                    "entry": entry.name,
                    "model": name,
                    "pictures": len(labels),
                    "correct": correct,
                    "accuracy": f"{correct / len(labels):.4f}",
                    "megabytes": sizes[name],
                    "latency_ms_1_thread": latencies.get((name, 1), ""),
                    "latency_ms_2_threads": latencies.get((name, 2), ""),
                    "machine": MACHINE,
                    "keras": keras.version(),
                }
            )
            print(table[-1], flush=True)
    write(HERE / "deployment_accuracy.csv", table)


def measure(artifacts, picture, rounds):
    """Median milliseconds of each, in turns."""
    seconds = {key: [] for key in artifacts}
    for turn in range(rounds + 3):
        for key, run in artifacts.items():
            start = time.perf_counter()
            run(images=picture)
            if turn >= 3:  # the first ones warm up
                seconds[key].append(time.perf_counter() - start)
    return {
        key: f"{statistics.median(values) * 1e3:.2f}"
        for key, values in seconds.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("question", choices=["formats", "accuracy", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--to", type=Path, default="runs/deployment")
    parser.add_argument("--entries", default="*", help="for formats")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    {"formats": formats, "accuracy": accuracy, "table": table}[
        options.question
    ](options)


if __name__ == "__main__":
    main()
