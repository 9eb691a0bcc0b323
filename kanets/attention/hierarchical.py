"""Hierarchical attention: summaries of summaries, until one is left.

Yang et al., "Hierarchical Attention Networks for Document Classification",
NAACL 2016, equations 5 to 7: the words of a sentence are summed with the
weights that a learned query q gives them, and the sentences of a text likewise,

    u_i = tanh(W x_i + b),   a = softmax over i of q u_i,   s = sum of a_i x_i

Here the sentences are blocks of a grid of any number of axes, there are as
many levels as it takes, each with weights of its own, and heads: several
queries a block. A step is ceil(log_w n) levels from the summary of all, 4 for
10,000 steps in blocks of 16; in a recurrent net the first is n steps from it.
Instead of a recurrent net within each block, learned positions say where in it
a step stands. Summaries are normalised: means of w things are smaller than
these, and those of the last level would say next to nothing.

It is no map of a grid to itself, and so no name in the table of mechanisms.

Letters: B batch, T steps, H W grid, C channels, U those of a summary, N heads,
D = U / N, n cells, w side of a block.
"""

import math

import keras
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.blocks import (
    block_levels,
    block_summaries,
    check_windows,
)
from kanets.attention.checks import (
    check_divides,
    check_positive,
    check_positive_or_none,
)
from kanets.attention.core import wide_of
from kanets.attention.grid import check_mask_shape, zero_padding


