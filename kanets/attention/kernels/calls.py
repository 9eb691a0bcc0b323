"""How a kernel is called: in tiles, on the platform at hand, traced once."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

TILE = 64  # queries, and keys, of the scores that a program holds


def traced_once(function, options, *arrays):
    """function(*arrays, *options), which an eager call does not trace again.

    The kernels of an eager call would be made and compiled at each call, for
    seconds. Inside another program or a gradient nothing changes.

    Args:
        function: of arrays and options.
        options: tuple of what is no array, hashable.
        *arrays: arrays, or tuples of them.
    """
    return _run(function, options, platform(), *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _run(function, options, platform, *arrays):
    del platform  # one more reason to trace again: kernels depend on it
    return function(*arrays, *options)


def call(kernel, tiled, whole, outputs):
    """Runs a program for each tile of rows of each group, picture and head.

    `kernel(tile, tiled, whole, *outputs)` gets a tile of the rows of what is
    in `tiled`, all rows that its group has of what is in `whole`, to read by
    tiles of so many rows, and its tile of the outputs, which are given as
    shapes and dtypes.
    """
    outputs = [jax.ShapeDtypeStruct(*output) for output in outputs]
    (batch, groups, rows, _), inner = outputs[0].shape, whole[0].shape[-2]
    # Products of long rows, and exact ones, take more registers.
    arrays = [x for x in jax.tree.leaves((tiled, whole)) if x.shape[-1] > 1]
    size = max(x.shape[-1] for x in arrays)
    is_large = size > 128 or any(x.dtype == jnp.float32 for x in arrays)
    largest = TILE // 2 if is_large else TILE
    tile, inner = min(tile_of(rows), largest), min(tile_of(inner), largest)
    of_tile = functools.partial(_block, rows=tile)
    return pallas_call(
        functools.partial(kernel, inner),
        (rows // tile, groups, batch),
        [jax.tree.map(of_tile, tiled), jax.tree.map(_block, whole)],
        [of_tile(output) for output in outputs],
        outputs,
        num_warps=8 if is_large or size > 64 else 4,
    )(tiled, whole)


def _block(x, rows=None):
    """What a program of `call` sees of ([A,] G or 1, P, D)."""
    groups, all_rows, size = x.shape[-3:]

    def place(tile, group, batch):
        inner = (group if groups > 1 else 0, 0 if rows is None else tile, 0)
        return (batch, *inner) if len(x.shape) == 4 else inner

    outer = (None,) * (len(x.shape) - 2)
    return pl.BlockSpec(
        (*outer, all_rows if rows is None else rows, size), place
    )


def pallas_call(kernel, grid, inputs, results, shapes, num_warps=4):
    """`pl.pallas_call` for the platform at hand."""
    where = platform()
    options = None
    if where not in ("cpu", "tpu"):
        from jax.experimental.pallas import triton

        options = triton.CompilerParams(num_warps=num_warps, num_stages=2)
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=inputs,
        out_specs=results,
        out_shape=shapes,
        compiler_params=options,
        interpret=where == "cpu",
    )


def platform():
    return jax.default_backend()


def tile_of(size):
    """Rows of a tile: a power of two that Triton can multiply."""
    return min(TILE, power_of_two(size))


def power_of_two(size):
    return max(16, pl.next_power_of_2(size))
