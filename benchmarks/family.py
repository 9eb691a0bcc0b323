"""What does each mechanism of the table cost on larger maps?

    python benchmarks/family.py

Eleven minutes of one quiet core, with `TF_NUM_INTRAOP_THREADS=1` and
`OMP_NUM_THREADS=1`. Writes `family.csv` beside this file, prints exponents of
the number of cells and neighbourhoods' factors over PyTorch.
`--sides 16 32` tries a few maps and writes nothing.

One picture of 64 channels, four heads (`single_head`s one), float32, defaults
of the table besides:

- each name of `kanets.attention.names()`: the layer with its maps, in
  TensorFlow without and with XLA;
- `neighborhood operator`: queries, keys and values of four heads of 16
  channels, kernel 7; `torch flex`: the same with PyTorch's compiled
  `flex_attention`, the mask in blocks of 64, and of 128, its default; `natten`:
  the same by NATTEN's own functions, which on a CPU call `flex_attention`
  without compiling it.

At 16 x 16 the results of the last four must agree. Then all contenders take
turns (`measure.py`). "forward+backward" gives the gradients of the sum of
squares; PyTorch's `flex_attention` has none on a CPU. `peak_mib` and what is
left out are as in `kronecker.py`. Where time is taken, freed memory is kept
(`KEPT_MEMORY`): new pages for each call cost more than what is computed.
"""

import argparse
import functools
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import KEPT_MEMORY, Failure, machine, serve
from operators import (
    PASSES,
    Growth,
    compare,
    compiled,
    over,
    pair,
    select,
    show,
    slope,
)
from tables import write

HERE = Path(__file__).parent
SIDES = (16, 32, 64, 128)
CHANNELS, HEADS, KERNEL = 64, 4, 7
LINES = ("tf graph", "tf xla")
OPERATOR = "neighborhood operator"
TORCH = {
    "torch flex, blocks of 64": "torch compiled",
    "torch flex": "torch compiled",
    "natten": "torch",
}
LINEAR = Growth(lambda side: HEADS * side**2 * KERNEL**2)
ALONG = Growth(lambda side: HEADS * side**3)
DENSE = Growth(lambda side: HEADS * side**4)
GROWTHS = {"axial": ALONG, "kao_kv": ALONG, "ylg": ALONG, "dense": DENSE}
ONE_HEAD = Growth(lambda side: side**4)
A_QUARTER = Growth(lambda side: HEADS * side**4 / 4)
GROWTHS |= dict.fromkeys(("multi_query", "non_local"), DENSE)
GROWTHS |= dict.fromkeys(("single_head", "single_head_modulation"), ONE_HEAD)
GROWTHS |= dict.fromkeys(("dense_pool", "spatial_reduction"), A_QUARTER)


def contenders():
    from kanets import attention

    found = {
        (name, runtime): GROWTHS.get(name, LINEAR)
        for name in (*attention.names(), OPERATOR)
        for runtime in LINES
    }
    for name, runtime in TORCH.items():
        # NATTEN's path on a CPU holds all scores.
        growth = DENSE if name == "natten" else LINEAR._replace(stored=0)
        found[name, runtime] = growth
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+")
    sides = parser.parse_args().sides
    made = {
        name: pair(__file__, name, KEPT_MEMORY)
        for name in ("tensorflow", "torch")
    }
    workers = dict.fromkeys(LINES, made["tensorflow"])
    workers |= dict.fromkeys(TORCH.values(), made["torch"])
    check(workers)
    rows = compare(
        contenders(),
        sides or SIDES,
        workers,
        lambda name, side: {},
        machine("tensorflow", "torch", "keras"),
    )
    report(rows)
    if not sides:
        write(HERE / "family.csv", rows)


