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
from pathlib import Path

import numpy as np
from measure import machine, serve
from operators import (
    BACKENDS,
    PASSES,
    Growth,
    compare,
    compiled,
    over,
    pair,
    select,
    show,
    ticks,
)
from tables import write

HERE = Path(__file__).parent
SIDES = (14, 28, 56, 112, 224)
CHANNELS = 64
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


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
