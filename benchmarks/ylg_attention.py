"""Does sparse attention cost n^1.5, where dense attention costs n^2?

    python benchmarks/ylg_attention.py

Seven minutes on two quiet cores. Writes `ylg_attention.csv` and
`ylg_attention.png` beside this file and prints exponents and factors.
`--sides 16 32` tries a few grids and writes nothing.

Eight heads with the patterns of YLG, keys and values of 32 channels (a map of
256), one picture, keys on the grid of the queries, float32, each contender in
its framework's own layout:

- `sparse`: `pattern_attention`, in TensorFlow without and with XLA and in JAX.
- `masked`: its reference, the dense product, masked, as the official code does
  it, but two heads at a time, which spares it memory.
- `dense`: no mask, `keras.ops.dot_product_attention` (in JAX this is
  `jax.nn.dot_product_attention`).
- `torch masked`, `torch dense`: PyTorch's `scaled_dot_product_attention`.
- `torch flex`: PyTorch's compiled `flex_attention` with the same masks. Each
  head's tokens are put in the order, and back, in which its mask has the
  fewest blocks: that of ESA, for the repetitive steps with summaries first.

At 16 x 16, results and gradients under the same mask must agree. Then all
contenders take turns (`measure.py`). "forward+backward" gives the gradients of
the sum of squares. `peak_mib` and what is left out are as in `kronecker.py`.
"""

import argparse
import functools
import itertools
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Failure, machine, serve
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
    slope,
    ticks,
)
from tables import write