def check(workers, side=16):
    """Raises if neighbourhoods are not those of PyTorch and of NATTEN."""
    found = {}
    names = {OPERATOR: LINES[0], **TORCH}
    with tempfile.TemporaryDirectory() as folder:
        for name, runtime in names.items():
            case = {"contender": name, "runtime": runtime, "side": side}
            path = Path(folder, f"{len(found)}.npy")
            case |= {"direction": "forward", "save": str(path)}
            try:
                workers[runtime][0].ask("prepare", case)
                found[name] = np.load(path)
            except Failure as failure:
                print(f"{name}: {failure}", flush=True)
    ours = found.pop(OPERATOR)
    for name, other in found.items():
        apart = np.abs(other - ours).max()
        print(f"{OPERATOR}, {name}: {apart:.2g} apart", flush=True)
        if not apart < 1e-5:
            raise SystemExit("These results should be the same.")


def prepare(contender, runtime, side, direction, save=None):
    generator = np.random.default_rng(0)
    heads = (1, side, side, HEADS, CHANNELS // HEADS)
    if contender in TORCH:
        if direction != "forward":
            raise NotImplementedError("flex_attention has no gradient here")
        arrays = [generator.normal(size=heads) for _ in range(3)]
        call = torch_call(contender, arrays)
    elif contender == OPERATOR:
        from kanets.attention import neighborhood_attention

        arrays = [generator.normal(size=heads) for _ in range(3)]
        attend = functools.partial(neighborhood_attention, kernel_size=KERNEL)
        call = compiled(attend, arrays, runtime, direction)
    else:
        from kanets import attention

        layer = attention.make(named(contender))
        x = generator.normal(size=(1, side, side, CHANNELS))
        layer.build(x.shape)
        call = compiled(layer, [x], runtime, direction)
    if save is None:
        return call
    return lambda: np.save(save, np.asarray(call()[0]))


def named(name):
    from kanets.attention.table import MECHANISMS, parameters

    takes = parameters(MECHANISMS[name].layer)
    if "num_heads" not in takes or name == "single_head":
        return {"name": name}
    return {"name": name, "num_heads": HEADS}


def torch_call(contender, arrays):
    """Of neighbourhoods, on one thread, from the layout of each."""
    import torch

    torch.set_num_threads(1)
    arrays = [torch.tensor(array, dtype=torch.float32) for array in arrays]
    if contender == "natten":
        import natten

        return lambda: [natten.na2d(*arrays, kernel_size=KERNEL).numpy()]
    block = 64 if "64" in contender else 128
    attend = flex_function(arrays[0].shape[1], block)
    moved = [
        array.flatten(1, 2).transpose(1, 2).contiguous() for array in arrays
    ]

    def call():
        result = attend(*moved).transpose(1, 2)
        return [result.reshape(arrays[0].shape).numpy()]

    return call


def flex_function(side, block):
    import torch
    from torch.nn.attention.flex_attention import (
        create_block_mask,
        flex_attention,
    )

    def sees(batch, head, query, key):
        allowed = True
        for of_query, of_key in (
            (query // side, key // side),
            (query % side, key % side),
        ):
            start = (of_query - KERNEL // 2).clamp(0, side - KERNEL)
            allowed = allowed & (of_key >= start) & (of_key < start + KERNEL)
        return allowed

    mask = create_block_mask(
        sees, None, None, side**2, side**2, device="cpu", BLOCK_SIZE=block
    )
    torch._dynamo.config.recompile_limit = 64  # not eight, then no more
    call = functools.partial(flex_attention, block_mask=mask)
    return torch.compile(call, dynamic=False)


def report(rows):
    """Prints exponents, and how much slower PyTorch's neighbourhoods are."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    sides = sorted({row["side"] for row in rows})
    for direction in PASSES:
        print(f"{direction}: exponents of the number of cells")
        for name in names:
            found = [slope(select(rows, name, r, direction)) for r in LINES]
            print(f"  {name:30}", *(f"{value:.2f}" for value in found))
    ours = select(rows, OPERATOR, LINES[1], PASSES[0])
    for name, runtime in TORCH.items():
        other = select(rows, name, runtime, PASSES[0])
        show(f"{name} / {OPERATOR}", sides, over(other, ours, sides))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        serve(prepare)
    else:
        main()
