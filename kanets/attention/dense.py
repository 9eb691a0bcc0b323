"""Dense attention of all cells of a grid: what the other mechanisms replace."""

import keras
from keras import ops

from kanets.attention.base import GridAttention
from kanets.attention.checks import check_positive
from kanets.attention.grid import (
    average_pool,
    cells,
    check_mask,
    flatten,
    grid_axes,
    mapped_attention,
    spread,
    unflatten,
)


def dense_attention(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    pool_size=1,
):
    """Attention of all positions to all positions: what KAO replaces.

    Y = o(Attn(q(X), k(P), v(P))), P = X or, for a picture and `pool_size`
    above 1, its average pool with that window and stride ("same" padding).

    Args:
        x, num_heads, scale, mask, query, key, value, output,
            return_attention_scores: as in `kao_kv`. A mask together with
            pooling is refused.
        pool_size: side of the pooling window of keys and values.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H·W, keys) in float32.

    Raises:
        ValueError: bad rank, mask, `num_heads` or `scale` (see
            `core.attention`);
            pooling asked of a tensor that is no picture, or with a mask.

    Cost: O((H·W)²·C) time and O(N·(H·W)²) memory, both divided by
    pool_size².
    """
    grid_axes(x)
    keys, key_mask = x, None
    _check_pooling(x, mask, pool_size)
    if pool_size != 1:
        keys = average_pool(x, pool_size)
    if mask is not None:
        mask = check_mask(mask, x)
        key_mask = ops.reshape(mask, (-1, cells(ops.shape(x)[1:-1])))
    result, weights = mapped_attention(
        flatten(x),
        flatten(keys),
        (query, key, value, output),
        num_heads,
        scale,
        key_mask,
    )
    result = unflatten(result, x, mask)
    return (result, weights) if return_attention_scores else result


@keras.saving.register_keras_serializable(package="kanets")
class DenseAttention(GridAttention):
    """Attention of every position to every position (or pooled position).

    Y = o(Attn(q(X), k(P), v(P))), where P is X or its average pool.

    Args:
        pool_size: side of the window (and stride) over which keys and values
            are averaged; 1 is no pooling.
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`.

    Call arguments:
        query: float tensor (B, *grid, C).
        mask: optional bool tensor (B, *grid); not together with pooling.
        return_attention_scores: also return the weights
            (B, N, H·W, keys) in float32.

    Returns:
        Tensor (B, *grid, C), and the weights on request.

    Raises:
        ValueError: `pool_size` below 1, or above it for an input that is no
            picture or has a mask; otherwise as in `KroneckerAttention`.

    Cost: O((H·W)²·C / pool_size²) time, O(N·(H·W)² / pool_size²) memory.

    References: Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
    section 3.2; of pictures, Wang et al., "Non-local Neural Networks", CVPR
    2018, whose pooled keys are `pool_size=2`.
    """

    def __init__(self, pool_size=1, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = check_positive(pool_size=pool_size)

    def build(self, input_shape):
        if self.pool_size > 1 and len(input_shape) != 4:
            raise ValueError(
                "Pooled keys need a picture (B, H, W, C). Received: "
                f"input_shape={tuple(input_shape)}, pool_size={self.pool_size}"
            )
        super().build(input_shape)

    def operator(self, inputs, **arguments):
        return dense_attention(inputs, pool_size=self.pool_size, **arguments)

    def check_inputs(self, inputs, mask=None):
        super().check_inputs(inputs, mask)
        _check_pooling(inputs, mask, self.pool_size)

    def _token_counts(self, grid):
        pooled = [n if n is None else -(-n // self.pool_size) for n in grid]
        return cells(grid), cells(pooled)

    def _maps_at(self, scores, cell, grid):
        keys = scores[:, :, cell[0] * grid[1] + cell[1]]
        return spread(keys, grid, self.pool_size)

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size}


def _check_pooling(x, mask, pool_size):
    if pool_size != 1 and (len(x.shape) != 4 or mask is not None):
        raise ValueError(
            "Pooled keys need a picture (B, H, W, C) and no mask. "
            f"Received: x.shape={tuple(x.shape)}, "
            f"mask={None if mask is None else 'given'}, "
            f"pool_size={pool_size}"
        )