HERE = Path(__file__).parent
SIDES = (16, 32, 64, 128, 256)
HEADS, SIZE = 8, 32
SPARSE = Growth(lambda side: HEADS * side**3)
DENSE = Growth(lambda side: HEADS * side**4)
# contender: (what is called, how it grows, its runtimes)
CONTENDERS = {
    "sparse": ("pattern_attention, xla", SPARSE, tuple(BACKENDS)),
    "masked": ("pattern_attention, reference", DENSE, ("tf graph", "tf xla")),
    "dense": ("keras.ops.dot_product_attention", DENSE, tuple(BACKENDS)),
    "torch masked": (
        "scaled_dot_product_attention, attn_mask",
        DENSE,  # the mask
        ("torch",),
    ),
    "torch dense": (
        "scaled_dot_product_attention",
        DENSE._replace(stored=0),
        ("torch",),
    ),
    "torch flex": (
        "flex_attention, block_mask",
        SPARSE._replace(stored=0),
        ("torch compiled",),
    ),
}
SAME = (
    ("sparse", "masked", "torch masked", "torch flex"),
    ("dense", "torch dense"),
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+")
    sides = parser.parse_args().sides
    contenders = {
        (name, runtime): growth
        for name, (_, growth, runtimes) in CONTENDERS.items()
        for runtime in runtimes
    }
    backends = {**BACKENDS, "torch": "torch", "torch compiled": "torch"}
    made = {name: pair(__file__, name) for name in set(backends.values())}
    workers = {runtime: made[name] for runtime, name in backends.items()}
    check(contenders, workers)
    rows = compare(
        contenders,
        sides or SIDES,
        workers,
        lambda name, side: {"implementation": CONTENDERS[name][0]},
        machine("tensorflow", "jax", "torch", "keras"),
    )
    report(rows)
    if not sides:
        write(HERE / "ylg_attention.csv", rows)
        plot(rows)


def check(contenders, workers, side=16):
    """Raises if contenders of the same mask differ in result or gradient."""
    with tempfile.TemporaryDirectory() as folder:
        for direction in PASSES:
            found = {name: [] for names in SAME for name in names}
            for number, (name, runtime) in enumerate(contenders):
                case = {"contender": name, "runtime": runtime, "side": side}
                path = Path(folder, f"{number}{direction}.npy")
                case |= {"direction": direction, "save": str(path)}
                try:
                    workers[runtime][0].ask("prepare", case)
                    found[name].append(np.load(path))
                except Failure as failure:
                    print(f"{name}, {runtime}, {direction}: {failure}")
            for names in SAME:
                first, *others = sum((found[name] for name in names), [])
                apart = np.max([np.abs(other - first) for other in others])
                relative = apart / np.abs(first).max()
                print(
                    f"{direction}, {', '.join(names)}: {len(others) + 1} "
                    f"results differ by {apart:.2g} at most, {relative:.2g} of "
                    "the largest value",
                    flush=True,
                )
                if not relative < 1e-4:
                    raise SystemExit("These results should be the same.")


def prepare(contender, runtime, side, direction, save=None):
    from ylg.patterns import ylg_heads

    generator = np.random.default_rng(0)
    shape = 1, side**2, HEADS, SIZE
    arrays = [generator.normal(size=shape) for _ in range(3)]
    heads = ylg_heads((side, side), partial_block=True)
    if runtime.startswith("torch"):
        call = torch_call(contender, arrays, heads, direction)
    else:
        attend = keras_function(contender, heads)
        call = compiled(attend, arrays, runtime, direction)
    if save is None:
        return call
    results = [np.asarray(result) for result in call()]
    if runtime.startswith("torch"):
        results = [np.swapaxes(result, 1, 2) for result in results]
    return lambda: np.save(save, results)


def keras_function(contender, heads):
    from keras import ops

    from ylg.ops import pattern_attention

    if contender == "dense":
        return ops.dot_product_attention
    implementation = "xla" if contender == "sparse" else "reference"

    def attend(query, key, value):
        return pattern_attention(
            query,
            key,
            value,
            heads,
            scale=SIZE**-0.5,
            implementation=implementation,
        )

    return attend


def torch_call(contender, arrays, heads, direction):
    """As `operators.compiled`, of PyTorch; heads before tokens."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("torch is not installed") from error
    attend = torch.nn.functional.scaled_dot_product_attention
    if contender == "torch masked":
        mask = torch.tensor(np.stack([h.mask() for h in heads])[None])
        mask = torch.zeros(mask.shape).masked_fill_(~mask, -math.inf)
        attend = functools.partial(attend, attn_mask=mask)
    if contender == "torch flex":
        attend = flex_function(heads)
    backward = direction != "forward"
    arrays = [
        torch.tensor(np.swapaxes(array, 1, 2).copy(), dtype=torch.float32)
        for array in arrays
    ]
    for array in arrays:
        array.requires_grad_(backward)

    def call():
        with torch.set_grad_enabled(backward):
            results = [attend(*arrays)]
        if backward:
            loss = results[0].square().sum()
            results = torch.autograd.grad(loss, arrays)
        return [result.numpy() for result in results]

    return call


def flex_function(heads):
    """`flex_attention` in an order of tokens that leaves few blocks."""
    import torch
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    from ylg.patterns import GroupPattern, esa_order

    count, block = heads[0].num_queries, 128
    stride = math.isqrt(count)
    orders, pairs = [], []
    for pattern in heads:
        order = esa_order(pattern.query_shape)
        if not isinstance(pattern, GroupPattern):
            later = ~np.isin(order, pattern.summary)
            order = order[np.argsort(later, kind="stable")]
        rank = np.empty(count, int)
        rank[order] = np.arange(count)
        # The blocks of queries and keys that have an edge.
        some = np.zeros([-(-count // block)] * 2, bool)
        query, slot = np.nonzero(pattern.neighbours >= 0)
        key = pattern.neighbours[query, slot]
        some[rank[query] // block, rank[key] // block] = True
        orders.append(order)
        pairs.append(some)
    summaries = len(heads[1].summary)

    def sees(batch, head, query, key):
        same = query // stride == key // stride
        before = torch.where(head < 4, key >= query, key <= query)
        summary = (key < summaries) | (key == query)
        return torch.where(head % 2 == 0, same & before, summary)

    some = torch.tensor(np.stack(pairs)[None])
    mask = BlockMask.from_kv_blocks(
        some.sum(-1, dtype=torch.int32),
        torch.argsort(some.int(), dim=-1, descending=True, stable=True).int(),
        BLOCK_SIZE=block,
        mask_mod=sees,
        seq_lengths=(count, count),
    )
    each = torch.arange(HEADS)[:, None]
    there = torch.tensor(np.stack(orders))
    back = torch.argsort(there, dim=1)

    torch._dynamo.reset()  # or it gives up after eight compilations

    @functools.partial(torch.compile, dynamic=False)
    def attend(*arrays):
        moved = (array[:, each, there] for array in arrays)
        return flex_attention(*moved, block_mask=mask)[:, each, back]

    return attend


def exponent(points):
    found = slope(points)
    return "" if math.isnan(found) else f": n^{found:.2f}"


def report(rows):
    """Prints exponents, and by how much the others are above `sparse`."""
    sides = sorted({row["side"] for row in rows})
    for direction in PASSES:
        for column in ("milliseconds", "peak_mib"):
            found = {
                (name, runtime): select(rows, name, runtime, direction, column)
                for name, (_, _, runtimes) in CONTENDERS.items()
                for runtime in runtimes
            }
            print(f"{direction}, {column}: exponents of the number of tokens")
            for name, points in found.items():
                print(f"  {', '.join(name):30} {slope(points):.2f}")
            for mine, other in itertools.product(BACKENDS, found):
                # Across frameworks, too, where PyTorch is the other.
                if other[0] != "sparse" and other[1] in (
                    mine,
                    "torch",
                    "torch compiled",
                ):
                    factors = over(found[other], found["sparse", mine], sides)
                    name = f"  {', '.join(other)} / sparse, {mine}"
                    show(name, sides, factors)


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 11), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    styles = {"tf graph": "o-", "tf xla": "s--", "jax": "^:"}
    for across, column in enumerate(("milliseconds", "peak_mib")):
        for down, direction in enumerate(PASSES):
            axis = axes[down][across]
            for index, (name, (*_, runtimes)) in enumerate(CONTENDERS.items()):
                for runtime in runtimes:
                    points = select(rows, name, runtime, direction, column)
                    points = {s: v for s, v in points.items() if v > 0}
                    if points:
                        axis.loglog(
                            points.keys(),
                            points.values(),
                            styles.get(runtime, "o-"),
                            color=f"C{index}",
                            label=f"{name}, {runtime}{exponent(points)}",
                        )
            unit = "ms" if column == "milliseconds" else "MiB at the peak"
            axis.set(title=direction, ylabel=unit)
            ticks(axis, SIDES)
            axis.legend(fontsize=8)
    figure.savefig(HERE / "ylg_attention.png", dpi=110)


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