@keras.saving.register_keras_serializable(package="kanets")
class HierarchicalAttention(keras.layers.Layer):
    """Summary of a grid by attention within blocks, level upon level.

        a = softmax over the block of q tanh(W (X + P) + b)
        S = norm(V (sum over the block of a (X + P)))

    where X of a level is S of the one below it, and a block of the last level
    holds all there is. q, a query a head, the maps W and V, the positions P
    and the layer normalisation are learned for each level. Where a grid is no
    multiple of its blocks the last ones are short, and their cells weigh more
    before anything is learned.

    For sequences of tens of thousands of steps, pictures, and video
    (B, T, H, W, C), each frame first and then their sequence.

    Args:
        windows: an integer above 1, and the levels are as many as the grid
            takes that the layer is built for, in video those of a frame
            before those in time; or a list with a level each, from the first
            on: an integer, or one for each axis of the grid. A layer takes
            every grid that its levels hold, which is the product of the sides
            along each axis.
        units: U, the channels of a summary; None for those of the input.
        num_heads: N, a divisor of U.
        kernel_initializer: of q, W, V and P.

    Call arguments:
        query: float tensor (B, *grid, C). Sizes may be None where `windows`
            is a list.
        key, value, key_mask: None, as the queries are learned.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights a, a list with a
            level each: (B, N, blocks, cells of a block), in float32.
        return_summaries: also return S of each level, (B, *blocks, U).

    Returns:
        Tensor (B, U), zero where nothing is valid; with one of the requests a
        pair, with both the output, the summaries and the weights. Softmax and
        tanh run in float32.

    Raises:
        ValueError: an argument out of range; a grid that the levels do not
            hold. (Where its size is open, this fails when it is run.)

    Cost: O(n C U) time and O(n (C + U)) memory, and a path of one step a
    level from any cell to the output.

    Example:

    >>> layer = HierarchicalAttention(windows=16, num_heads=4)
    >>> layer(keras.random.normal((2, 10_000, 32))).shape
    (2, 32)
    >>> layer = HierarchicalAttention([(1, 8, 8), (1, 2, 2), (30, 1, 1)])
    >>> layer(keras.random.normal((2, 30, 16, 16, 8))).shape
    (2, 8)

    References: Yang et al., NAACL 2016, section 2.2.
    """

    def __init__(
        self,
        windows=16,
        units=None,
        num_heads=1,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_positive(num_heads=num_heads)
        self.units = check_positive_or_none(units=units)
        if units is not None:
            check_divides(num_heads, units)
        self.windows = check_windows(windows)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        _check_rank(input_shape)
        channels = input_shape[-1]
        units = channels if self.units is None else self.units
        check_divides(self.num_heads, units)
        self.levels = []
        for number, sides in enumerate(
            block_levels(self.windows, input_shape[1:-1]), start=1
        ):
            level = _Level(
                sides,
                units,
                self.num_heads,
                self.kernel_initializer,
                dtype=self.dtype_policy,
                name=f"level_{number}",
            )
            level.build((*input_shape[:-1], channels))
            self.levels.append(level)
            channels = units
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={-1: input_shape[-1]}
        )
        self.built = True

    def call(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        key_mask=None,
        training=None,
        return_attention_scores=False,
        return_summaries=False,
    ):
        self._check(query, mask, key=key, value=value, key_mask=key_mask)
        x, summaries, scores = query, [], []
        for level in self.levels:
            x, weights, mask = level(x, mask=mask)
            summaries.append(x)
            scores.append(weights)
        output = ops.reshape(x, (ops.shape(query)[0], x.shape[-1]))
        return _with_requests(
            output,
            summaries if return_summaries else None,
            scores if return_attention_scores else None,
        )

    def compute_output_spec(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        key_mask=None,
        training=None,
        return_attention_scores=False,
        return_summaries=False,
    ):
        self._check(query, mask, key=key, value=value, key_mask=key_mask)
        (batch, *grid, _), summaries, scores = query.shape, [], []
        for level in self.levels:
            grid = level.blocks(grid)
            blocks = None if None in grid else math.prod(grid)
            for found, shape, dtype in (
                (summaries, (*grid, level.units), self.compute_dtype),
                (
                    scores,
                    (self.num_heads, blocks, level.cells),
                    wide_of(self.compute_dtype),
                ),
            ):
                found.append(keras.KerasTensor((batch, *shape), dtype=dtype))
        return _with_requests(
            keras.KerasTensor((batch, level.units), dtype=self.compute_dtype),
            summaries if return_summaries else None,
            scores if return_attention_scores else None,
        )

    def compute_output_shape(self, input_shape):
        units = input_shape[-1] if self.units is None else self.units
        return (input_shape[0], units)

    def compute_mask(self, inputs, previous_mask):
        return None  # a summary has no steps

    def _check(self, query, mask, **others):
        for name, given in others.items():
            if given is not None:
                raise ValueError(
                    "What is summarised is the query, by queries that are "
                    f"learned. Received: {name}, {type(given).__name__}"
                )
        _check_rank(query.shape)
        sides = [level.sides for level in self.levels]
        block_levels(sides, query.shape[1:-1])
        if mask is not None:
            check_mask_shape(mask, query)

    def get_config(self):
        return {
            **super().get_config(),
            "windows": self.windows,
            "units": self.units,
            "num_heads": self.num_heads,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


class _Level(keras.layers.Layer):
    """What one level has learned, around `block_summaries`."""

    def __init__(self, sides, units, num_heads, kernel_initializer, **kwargs):
        super().__init__(**kwargs)
        self.sides = sides
        self.units = units
        self.num_heads = num_heads
        self.kernel_initializer = kernel_initializer
        self.supports_masking = True

    @property
    def cells(self):
        return math.prod(self.sides)

    def blocks(self, grid):
        """How many blocks a grid has along each axis."""
        return [
            None if size is None else -(-size // side)
            for size, side in zip(grid, self.sides, strict=True)
        ]

    def build(self, input_shape):
        channels = input_shape[-1]
        self.query, self.value, self.positions = (
            self.add_weight(
                shape=shape,
                initializer=fresh(self.kernel_initializer),
                name=name,
            )
            for name, shape in (
                ("query", (self.num_heads, self.units // self.num_heads)),
                ("value", (channels, self.units)),
                ("positions", (self.cells, channels)),
            )
        )
        self.key = keras.layers.Dense(
            self.units,
            kernel_initializer=fresh(self.kernel_initializer),
            dtype=self.dtype_policy,
            name="key",
        )
        self.norm = keras.layers.LayerNormalization(
            dtype=self.dtype_policy, name="norm"
        )
        self.key.build((None, channels))
        self.norm.build((None, self.units))
        self.built = True

    def call(self, x, mask=None):
        summaries, weights, mask = block_summaries(
            x,
            self.sides,
            self.query,
            self.key,
            self.value,
            self.positions,
            mask,
        )
        return zero_padding(self.norm(summaries), mask), weights, mask

    def compute_mask(self, inputs, previous_mask):
        return None


def _with_requests(output, summaries, scores):
    found = [output, summaries, scores]
    found = tuple(part for part in found if part is not None)
    return found if len(found) > 1 else output


def _check_rank(shape):
    if len(shape) < 3 or shape[-1] is None:
        raise ValueError(
            "query must be (batch, *grid, channels) with known channels. "
            f"Received: query of shape {tuple(shape)}"
        )
