"""How long from `import` to the first prediction and the first training step?

    python benchmarks/startup.py

Two minutes on two quiet cores. Runs each net in new processes, in turn, after
an import that warms the disk's cache, and writes `startup.csv` and
`startup.png` beside this file: seconds of wall time, median and spread.
`--rounds` tries fewer or more and writes nothing.

A process imports, builds a net of 1000 classes for 224 px, predicts for one
picture as a new user does (`model.predict`), and takes one step of training
with one picture (`train_on_batch`), which also compiles. `kanet_qkv_cifar10`
is loaded with its weights from the zoo instead, and predicts at 32 px.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from measure import environment, machine
from tables import write

HERE = Path(__file__).parent
ROUNDS = 3
CODE = """
import json, time
times = [time.perf_counter()]
{imports}
times.append(time.perf_counter())
model = {net}
times.append(time.perf_counter())
import numpy as np
pixels = np.zeros((1, *model.input_shape[1:]), "float32")
model.predict(pixels, verbose=0)
times.append(time.perf_counter())
if {trains}:
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(pixels, np.zeros(1))
    times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""
PARTS = ("import", "build", "first prediction", "first training step")
# What is imported, what makes the net, whether it is trained.
NETS = {
    "kanets.KANet": ("import kanets, keras", "kanets.KANet()", True),
    "keras.applications.MobileNetV2": (
        "import keras",
        "keras.applications.MobileNetV2(weights=None)",
        True,
    ),
    "keras.applications.EfficientNetV2B0": (
        "import keras",
        "keras.applications.EfficientNetV2B0(weights=None)",
        True,
    ),
    "kanet_qkv_cifar10": (
        "import kanets, keras",
        'kanets.create_model("kanet_qkv_cifar10")',
        False,
    ),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    python("import kanets, keras")
    taken = {name: [] for name in NETS}
    for _ in range(rounds):
        for name, net in NETS.items():
            taken[name].append(seconds(*net))
            print(name, *(f"{s:.2f}" for s in taken[name][-1]), flush=True)
    rows = []
    for name, runs in taken.items():
        columns = [*zip(*runs, strict=True), [sum(run) for run in runs]]
        parts = [*PARTS[: len(columns) - 1], "all"]
        for part, values in zip(parts, columns, strict=True):
            figures = statistics.median(values), min(values), max(values)
            row = {"net": name, "part": part}
            for column, value in zip(
                ("median_s", "min_s", "max_s"), figures, strict=True
            ):
                row[column] = f"{value:.2f}"
            row.update(rounds=rounds, machine=machine("keras", "tensorflow"))
            rows.append(row)
            print(*list(row.values())[:-1], sep="\t")
    if rounds == ROUNDS:
        write(HERE / "startup.csv", rows)
        plot(rows)


def seconds(imports, net, trains):
    output = python(CODE.format(imports=imports, net=net, trains=trains))
    return json.loads(output.splitlines()[-1])


def python(code):
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment({"KERAS_BACKEND": "tensorflow"}),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        sys.exit(process.stderr)
    return process.stdout


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axis = figure.subplots()
    for index, part in enumerate(PARTS):
        for name in NETS:
            medians = {
                row["part"]: float(row["median_s"])
                for row in rows
                if row["net"] == name
            }
            before = sum(medians[p] for p in PARTS[:index] if p in medians)
            if part in medians:
                axis.barh(name, medians[part], left=before, color=f"C{index}")
        axis.barh(next(iter(NETS)), 0, color=f"C{index}", label=part)
    axis.invert_yaxis()
    axis.set(xlabel="seconds, in a new process")
    axis.legend(fontsize=8)
    figure.savefig(HERE / "startup.png", dpi=110)


if __name__ == "__main__":
    main()
