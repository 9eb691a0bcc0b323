"""Means of the rows and of the columns of a picture, in one pass over it."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kanets.attention.kernels import calls


@jax.custom_vjp
def axis_means(x):
    batch, height, width, channels = x.shape
    rows, columns = _divisor(height, 32), _divisor(width, 64)
    # A power of two that divides the channels and keeps a tile in registers.
    depth = min(channels & -channels, max(8192 // columns, 1))
    depth = 1 << depth.bit_length() - 1
    if calls.platform() == "tpu" and depth % 128:
        depth = channels
    sums = calls.pallas_call(
        _sums_kernel,
        (channels // depth, width // columns, height // rows, batch),
        [
            pl.BlockSpec(
                (None, rows, columns, depth), lambda c, w, h, b: (b, h, w, c)
            )
        ],
        [
            pl.BlockSpec(
                (None, None, rows, depth), lambda c, w, h, b: (b, w, h, c)
            ),
            pl.BlockSpec(
                (None, None, columns, depth), lambda c, w, h, b: (b, h, w, c)
            ),
        ],
        [
            jax.ShapeDtypeStruct(shape, jnp.float32)
            for shape in (
                (batch, width // columns, height, channels),
                (batch, height // rows, width, channels),
            )
        ],
    )(x)
    return tuple(
        (jnp.sum(part, axis=1) / size).astype(x.dtype)
        for part, size in zip(sums, (width, height), strict=True)
    )


def _forward(x):
    return axis_means(x), None


def _backward(_, gradients):
    rows, columns = (g.astype(jnp.float32) for g in gradients)
    rows, columns = rows / columns.shape[1], columns / rows.shape[1]
    total = rows[:, :, None] + columns[:, None]
    return (total.astype(gradients[0].dtype),)


axis_means.defvjp(_forward, _backward)


def _sums_kernel(x, row_sums, column_sums):
    """Sums of a tile along both of its axes, a row of it at a time."""
    rows, columns, depth = x.shape
    # One or two powers of two, overlapping, cover a row.
    width = 1 << columns.bit_length() - 1
    starts = (0,) if width == columns else (0, columns - width)

    def step(row, totals):
        parts = [
            x[row, pl.ds(start, width), :].astype(jnp.float32)
            for start in starts
        ]
        totals = tuple(t + p for t, p in zip(totals, parts, strict=True))
        if len(parts) == 2:  # what the first has, too, counts once
            place = lax.broadcasted_iota(jnp.int32, parts[1].shape, 0)
            parts[1] = jnp.where(place < 2 * width - columns, 0.0, parts[1])
        parts = [jnp.sum(part, axis=0, keepdims=True) for part in parts]
        row_sums[pl.ds(row, 1), :] = sum(parts)
        return totals

    totals = tuple(jnp.zeros((width, depth), jnp.float32) for _ in starts)
    totals = lax.fori_loop(0, rows, step, totals)
    for start, total in zip(starts, totals, strict=True):
        column_sums[pl.ds(start, width), :] = total


def _divisor(size, limit):
    """The largest divisor up to `limit` that TPUs take, or `size` itself."""
    fitting = [d for d in range(8, limit + 1, 8) if size % d == 0]
    return size if size <= limit or not fitting else max(fitting)
