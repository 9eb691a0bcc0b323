"""Does sparse attention cost n^1.5, where masked dense attention costs n^2?

    python benchmarks/ylg_attention.py

About a quarter of an hour on two cores. Writes `ylg_attention.csv` and
`ylg_attention.png` beside this file. Eight heads with the patterns of YLG,
keys of 4 channels and values of 16 (SAGAN's of a map of 256 channels), one
picture, keys on the same grid as queries, float32, TensorFlow.

The yardstick is `implementation="reference"`: the dense product, masked, as
the official code does it, but for two heads at a time, which spares it memory.
Each row is a process of its own, the two
implementations in turn. Time is the median of at least five calls, after two
for warming up. Memory is the highest resident size of the process
during a call, less its size before, in a second process whose allocator gives
every freed block back at once.
"""

import csv
import json
import math
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SIDES = (16, 32, 64, 128, 256)
GIBIBYTES, SECONDS = 20, 120  # what a process may take
HEADS, KEY_SIZE, VALUE_SIZE = 8, 4, 16
MACHINE = ", ".join(
    [
        platform.machine(),
        f"{os.cpu_count()} cores",
        *(f"{name} {version(name)}" for name in ("tensorflow", "keras")),
    ]
)
COLUMNS = (
    "side",
    "tokens",
    "implementation",
    "xla",
    "pass",
    "milliseconds",
    "fastest",
    "slowest",
    "peak_mib",
    "note",
    "machine",
)


def main():
    rows = []
    for side in SIDES:
        for xla in (False, True):
            for implementation in ("xla", "reference"):
                if implementation == "reference" and side > 128:
                    continue
                rows += measure(side, implementation, xla)
    with (HERE / "ylg_attention.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    report(rows)
    plot(rows)


def measure(side, implementation, xla):
    times, note = run("time", side, implementation, xla)
    peaks = {}
    if not note:
        peaks, note = run("memory", side, implementation, xla)
    rows = []
    for direction in ("forward", "forward+backward"):
        row = {
            "side": side,
            "tokens": side**2,
            "implementation": implementation,
            "xla": xla,
            "pass": direction,
        }
        row["machine"] = MACHINE
        if direction not in peaks:
            row["note"] = note
        else:
            taken = sorted(times[direction])
            row["milliseconds"] = f"{1e3 * taken[len(taken) // 2]:.3g}"
            row["fastest"] = f"{1e3 * taken[0]:.3g}"
            row["slowest"] = f"{1e3 * taken[-1]:.3g}"
            row["peak_mib"] = f"{peaks[direction]:.3g}"
        rows.append(row)
        print(*row.values(), flush=True)
    return rows


def run(what, side, implementation, xla):
    """What a fresh process measures, and why it ended early, if it did."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    environment["PYTHONPATH"] = str(HERE.parent)
    if what == "memory":
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its allocator keeps blocks
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
        environment["MALLOC_TRIM_THRESHOLD_"] = "65536"
    arguments = [what, str(side), implementation, str(int(xla))]
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    note = ""
    try:
        output, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        note = f"not within {SECONDS} s"
    if process.returncode and not note:
        note = f"within {GIBIBYTES} GiB: {(errors.split(chr(10)) + [''])[-2]}"
    lines = output.strip().splitlines()
    return (json.loads(lines[-1]) if lines else {}), note


def child(what, side, implementation, xla):
    """Prints {pass: seconds or MiB}, after each pass, as JSON."""
    import resource

    limit = GIBIBYTES * 1024**3
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import tensorflow as tf

    from ylg.ops import pattern_attention
    from ylg.patterns import ylg_heads

    n = side**2
    heads = ylg_heads((side, side), partial_block=True)
    inputs = [
        tf.random.stateless_normal((1, n, HEADS, size), (0, seed))
        for seed, size in enumerate((KEY_SIZE, KEY_SIZE, VALUE_SIZE))
    ]

    def forward(*x):
        return pattern_attention(*x, heads, implementation=implementation)

    def both(*x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(forward(*x)))
        return tape.gradient(loss, x)

    results = {}
    for name, function in (("forward", forward), ("forward+backward", both)):
        function = tf.function(function, jit_compile=xla)
        for _ in range(2):
            wait(function(*inputs))
        if what == "time":
            results[name] = timed(function, inputs)
        else:
            results[name] = peak(function, inputs)
        print(json.dumps(results), flush=True)


def timed(function, inputs):
    taken, start = [], time.perf_counter()
    while len(taken) < 5 or time.perf_counter() - start < 1.0:
        before = time.perf_counter()
        wait(function(*inputs))
        taken.append(time.perf_counter() - before)
    return taken


def peak(function, inputs):
    """MiB that the process grows by during a call, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    before = status("VmRSS")
    wait(function(*inputs))
    return (status("VmHWM") - before) / 1024


def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


def wait(outputs):
    for output in outputs if isinstance(outputs, tuple | list) else [outputs]:
        output.numpy()


def select(rows, implementation, xla, direction, column):
    return {
        int(row["tokens"]): float(row[column])
        for row in rows
        if row["implementation"] == implementation
        and row["xla"] == xla
        and row["pass"] == direction
        and row.get(column)
    }


def slope(points):
    """Exponent of the cost from 32 x 32 on, by least squares."""
    xs = [math.log(n) for n in points if n >= 1024]
    ys = [math.log(v) for n, v in points.items() if n >= 1024]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return over / sum((x - mean_x) ** 2 for x in xs)


def report(rows):
    for column in ("milliseconds", "peak_mib"):
        for direction in ("forward", "forward+backward"):
            for xla in (False, True):
                ours = select(rows, "xla", xla, direction, column)
                dense = select(rows, "reference", xla, direction, column)
                factors = {
                    math.isqrt(n): f"{dense[n] / max(ours[n], 0.1):.1f}"
                    for n in dense
                }
                print(
                    f"{column}, {direction}, XLA {xla}: exponent "
                    f"{slope(ours):.2f} against {slope(dense):.2f}; "
                    f"dense / sparse {factors}"
                )


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for across, column in enumerate(("milliseconds", "peak_mib")):
        for down, direction in enumerate(("forward", "forward+backward")):
            axis = axes[down][across]
            for implementation, colour in (("xla", "C0"), ("reference", "C3")):
                for xla, style in ((False, "o-"), (True, "s--")):
                    points = select(
                        rows, implementation, xla, direction, column
                    )
                    name = "sparse" if implementation == "xla" else "dense"
                    label = f"{name}, XLA {'on' if xla else 'off'}"
                    axis.loglog(
                        points.keys(),
                        points.values(),
                        style,
                        color=colour,
                        label=f"{label}: n^{slope(points):.2f}",
                    )
            unit = "ms" if column == "milliseconds" else "MiB at the peak"
            axis.set(title=direction, ylabel=unit)
            axis.set_xticks(
                [s**2 for s in SIDES], [f"{s}²" for s in SIDES], minor=False
            )
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(HERE / "ylg_attention.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        what, side, implementation, xla = sys.argv[1:]
        child(what, int(side), implementation, bool(int(xla)))
    else:
        main()
