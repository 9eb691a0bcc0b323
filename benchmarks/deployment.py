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
with two, and the most memory that the process held which did the latter,
its runtime included. Writes `benchmarks/deployment_formats.csv`.

`accuracy`: classifiers and the segmenter on all pictures of their cards, as
Keras models, SavedModels and LiteRT of three precisions, with the sizes and,
measured in turns, the latencies of the latter. Writes
`benchmarks/deployment_accuracy.csv`.

With `--entries PATTERN` only the rows of these are measured anew.

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
from kanets import evaluation, export, tasks, zoo
from kanets.evaluation.files import representative
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
# Of which `accuracy` measures all pictures of a card.
MEASURED = [("savedmodel", "float32")] + [
    ("litert", precision) for precision in ("float32", "float16", "int8")
]
CAMVID_SIZE = (360, 480)  # of all its pictures


def folders(entry, data):
    """Pictures to verify with and, for int8, of the training set."""
    measured = data / entry.measured_on[0]
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


def others(path, pattern):
    """Rows of entries that are still there and are not measured anew."""
    names = {entry.name for entry in zoo.list_models()}
    return [
        row
        for row in read(path)
        if row["entry"] in names and not fnmatch.fnmatch(row["entry"], pattern)
    ]


def formats(options):
    path = HERE / "deployment_formats.csv"
    kept = others(path, options.entries)
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
                    "peak_mib": two["peak_mib"],  # one input alone
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
    path = HERE / "deployment_accuracy.csv"
    kept = others(path, options.entries)
    rows = []
    for entry in zoo.list_models(options.entries):
        if entry.task == "generation":
            continue
        model = kanets.load_model(entry.name)
        measured, train = folders(entry, options.data)
        paths = {
            f"{kind} {precision}": write_artifact(
                model, entry.name, options.to, kind, precision, train
            )
            for kind, precision in MEASURED
        }
        latencies = measure(paths, model, options.rounds)
        for name in ("keras", *paths):
            source = paths.get(name, model)
            found = evaluation.evaluate(
                source, measured, **entry.measured_on[1]
            )
            task = tasks.of_result(found)
            size = ""
            if name in latencies:
                size = f"{(source / 'model.tflite').stat().st_size / 1e6:.3f}"
            one, two = latencies.get(name, ("", ""))
            rows.append(
                {
                    "entry": entry.name,
                    "model": name,
                    "pictures": found["pictures"],
                    "metric": task.metric,
                    "value": f"{found[task.figure]:.4f}",
                    "megabytes": size,
                    "latency_ms_1_thread": one,
                    "latency_ms_2_threads": two,
                    "machine": MACHINE,
                    "keras": keras.version(),
                }
            )
            print(*list(rows[-1].values())[:-2], sep="\t", flush=True)
            write(path, sorted(kept + rows, key=lambda row: row["entry"]))


def measure(paths, model, rounds):
    """By name, median milliseconds of a picture with one thread and two."""
    size = model.input_shape[1:3]
    size = CAMVID_SIZE if None in size else size
    picture = np.full((1, *size, 3), 127.5, "float32")
    calls = {
        (name, threads): runtimes.load(path, threads)
        for name, path in paths.items()
        if name.startswith("litert")
        for threads in (1, 2)
    }
    seconds = {key: [] for key in calls}
    for turn in range(rounds + 3):
        for key, run in calls.items():
            start = time.perf_counter()
            run(images=picture)
            if turn >= 3:  # the first ones warm up
                seconds[key].append(time.perf_counter() - start)
    return {
        name: tuple(
            f"{statistics.median(seconds[name, threads]) * 1e3:.2f}"
            for threads in (1, 2)
        )
        for name, _ in calls
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("question", choices=["formats", "accuracy", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--to", type=Path, default="runs/deployment")
    parser.add_argument("--entries", default="*", help="a pattern")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    {"formats": formats, "accuracy": accuracy, "table": table}[
        options.question
    ](options)


if __name__ == "__main__":
    main()
