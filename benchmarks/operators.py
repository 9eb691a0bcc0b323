"""What the benchmarks of operators share: how each is called and compared."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from measure import HONEST_MEMORY, Worker, peak_memory, take_turns

PASSES = ("forward", "forward+backward")
BACKENDS = {"tf graph": "tensorflow", "tf xla": "tensorflow", "jax": "jax"}
GIBIBYTES, SECONDS = 2, 2  # of scores, of a call: beyond, it is left out
FEW = 2048  # tokens, whose memory is not measured
NOTHING = dict.fromkeys(("milliseconds", "fastest", "slowest", "calls"), "")


class Growth(NamedTuple):
    """How the cost of a contender grows, to leave out what cannot be run.

    Attributes:
        pairs: of queries and keys on a map, by its side; time grows like it.
        stored: bytes that are held at once for each of them.
    """

    pairs: Callable
    stored: int = 4


def pair(script, backend, variables=None):
    """A worker for time, with these variables, and one for memory."""
    environment = {"KERAS_BACKEND": backend}
    return (
        Worker(script, {**environment, **(variables or {})}),
        Worker(script, {**environment, **HONEST_MEMORY}),
    )


def compiled(function, arrays, runtime, direction):
    """A call of `function`, or of its gradients, that gives their arrays."""
    backward = direction != "forward"
    arrays = [np.asarray(array, "float32") for array in arrays]
    if runtime == "jax":
        import jax

        def loss(arrays):
            return jax.numpy.square(function(*arrays)).sum()

        call = jax.grad(loss) if backward else lambda x: [function(*x)]
        call, arrays = jax.jit(call), jax.device_put(arrays)
        return lambda: jax.block_until_ready(call(arrays))

    import tensorflow as tf

    @tf.function(jit_compile=runtime == "tf xla", autograph=False)
    def call(arrays):
        if not backward:
            return [function(*arrays)]
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            loss = tf.reduce_sum(tf.square(function(*arrays)))
        return tape.gradient(loss, arrays)

    arrays = [tf.constant(array) for array in arrays]
    return lambda: [memoryview(y) for y in call(arrays)]  # waits, no copy


def compare(contenders, sides, workers, describe, machine):
    """Rows of all contenders on all maps, the smallest first.

    Args:
        contenders: dict from (contender, runtime) to its `Growth`.
        sides: of the maps.
        workers: dict from a runtime to a worker for time and one for memory.
        describe: the script's own columns of a contender and a side.
        machine: the last column.
    """
    rows, before = [], {}
    for side in sorted(sides):
        columns = {c: describe(c, side) for c, _ in contenders}
        for direction in PASSES:
            cases, notes = {}, {}
            for name, growth in contenders.items():
                notes[name] = why_not(
                    growth, side, before.get((*name, direction))
                )
                case = dict(zip(("contender", "runtime"), name, strict=True))
                cases[name] = {**case, "side": side, "direction": direction}
            figures = take_turns(
                {
                    (c, r): (workers[r][0], case)
                    for (c, r), case in cases.items()
                    if not notes[c, r]
                },
                seconds=0.25,
                rounds=5,
            )
            for (contender, runtime), note in notes.items():
                name = contender, runtime
                row = figures.get(name, {**NOTHING, "note": note})
                peak = ""
                if row["milliseconds"]:
                    if side**2 >= FEW and runtime != "tf xla":
                        peak = peak_memory(workers[runtime][1], cases[name])
                    before[*name, direction] = side, float(row["milliseconds"])
                note = row.pop("note")
                rows.append(
                    {
                        "contender": contender,
                        "side": side,
                        "tokens": side**2,
                        "runtime": runtime,
                        "pass": direction,
                        **columns[contender],
                        **row,
                        "peak_mib": peak,
                        "note": note,
                        "machine": machine,
                    }
                )
                print(*list(rows[-1].values())[:-1], flush=True)
    for worker in {w for both in workers.values() for w in both}:
        worker.close()
    return rows


def why_not(growth, side, before):
    """Why a case is left out, or nothing; `before`: (side, milliseconds)."""
    pairs = growth.pairs(side)
    gibibytes = growth.stored * pairs / 2**30
    if gibibytes > GIBIBYTES:
        return f"left out: {gibibytes:.1f} GiB of scores"
    if before:
        seconds = before[1] / 1e3 * pairs / growth.pairs(before[0])
        if seconds > SECONDS:
            return f"left out: {seconds:.1f} s a call by the map before"
    return ""


def select(rows, contender, runtime, direction, column="milliseconds"):
    """Dict from sides to the figures of a column."""
    return {
        row["side"]: float(row[column])
        for row in rows
        if row["contender"] == contender
        and row["runtime"] == runtime
        and row["pass"] == direction
        and row[column]
    }


def slope(points):
    """Exponent of the number of cells from 32 x 32 on, by least squares."""
    points = {s: v for s, v in points.items() if s >= 32 and v > 0}
    if len(points) < 2:
        return math.nan
    cells = [2 * math.log(side) for side in points]
    return np.polyfit(cells, np.log(list(points.values())), 1)[0]


def over(above, below, sides):
    """Quotients of figures; none where the lower one is next to nothing."""
    return [
        above[side] / below[side]
        if side in above and below.get(side, 0) > 0.01
        else None
        for side in sides
    ]


def show(name, sides, values):
    """Prints values by the side of the map, a dash where there is none."""
    cells = (
        f"{side}²: {'-' if value is None else format(value, '.3g')}"
        for side, value in zip(sides, values, strict=True)
    )
    print(f"{name:50}", *(f"{cell:13}" for cell in cells))


def ticks(axis, sides):
    axis.set_xticks(sides, [f"{s}²" for s in sides], minor=False)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
