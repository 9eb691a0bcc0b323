"""Means of a grid along its axes, and sums over it: what Kronecker attention
attends over, and how its answers come back.
"""

import keras
from keras import ops

from kanets.attention.grid import check_mask, grid_axes
from kanets.attention.implementations import chosen, why_no_kernel

IMPLEMENTATIONS = ("auto", "xla", "pallas", "pool")


def axis_means(x, mask=None, implementation="auto"):
    """Mean of a grid along all its axes but one, for each axis.

    Args:
        x: float tensor (B, *grid, C), at least one grid axis. In a picture
            (B, H, W, C) the results are L̄ (B, H, C) and H̄ (B, W, C).
        mask: optional bool tensor (B, *grid), True where x is valid. Only
            valid positions are averaged; a slice with none gives zero.
        implementation: "xla"; "pallas", a kernel that reads a picture once
            for both of its axes (JAX alone, (B, H, W, C) without a mask);
            "pool", average pooling over whole rows and columns, which
            runtimes for inference keep in the layout of their convolutions
            ((B, H, W, C) of known H and W without a mask); or "auto", what
            `kanets.attention.implementation` has set.

    Returns:
        A list with one tensor (B, size of the axis, C) per grid axis, in the
        dtype of `x`; sums run in float32.

    Raises:
        ValueError: `x` has no grid axis, `mask` is not (B, *grid), or the
            implementation is unknown or not for this input or backend.

    Cost: one read of x per axis, O(H·W·C).
    """
    axes = grid_axes(x)
    how = chosen_for(implementation, x, mask)
    if how == "pallas":
        from kanets.attention.kernels import pallas  # which imports JAX

        return pallas.axis_means(ops.convert_to_tensor(x))
    if how == "pool":
        return _pooled_means(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    # Half precision overflows or stalls in long sums.
    wide = dtype if dtype == "float64" else "float32"
    x = ops.cast(x, wide)
    if mask is None:
        means = [
            ops.mean(x, axis=[a for a in axes if a != kept]) for kept in axes
        ]
        return [ops.cast(m, dtype) for m in means]
    mask = check_mask(mask, x)
    weights = ops.expand_dims(ops.cast(mask, wide), -1)
    x = ops.where(ops.expand_dims(mask, -1), x, ops.zeros_like(x))
    means = []
    for kept in axes:
        others = [a for a in axes if a != kept]
        total = ops.sum(x, axis=others)
        count = ops.sum(weights, axis=others)
        means.append(ops.cast(total / ops.maximum(count, 1.0), dtype))
    return means


def outer_sum(parts):
    """Sum of one vector per axis at every cell: Y[i, j] = O_L[i] + O_H[j].

    Args:
        parts: a list of tensors (B, size, C), one per grid axis.

    Returns:
        Tensor (B, *sizes, C).

    Raises:
        ValueError: `parts` is empty, or one of them is not of rank 3.
    """
    if not parts:
        raise ValueError("outer_sum needs one part or more. Received: parts=[]")
    total = None
    for axis, part in enumerate(parts):
        if len(part.shape) != 3:
            raise ValueError(
                "Each part of an outer sum must be (batch, size, channels). "
                f"Received: parts[{axis}].shape={tuple(part.shape)}"
            )
        others = [1 + a for a in range(len(parts)) if a != axis]
        part = ops.expand_dims(part, others) if others else part
        total = part if total is None else total + part
    return total


def chosen_for(implementation, x, mask):
    """What computes it, not "auto", or an error that says why not."""
    reason = why_no_kernel(x, mask, rank=4)
    how = chosen(implementation, IMPLEMENTATIONS, reason)
    if how == "pool" and (
        mask is not None or len(x.shape) != 4 or None in tuple(x.shape[1:3])
    ):
        raise ValueError(
            'implementation="pool" needs pictures (B, H, W, C) of known H and '
            f"W and no mask. Received: x.shape={tuple(x.shape)}, "
            f"mask={None if mask is None else 'given'}"
        )
    return how


def _pooled_means(x):
    _, height, width, channels = x.shape
    means = []
    for window, size in (((1, width), height), ((height, 1), width)):
        pooled = ops.average_pool(
            x, window, strides=window, data_format="channels_last"
        )
        means.append(ops.reshape(pooled, (-1, size, channels)))
    return means
