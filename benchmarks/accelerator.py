"""How near do the operators come to what one GPU can do, and who is nearer?

    KERAS_BACKEND=jax python benchmarks/accelerator.py
    KERAS_BACKEND=jax python benchmarks/accelerator.py --quick

Meant for ten minutes of an H200, with JAX for CUDA and PyTorch. Writes
`accelerator.csv` beside this file. `--quick` tries the script itself: tiny
maps, on a CPU with interpreted kernels, and nothing is written.

Maps of 32² to 256² cells, 256 channels, 8 heads, 32 pictures (half as many
until it fits, as the rows say), bfloat16. Ours are Kronecker attention and the
patterns of Your Local GAN without their linear maps, each by XLA and by
Pallas. Peers compute attention over all cells (`jax.nn.dot_product_attention`
by XLA and by cuDNN, PyTorch's `scaled_dot_product_attention`), KAO_KV's
attention over the means (cuDNN), or the same sparse patterns: compiled
`flex_attention`, for which each head's tokens are ordered beforehand, and for
free, so that its blocks of 128 x 128 are as sparse as they can be: in ESA
order, and for summary steps with the summaries first.

The ceilings come first: gigabytes a second of a copy, counting what is read
and what is written, and floating-point operations a second of a bfloat16
product of 8192 x 8192 matrices. The floor of an operator is the larger of its
bytes (every input read once, every output written once) and its products over
those; backward counts the inputs, the outputs and four more products. Each
contender is first held to a float32 reference on fresh random inputs, output
and gradients, at 256 cells of one picture against all keys. Then calls queue
back to back, over as many inputs as exceed the cache, in some ten turns; a
row has the median of the turns, in milliseconds a call. `empty_call_ms` is
what a call costs the host: no row of JAX can be below it.

JAX and PyTorch run in processes of their own, one after the other.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measure import environment
from tables import write

HERE = Path(__file__).parent
SIDES, BATCH, CHANNELS, HEADS = (32, 64, 128, 256), 32, 256, 8
QUICK_SIDES, QUICK_BATCH = (4, 6), 2
CACHE = 256 * 2**20  # inputs in turn take more than a cache holds
SECONDS = {"jax": 380, "torch": 150}
SAMPLE = 256  # cells whose outputs are checked
TOLERANCE = 0.02  # of a norm, in bfloat16
PASSES = ("forward", "forward+backward")
# Each operator's inputs: one picture, or queries, keys and values.
INPUTS = {"axis_means": 1, "kao_kv": 1, "kao_qkv": 1, "ylg": 3, "dense": 3}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=("jax", "torch"))
    options = parser.parse_args()
    if options.part:
        parts = {"jax": JaxPart, "torch": TorchPart}
        return run(parts[options.part](options.quick))
    lines = []
    for part in ("jax", "torch"):
        lines += child(part, options.quick)
    ceilings = next((x for x in lines if "copy" in x), None)
    if ceilings is None:
        sys.exit("No GPU that JAX can use: --quick runs without one.")
    rows = [finished(x, ceilings) for x in lines if "operator" in x]
    for row in rows:
        print(*list(row.values())[:-1], sep="\t")
    if not options.quick:
        write(HERE / "accelerator.csv", rows)


def child(part, quick):
    """What a process of its own measured until it ended or had to."""
    command = [sys.executable, __file__, "--part", part]
    command += ["--quick"] if quick else []
    variables = {"KERAS_BACKEND": "jax"}
    if quick:
        variables["JAX_PLATFORMS"] = "cpu"
    process = subprocess.Popen(
        command, env=environment(variables), stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines += [json.loads(line)] if line.startswith("{") else []
    if process.wait():
        print(f"{part} ended with {process.returncode}; its rows are missing")
    return lines


def run(part):
    """Prints a line of JSON for the ceilings and for each contender."""
    if not part.quick and not part.has_gpu:
        return
    started = time.perf_counter()
    print(json.dumps(part.ceilings()), flush=True)
    sides = QUICK_SIDES if part.quick else SIDES
    cases = [(s, *case) for s in sides for case in part.contenders(s)]
    cases.sort(key=lambda case: case[2] not in ("xla", "pallas"))  # ours first
    for side, operator, name, function in cases:
        for direction in part.passes:
            row = {"operator": operator, "implementation": name, "side": side}
            row |= {"pass": direction, "machine": part.machine}
            if time.perf_counter() - started > SECONDS[part.name]:
                row["note"] = f"not within {SECONDS[part.name]} s"
            else:
                row |= measure(part, operator, name, function, row)
            print(json.dumps(row), flush=True)


def measure(part, operator, name, function, row):
    """Batch, error, times and a note of one contender in one direction."""
    batch = QUICK_BATCH if part.quick else BATCH
    materialised = name in ("xla", "dot_product_attention xla")
    per_picture = scores(operator, row["side"]) * 4 * 5 if materialised else 0
    note = ""
    while batch > 1 and batch * per_picture > 0.7 * part.memory:
        batch //= 2
    while batch * per_picture <= 0.7 * part.memory:
        try:
            call, error = part.prepare(operator, function, row, batch)
            if not error < TOLERANCE:
                return {"batch": batch, "note": f"wrong by {error:.3g}"}
            turns = timed(call, 0.05 if part.quick else 0.5)
        except Exception as problem:  # the others are still to be measured
            note = f"{type(problem).__name__}: {problem}".split("\n")[0][:120]
            if "memory" not in note.lower() or batch == 1:
                return {"batch": batch, "note": note}
            batch //= 2
            continue
        milliseconds = [f"{1e3 * t:.4g}" for t in turns]
        return {
            "batch": batch,
            "milliseconds": milliseconds[len(turns) // 2],
            "fastest": milliseconds[0],
            "slowest": milliseconds[-1],
            "error": f"{error:.1e}",
        }
    return {"batch": 1, "note": "scores of one picture do not fit"}


def timed(call, seconds):
    """Seconds a call, one figure for each turn, ascending.

    `call(times)` queues as many calls and waits for the last.
    """
    call(2)
    before = time.perf_counter()
    call(1)
    times = max(1, int(seconds / 10 / (time.perf_counter() - before)))
    turns, start = [], time.perf_counter()
    while len(turns) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call(times)
        turns.append((time.perf_counter() - before) / times)
    return sorted(turns)


def scores(operator, side):
    """Pairs of a query and a key in all heads of one picture."""
    n, means = side**2, 2 * side
    if operator == "ylg":
        block = side * (side + 1) // 2
        summary = n * side + n - side  # summaries see themselves once
        return HEADS // 2 * (side * block + summary)
    keys = {"axis_means": 0, "kao_kv": n * means, "kao_qkv": means**2}
    return HEADS * keys.get(operator, n * n)


def floor(operator, side, batch, direction):
    """Fewest bytes, and operations of the products, of a call."""
    picture = batch * side**2 * CHANNELS * 2
    tensors = {"axis_means": 1, "kao_kv": 2, "kao_qkv": 2}.get(operator, 4)
    products = 4 * batch * scores(operator, side) * CHANNELS // HEADS
    if direction == "forward":
        return tensors * picture, products
    return 2 * tensors * picture, 3 * products


def finished(line, ceilings):
    """A row of the table: the line, and how far it is from the floor."""
    columns = ("operator", "implementation", "side", "batch", "pass")
    row = {column: line.get(column, "") for column in columns}
    for column in ("milliseconds", "fastest", "slowest", "error"):
        row[column] = line.get(column, "")
    moved = operations = least = fraction = ""
    if line.get("milliseconds"):
        moved, operations = floor(
            line["operator"], line["side"], line["batch"], line["pass"]
        )
        by_bytes = moved / (ceilings["copy"] * 1e9)
        by_products = operations / (ceilings["product"] * 1e12)
        least = 1e3 * max(by_bytes, by_products)
        fraction = f"{least / float(row['milliseconds']):.3f}"
        least = f"{least:.4g}"
    row |= {"floor_bytes": moved, "floor_flops": operations}
    row |= {"floor_milliseconds": least, "fraction": fraction}
    row |= {
        "copy_gb_per_s": ceilings["copy"],
        "product_tflop_per_s": ceilings["product"],
        "empty_call_ms": ceilings["empty_call"],
        "note": line.get("note", ""),
        "machine": line["machine"],
    }
    return row


def error_of(found, expected):
    """The largest error of output and gradients, as a part of the norm."""
    errors = [
        np.linalg.norm(np.subtract(f, e)) / np.linalg.norm(e)
        for f, e in zip(found, expected, strict=True)
    ]
    return max(float(e) if np.isfinite(e) else np.inf for e in errors)


def machine_of(device, *packages):
    return ", ".join([device, *(f"{p} {version(p)}" for p in packages)])


def random_cells(side):
    cells = np.random.default_rng().permutation(side**2)
    return np.sort(cells[:SAMPLE])


class JaxPart:
    """Ours, and JAX's own attention."""

    name, passes = "jax", PASSES

    def __init__(self, quick):
        import jax

        self.quick, device = quick, jax.devices()[0]
        self.has_gpu = device.platform == "gpu"
        statistics_ = device.memory_stats() or {}
        self.memory = statistics_.get("bytes_limit", 2**32)
        kind = device.device_kind if self.has_gpu else platform.machine()
        self.machine = machine_of(kind, "jax", "keras")
        seed = int.from_bytes(os.urandom(4), "little")
        self.key = jax.random.key(seed)

    def ceilings(self):
        import jax
        import jax.numpy as jnp

        bits, size = (20, 256) if self.quick else (32, 8192)
        x = self.random((2**bits // 4 // 1024, 1024), "float32")
        a, b = (self.random((size, size), "bfloat16") for _ in range(2))
        empty = jnp.zeros(8)
        seconds = [
            statistics.median(timed(self.caller(*case), 0.5))
            for case in (
                (jax.jit(jnp.copy), [(x,)]),
                (jax.jit(jnp.matmul), [(a, b)]),
                (jax.jit(lambda x: x + 1), [(empty,)]),
            )
        ]
        return {
            "copy": round(2 * x.nbytes / seconds[0] / 1e9, 1),
            "product": round(2 * size**3 / seconds[1] / 1e12, 2),
            "empty_call": round(1e3 * seconds[2], 4),
        }

    def contenders(self, side):
        import jax

        from kanets import ops
        from ylg.ops import pattern_attention
        from ylg.patterns import ylg_heads

        yield from self._of_a_picture(ops)
        patterns = ylg_heads((side, side))
        for how in ("xla", "pallas"):
            yield (
                "ylg",
                how,
                functools.partial(
                    pattern_attention,
                    patterns=patterns,
                    scale=(CHANNELS // HEADS) ** -0.5,
                    implementation=how,
                ),
            )
        for how in ("xla",) if self.quick else ("xla", "cudnn"):
            attend = functools.partial(
                jax.nn.dot_product_attention, implementation=how
            )
            yield "dense", f"dot_product_attention {how}", attend
            if how == "cudnn":
                yield "kao_kv", "dot_product_attention cudnn", self._kv(attend)

    def _of_a_picture(self, ops):
        import jax.numpy as jnp

        for how in ("xla", "pallas"):
            yield (
                "axis_means",
                how,
                lambda x, how=how: jnp.concatenate(
                    ops.axis_means(x, implementation=how), axis=1
                ),
            )
        for operator in (ops.kao_kv, ops.kao_qkv):
            for how in ("xla", "pallas"):
                yield (
                    operator.__name__,
                    how,
                    lambda x, operator=operator, how=how: operator(
                        x, HEADS, "rsqrt", implementation=how
                    ),
                )

    def _kv(self, attend):
        import jax.numpy as jnp

        from kanets import ops

        def kao_kv(x):
            tokens = jnp.concatenate(ops.axis_means(x), axis=1)
            query, tokens = (
                t.reshape(len(t), -1, HEADS, CHANNELS // HEADS)
                for t in (x, tokens)
            )
            return attend(query, tokens, tokens).reshape(x.shape)

        return kao_kv

    def prepare(self, operator, function, row, batch):
        """The call to time, and its error."""
        import jax

        side = row["side"]
        shape = (batch, side, side, CHANNELS)
        if INPUTS[operator] == 3:
            shape = (batch, side**2, HEADS, CHANNELS // HEADS)
        result = jax.eval_shape(
            function,
            *[jax.ShapeDtypeStruct(shape, "bfloat16")] * INPUTS[operator],
        )

        def both(gradient, *inputs):
            output, backward = jax.vjp(function, *inputs)
            return output, *backward(gradient)

        def forward(gradient, *inputs):
            return (function(*inputs),)

        program = jax.jit(forward if row["pass"] == "forward" else both)
        shapes = [result.shape] + [shape] * INPUTS[operator]
        bytes_ = 2 * sum(int(np.prod(s)) for s in shapes)
        # Not more than a quarter of the memory for inputs.
        sets = 1 if self.quick else min(8, -(-CACHE // bytes_))
        inputs = [
            tuple(self.random(s, "bfloat16") for s in shapes)
            for _ in range(sets)
        ]
        error = self._error(operator, program, inputs[0], side)
        return self.caller(program, inputs), error

    def _error(self, operator, program, inputs, side):
        """Against float32, where the gradient is of some cells of one picture.

        What other cells give to the gradients of the keys is then zero, and
        the reference needs those cells' scores alone.
        """
        import jax.numpy as jnp

        gradient, *inputs = inputs
        cells = random_cells(side)
        if operator == "axis_means":
            cells = np.arange(2 * side)
        flat = gradient.reshape(len(gradient), -1, CHANNELS)
        kept = jnp.zeros_like(flat).at[0, cells].set(flat[0, cells])
        output, *found = program(kept.reshape(gradient.shape), *inputs)
        output = output.reshape(flat.shape)[0, cells]

        mask = sample_mask(side, cells) if operator == "ylg" else True
        first = [x[0].astype("float32") for x in inputs]
        wanted = self._reference(operator, side)(
            flat[0, cells].astype("float32"), cells, mask, *first
        )
        found = [output, *(x[0] for x in found)]
        return error_of(
            [np.asarray(x.astype("float32")) for x in found],
            [np.asarray(x) for x in wanted[: len(found)]],
        )

    @functools.cache  # noqa: B019
    def _reference(self, operator, side):
        """At some cells of a picture, in float32, and the gradients."""
        import jax

        def run(gradient, cells, mask, *inputs):
            with jax.default_matmul_precision("highest"):
                output, backward = jax.vjp(
                    lambda *x: by_definition(operator, side, cells, mask, *x),
                    *inputs,
                )
                return output, *backward(gradient)

        return jax.jit(run)

    def random(self, shape, dtype):
        import jax

        self.key, key = jax.random.split(self.key)
        return jax.random.normal(key, shape, dtype)

    def caller(self, program, inputs):
        import jax

        def call(times):
            for i in range(times):
                result = program(*inputs[i % len(inputs)])
            jax.block_until_ready(result)

        return call


class TorchPart:
    """PyTorch's attention, dense and over the same patterns."""

    name = "torch"

    def __init__(self, quick):
        try:
            import torch
        except ImportError:
            self.quick, self.has_gpu = False, False
            return
        self.quick, self.has_gpu = quick, torch.cuda.is_available()
        self.device = "cuda" if self.has_gpu else "cpu"
        self.passes = PASSES if self.has_gpu else PASSES[:1]
        self.memory = 2**32
        kind = platform.machine()
        if self.has_gpu:
            kind = torch.cuda.get_device_name()
            self.memory = torch.cuda.get_device_properties(0).total_memory
        self.machine = machine_of(kind, "torch")

    def ceilings(self):
        return {"part": "torch"}  # JAX has measured them

    def contenders(self, side):
        import torch
        from torch.nn.attention.flex_attention import flex_attention

        attend = torch.nn.functional.scaled_dot_product_attention
        yield "dense", "scaled_dot_product_attention", attend
        flex = flex_attention
        if self.has_gpu:
            torch._dynamo.reset()  # or it gives up after eight compilations
            flex = torch.compile(flex, dynamic=False, fullgraph=True)
        mask = functools.cache(lambda: self._block_mask(side))
        yield (
            "ylg",
            "flex_attention",
            lambda *inputs: flex(*inputs, block_mask=mask()),
        )

    def _block_mask(self, side):
        import torch
        from torch.nn.attention.flex_attention import create_block_mask

        orders = [torch.tensor(o, device=self.device) for o in orders_of(side)]
        ranks, summary, is_left, is_floor = orders

        def visible(batch, head, query, key):
            rank, other = ranks[head, query], ranks[head, key]
            same = rank // side == other // side
            before = torch.where(is_left[head], other <= rank, other >= rank)
            shared = summary[head, key] | (query == key)
            return torch.where(is_floor[head], same & before, shared)

        return create_block_mask(
            visible,
            None,
            HEADS,
            side**2,
            side**2,
            device=self.device,
            _compile=self.has_gpu,
        )

    def prepare(self, operator, function, row, batch):
        """The call to time, and its error."""
        import torch

        side, training = row["side"], row["pass"] != "forward"
        shape = (batch, HEADS, side**2, CHANNELS // HEADS)
        bytes_ = 2 * 4 * int(np.prod(shape))
        sets = 1 if self.quick else min(8, -(-CACHE // bytes_))
        torch.seed()
        inputs = [
            [
                torch.randn(shape, device=self.device).bfloat16()
                for _ in range(4)
            ]
            for _ in range(sets)
        ]
        for given in inputs:
            for tensor in given[1:]:
                tensor.requires_grad_(training)

        def once(gradient, *given):
            output = function(*given)
            if not training:
                return (output,)
            return output, *torch.autograd.grad(output, given, gradient)

        def call(times):
            for i in range(times):
                once(*inputs[i % sets])
            if self.has_gpu:
                torch.cuda.synchronize()

        return call, self._error(operator, once, inputs[0], side)

    def _error(self, operator, once, inputs, side):
        """As in `JaxPart`, in the order of tokens that each head has."""
        import torch

        gradient, *given = inputs
        cells = random_cells(side)
        kept = torch.zeros_like(gradient)
        kept[0][:, cells] = gradient[0][:, cells]
        output, *found = once(kept, *given)
        found = [output[0][:, cells], *(x[0] for x in found)]
        first = [x[0].detach().float().requires_grad_() for x in given]
        query, key, value = first
        logits = query[:, cells] @ key.mT * (CHANNELS // HEADS) ** -0.5
        if operator == "ylg":
            mask = torch.tensor(ordered_mask(side, cells), device=self.device)
            logits = logits.masked_fill(~mask, -torch.inf)
        output = logits.softmax(-1) @ value
        wanted = [output]
        if len(found) > 1:
            kept = gradient[0][:, cells].float()
            wanted += torch.autograd.grad(output, first, kept)
        return error_of(
            *(
                [x.detach().float().cpu().numpy() for x in tensors]
                for tensors in (found, wanted)
            )
        )


def by_definition(operator, side, cells, mask, *inputs):
    """The operator at some cells of a picture: (S, C)."""
    import jax
    import jax.numpy as jnp

    split = (-1, HEADS, CHANNELS // HEADS)
    if INPUTS[operator] == 3:
        query, key, value = inputs
    else:
        x = inputs[0]
        tokens = jnp.concatenate([x.mean(1), x.mean(0)])
        if operator == "axis_means":
            return tokens
        query = x if operator == "kao_kv" else tokens
        query, key = query.reshape(split), tokens.reshape(split)
        value = key
    if operator != "kao_qkv":
        query = query[cells]
    logits = jnp.einsum("qnd,knd->nqk", query, key)
    logits *= (CHANNELS // HEADS) ** -0.5
    logits = jnp.where(mask, logits, -jnp.inf)
    output = jnp.einsum("nqk,knd->qnd", jax.nn.softmax(logits), value)
    output = output.reshape(-1, CHANNELS)
    if operator != "kao_qkv":
        return output
    rows, columns = cells // side, cells % side
    return output[rows] + output[side + columns]


def sample_mask(side, cells):
    """What some cells see in each head's pattern: bool [N, S, n]."""
    from ylg.patterns import ylg_heads

    mask = np.zeros((HEADS, len(cells), side**2 + 1), bool)
    for head, pattern in enumerate(ylg_heads((side, side))):
        np.put_along_axis(mask[head], pattern.neighbours[cells], True, axis=1)
    return mask[..., :-1]


def orders_of(side):
    """Of the tokens of each head: their rank, and whether it's a summary.

    Returns:
        Ranks int [N, n] and summaries bool [N, n] in the order of the head's
        tokens; for each head, whether it looks left, and is a floor step.
    """
    from ylg.patterns import YLG_HEADS

    n = side**2
    ranks, summaries = (
        np.empty((HEADS, n), np.int64),
        np.empty((HEADS, n), bool),
    )
    left = np.array([name.startswith("left") for name in YLG_HEADS])
    floors = np.array([name.endswith("floor") for name in YLG_HEADS])
    for head in range(HEADS):
        summary = np.arange(n) % side == (side - 1 if left[head] else 0)
        order = np.arange(n)
        if not floors[head]:
            order = np.argsort(~summary, kind="stable")
        ranks[head], summaries[head] = order, summary[order]
    return ranks, summaries, left, floors


def ordered_mask(side, places):
    """`sample_mask` of what stands at these places of each head's order."""
    from ylg.patterns import esa_order, ylg_heads

    order, masks = esa_order((side, side)), []
    ranks = orders_of(side)[0]
    for head, pattern in enumerate(ylg_heads((side, side))):
        cells = order[ranks[head]]
        mask = np.zeros((len(places), side**2 + 1), bool)
        seen = pattern.neighbours[cells[places]]
        np.put_along_axis(mask, seen, True, axis=1)
        masks.append(mask[:, cells])
    return np.stack(masks)


if __name__ == "__main__":
    main()
