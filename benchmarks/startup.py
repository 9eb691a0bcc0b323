"""How long from `import` to the first prediction, in a new process?

    python benchmarks/startup.py

runs each net of the table in fresh processes, in turn, and writes
`benchmarks/startup.csv`: seconds of wall time, median and spread. The disk
cache is warm after the first round, which is not counted.
"""

import csv
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 5
OUTPUT = Path(__file__).with_suffix(".csv")
CODE = """
import time
start = time.perf_counter()
{imports}
imported = time.perf_counter()
model = {net}
built = time.perf_counter()
import numpy as np
model(np.zeros((1, 224, 224, 3), "float32"))
done = time.perf_counter()
import keras
print(imported - start, built - imported, done - built, done - start)
print(keras.__version__, keras.backend.backend())
"""
NETS = {
    "kanets.KANet": ("import kanets", "kanets.KANet()"),
    "keras.applications.MobileNetV2": (
        "import keras",
        "keras.applications.MobileNetV2(weights=None)",
    ),
}


def run(imports, net):
    code = CODE.format(imports=imports, net=net)
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    times, versions = output.stdout.strip().splitlines()
    return [float(t) for t in times.split()], versions.split()


def main():
    seconds = {name: [] for name in NETS}
    for round_ in range(ROUNDS + 1):
        for name, (imports, net) in NETS.items():
            times, versions = run(imports, net)
            if round_:
                seconds[name].append(times)
    with OUTPUT.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["net", "part", "median_s", "min_s", "max_s", "rounds"]
            + ["keras", "backend", "machine"]
        )
        for name, rows in seconds.items():
            for part, values in zip(
                ("import", "build", "first prediction", "all"),
                zip(*rows, strict=True),
                strict=True,
            ):
                figures = statistics.median(values), min(values), max(values)
                writer.writerow(
                    [name, part, *(f"{v:.2f}" for v in figures), ROUNDS]
                    + [*versions, platform.machine()]
                )
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()
