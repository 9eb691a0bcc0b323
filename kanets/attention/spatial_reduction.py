"""Spatial-reduction attention: dense attention to fewer keys.

Wang et al., "Pyramid Vision Transformer", ICCV 2021, and "PVT v2", 2022. Keys
and values are of blocks of cells, which a convolution made into one each; or,
in PVTv2's linear form, of means over a grid of a fixed size.

Letters: B batch, H W grid, C channels, N heads, r side of a block.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import (
    check_divides,
    check_positive,
    check_positive_or_none,
)
from kanets.attention.core import attention, wide_dtype
from kanets.attention.grid import (
    block_shares,
    cells,
    fill_block,
    flatten,
    spread_by,
    unflatten,
)
from kanets.attention.picture import EPSILON, MappedAttention


def adaptive_average_pool(x, side):
    """Means over a grid of a fixed size, whatever that of the picture.

    Along an axis of n cells bin i holds those from floor(i·n / side) to
    ceil((i + 1)·n / side): bins overlap where side does not divide n.

    Args:
        x: float tensor (B, H, W, C); H and W may be open.
        side: bins of each axis.

    Returns:
        Tensor (B, side, side, C), dtype of `x`; sums run in float32.

    Cost: O(H·W·C·side) time.
    """
    wide = wide_dtype(x)
    _, height, width, _ = ops.shape(x)
    rows, columns = (
        ops.cast(_bin_shares(size, side), wide) for size in (height, width)
    )
    pooled = ops.einsum("ph,bhwc->bpwc", rows, ops.cast(x, wide))
    return ops.cast(ops.einsum("qw,bpwc->bpqc", columns, pooled), x.dtype)


@keras.saving.register_keras_serializable(package="kanets")
class SpatialReductionAttention(MappedAttention):
    """Dense attention of all cells to keys of a smaller grid.

        Y = o(softmax(q(X) k(R)ᵀ) v(R)),  R = norm(convolution(X))

    The convolution's kernel and stride are `key_stride`, and what fills no
    block at the end of an axis is no key; a picture smaller than a block is
    one. With a `key_grid`, PVTv2's linear form, R = gelu(norm(map(means))), the
    means over that grid. The norm is over the channels; k and v are one map.

    Args:
        num_heads: N, a divisor of C.
        key_stride: r; 1 is dense attention, without a norm.
        key_grid: side of the grid of means in place of blocks, 7 in PVTv2;
            or None. `key_stride` is of no effect then.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(C / N), or
            a number.
        use_bias: whether q, k and v have a bias; the others have.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, keys).

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O((H·W)²·C / r² + H·W·C²) time, O(N·(H·W)² / r²) memory; with a
    `key_grid` of g O(H·W·g²·C) and O(N·H·W·g²).

    Example:

    >>> layer = SpatialReductionAttention(num_heads=4, key_stride=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/2102.12122, section 3.2;
    https://arxiv.org/abs/2106.13797, section 3.2.
    """

    def __init__(self, num_heads=1, key_stride=2, key_grid=None, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.key_stride = check_positive(key_stride=key_stride)
        self.key_grid = check_positive_or_none(key_grid=key_grid)

    def build_maps(self, channels):
        check_divides(self.num_heads, channels)
        self.query = self.linear_map("query", channels, channels)
        if self._reduces():
            side = 1 if self.key_grid is not None else self.key_stride
            self.reduction = self.new_layer(
                keras.layers.Conv2D,
                channels,
                "reduction",
                filters=channels,
                kernel_size=side,
                strides=side,
                data_format="channels_last",
                kernel_initializer=fresh(self.kernel_initializer),
            )
            self.norm = self.new_layer(
                keras.layers.LayerNormalization,
                channels,
                "norm",
                epsilon=EPSILON,
            )
        self.key_value = self.linear_map("key_value", channels, 2 * channels)
        self.output_map = self.linear_map("output", channels, channels, True)

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        reduced = self.key_value(self._reduced(inputs))
        channels = inputs.shape[-1]
        found, weights = attention(
            flatten(self.query(inputs)),
            flatten(reduced[..., :channels]),
            flatten(reduced[..., channels:]),
            self.num_heads,
            self.scale,
        )
        output = self.output_map(unflatten(found, inputs, None))
        return (output, weights) if return_attention_scores else output

    def _reduces(self):
        return self.key_grid is not None or self.key_stride > 1

    def _reduced(self, x):
        if not self._reduces():
            return x
        if self.key_grid is not None:
            x = self.reduction(adaptive_average_pool(x, self.key_grid))
            return ops.gelu(self.norm(x), approximate=False)
        return self.norm(self.reduction(fill_block(x, self.key_stride)))

    def _token_counts(self, grid):
        keys = self.key_grid
        if keys is not None:
            return cells(grid), keys**2
        sizes = [
            None if n is None else max(1, n // self.key_stride) for n in grid
        ]
        return cells(grid), cells(sizes)

    def _maps_at(self, scores, cell, grid):
        keys = scores[:, :, cell[0] * grid[1] + cell[1]]
        if self.key_grid is None:
            shares = [block_shares(size, self.key_stride) for size in grid]
        else:
            shares = [
                ops.convert_to_numpy(_bin_shares(size, self.key_grid))
                for size in grid
            ]
        return spread_by(keys, *shares)

    def get_config(self):
        return {
            **super().get_config(),
            "key_stride": self.key_stride,
            "key_grid": self.key_grid,
        }


def _bin_shares(size, bins):
    """Of bins their shares of an axis's cells, (bins, size) in float32."""
    number = np.arange(bins, dtype="int32")[:, None]
    first = number * size // bins
    end = -(-(number + 1) * size // bins)
    places = ops.arange(size, dtype="int32")[None]
    inside = ops.logical_and(
        ops.greater_equal(places, first), ops.less(places, end)
    )
    return ops.cast(inside, "float32") / ops.cast(end - first, "float32")
