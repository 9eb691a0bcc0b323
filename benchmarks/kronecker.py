"""Are KAO_KV and KAO_QKV hundreds of times cheaper than dense attention?

    python benchmarks/kronecker.py

Four minutes on two quiet cores. Writes `kronecker.csv` and `kronecker.png`
beside this file and prints the factors. `--sides 14 28` tries a few sizes and
writes nothing.

One picture of 64 channels, float32, one head: no contender moves data to split
heads. The bare operators have no projections and the factor 1/sqrt(C):
`kao_kv`, `kao_qkv`, `dense` and `dense_pool` (keys and values pooled by 2) are
those of `kanets.ops`, `dot_product_attention` is that of `keras.ops` on the
flattened map. `MultiHeadAttention`, of Keras on the flattened map, has four
projections of its own; its like-for-like partners are the layers `kao_kv qkvo`
and `kao_qkv qkvo`. `empty` returns its input: what a call costs in itself.

Contenders of all runtimes take turns (`measure.py`). "forward+backward" gives
the gradients of the sum of squares with respect to the map and the weights.
`peak_mib`, from 2,048 tokens on, is what a second process, whose allocator
gives freed blocks back (and, of TensorFlow, without oneDNN, which keeps them),
grows by in a call; that of TensorFlow's XLA is JAX's, the same compiler's.
Multiply-adds are counted in TensorFlow's graph of the forward pass, also where
nothing is run: cases whose scores alone pass 2 GiB, or whose call would take
more than 2 s by the time on the map before.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measure import (
    HONEST_MEMORY,
    Worker,
    machine,
    peak_memory,
    serve,
    take_turns,
)
from tables import write

HERE = Path(__file__).parent
SIDES = (14, 28, 56, 112, 224)
CHANNELS = 64
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


DENSE = Growth(lambda side: side**4)
KV = Growth(lambda side: side**2 * 2 * side)
QKV = Growth(lambda side: (2 * side) ** 2)
CONTENDERS = {
    "kao_kv": KV,
    "kao_qkv": QKV,
    "dense": DENSE,
    "dense_pool": Growth(lambda side: side**2 * (-(-side // 2)) ** 2),
    "dot_product_attention": DENSE,
    "MultiHeadAttention": DENSE,
    "kao_kv qkvo": KV,
    "kao_qkv qkvo": QKV,
    "empty": Growth(lambda side: side**2),
}
COMPARED = (
    ("dense", "kao_kv"),
    ("dense", "kao_qkv"),
    ("dense_pool", "kao_kv"),
    ("dense_pool", "kao_qkv"),
    ("dot_product_attention", "kao_kv"),
    ("dot_product_attention", "kao_qkv"),
    ("MultiHeadAttention", "kao_kv qkvo"),
    ("MultiHeadAttention", "kao_qkv qkvo"),
)
PARTNERS = "MultiHeadAttention", "kao_kv qkvo", "kao_qkv qkvo"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+")
    sides = parser.parse_args().sides
    os.environ["KERAS_BACKEND"] = "tensorflow"  # which counts
    rows = compare(
        {(c, r): growth for r in BACKENDS for c, growth in CONTENDERS.items()},
        sides or SIDES,
        {runtime: pair(__file__, name) for runtime, name in BACKENDS.items()},
        lambda contender, side: {"multiply_adds": count(contender, side)},
        machine("tensorflow", "jax", "keras"),
    )
    report(rows)
    if not sides:
        write(HERE / "kronecker.csv", rows)
        plot(rows)


def count(contender, side):
    """Multiply-adds of the forward pass; nothing is computed."""
    from kanets.nets import multiply_adds

    return multiply_adds(build(contender, side))


def build(contender, side):
    """The contender as a model of one map."""
    from keras import Input, Model, layers, ops

    from kanets.layers import DenseAttention, KroneckerAttention

    x = Input((side, side, CHANNELS), batch_size=1)
    name, _, projections = contender.partition(" ")
    settings = {"projections": projections, "scale": "rsqrt"}
    if name == "empty":
        y = layers.Identity()(x)
    elif name == "dense":
        y = DenseAttention(**settings)(x)
    elif name == "dense_pool":
        y = DenseAttention(pool_size=2, **settings)(x)
    elif name == "MultiHeadAttention":
        tokens = ops.reshape(x, (1, side**2, CHANNELS))
        attend = layers.MultiHeadAttention(1, CHANNELS, use_bias=False)
        y = ops.reshape(attend(tokens, tokens), x.shape)
    elif name == "dot_product_attention":
        tokens = ops.reshape(x, (1, side**2, 1, CHANNELS))
        y = ops.dot_product_attention(tokens, tokens, tokens)
        y = ops.reshape(y, x.shape)
    else:
        mode = name.removeprefix("kao_")
        y = KroneckerAttention(mode=mode, **settings)(x)
    return Model(x, y)


def prepare(contender, runtime, side, direction):
    model = build(contender, side)
    x = np.random.default_rng(0).normal(size=model.input_shape)
    weights = [w.numpy() for w in model.trainable_variables]

    def attend(x, *weights):
        return model.stateless_call(weights, [], x)[0]

    return compiled(attend, [x, *weights], runtime, direction)


def report(rows):
    """Prints by how much the dense contenders are above KAO."""
    sides = sorted({row["side"] for row in rows})
    counts = {(r["contender"], r["side"]): r["multiply_adds"] for r in rows}
    for dense, kao in COMPARED:
        factors = [counts[dense, s] / counts[kao, s] for s in sides]
        show(f"multiply-adds, {dense} / {kao}", sides, factors)
    for runtime in BACKENDS:
        for direction in PASSES:
            for column in ("milliseconds", "peak_mib"):
                print(f"{runtime}, {direction}, {column}")
                for dense, kao in COMPARED:
                    above, below = (
                        select(rows, name, runtime, direction, column)
                        for name in (dense, kao)
                    )
                    show(f"  {dense} / {kao}", sides, over(above, below, sides))
    aim(rows)


def aim(rows, side=56, fewer=300, faster=100):
    """Prints whether KAO's factors at 56 x 56 are what one hopes for."""
    counts = {
        r["contender"]: r["multiply_adds"] for r in rows if r["side"] == side
    }
    for kao in ("kao_kv", "kao_qkv"):
        if kao not in counts:
            continue
        factor = counts["dense"] / counts[kao]
        holds = "holds" if factor >= fewer else "does not hold"
        print(
            f"At {side} x {side}, {kao}, {fewer} times fewer multiply-adds "
            f"{holds}: {factor:.1f}."
        )
        for direction in PASSES:
            for runtime in BACKENDS:
                ours, empty, dense = (
                    select(rows, name, runtime, direction)[side]
                    for name in (kao, "empty", "dense")
                )
                holds = "holds" if dense / ours >= faster else "does not hold"
                print(
                    f"At {side} x {side}, {kao}, {runtime}, {direction}, "
                    f"{faster} times faster {holds}: {dense / ours:.1f} "
                    f"({dense:.3g} ms / {ours:.3g} ms, of which a call in "
                    f"itself has {empty:.3g} ms)."
                )


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 11), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True, sharey="row")
    for across, runtime in enumerate(BACKENDS):
        for down, (column, direction) in enumerate(
            (
                ("milliseconds", "forward"),
                ("milliseconds", "forward+backward"),
                ("peak_mib", "forward+backward"),
            )
        ):
            axis = axes[down][across]
            for index, name in enumerate(CONTENDERS):
                points = select(rows, name, runtime, direction, column)
                points = {s: v for s, v in points.items() if v > 0}
                style = "s--" if name in PARTNERS else "o-"
                axis.loglog(
                    points.keys(),
                    points.values(),
                    ":" if name == "empty" else style,
                    color="black" if name == "empty" else f"C{index}",
                    label=name,
                )
            unit = "ms" if column == "milliseconds" else "MiB at the peak"
            axis.set(title=f"{runtime}, {direction}", ylabel=unit)
            ticks(axis, SIDES)
            axis.set_visible(any(len(line.get_xdata()) for line in axis.lines))
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5)
    figure.savefig(HERE / "kronecker.png", dpi=110)


# What follows is shared with `ylg_attention.py`.


def pair(script, backend):
    """A worker for time and one for memory."""
    environment = {"KERAS_BACKEND": backend}
    return (
        Worker(script, environment),
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


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
