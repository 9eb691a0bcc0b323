"""SAGAN's attention block, over the patterns of YLG or over everything.

Zhang et al., "Self-Attention Generative Adversarial Networks" (ICML 2019),
section 3, and Daras et al., "Your Local GAN" (CVPR 2020), section 4, which
gives each of eight heads a sparse pattern.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention import patterns as patterns_
from kanets.attention.base import AttentionLayer, check_picture, fresh
from kanets.attention.checks import check_choice, check_positive
from kanets.attention.grid import cells, spread
from kanets.attention.sparse import (
    IMPLEMENTATIONS,
    dense_weights,
    pattern_attention,
)
from kanets.attention.spectral_normalization import SpectralNormalization


class _PatternAttention2D(AttentionLayer):
    """Projections, an operator over the patterns of a grid, and a gate."""

    implementations = IMPLEMENTATIONS

    def __init__(
        self,
        num_heads=8,
        pool_size=2,
        scale=None,
        residual=True,
        spectral_norm=False,
        iterate_at_inference=False,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(num_heads, scale, **kwargs)
        self.pool_size = check_positive(pool_size=pool_size)
        self.residual = residual
        self.spectral_norm = spectral_norm
        self.iterate_at_inference = iterate_at_inference
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, height, width, channels) with "
                f"known channels. Received: input_shape={tuple(input_shape)}"
            )
        self.patterns_for(input_shape)  # refuses unknown sizes early
        channels = input_shape[-1]
        self.key_dim = max(1, channels // (8 * self.num_heads))
        self.value_dim = max(1, channels // (2 * self.num_heads))
        self.theta = self._map("theta", self.num_heads * self.key_dim)
        self.phi = self._map("phi", self.num_heads * self.key_dim)
        self.g = self._map("g", self.num_heads * self.value_dim)
        self.out = self._map("out", channels, self.output_initializer)
        for layer in (self.theta, self.phi, self.g):
            layer.build(input_shape)
        merged = self.num_heads * self.value_dim
        self.out.build((*input_shape[:-1], merged))
        if self.residual:
            self.sigma = self.add_weight(
                shape=(), initializer="zeros", name="sigma"
            )
        self.built = True

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        output, weights = self._heads(inputs, training, return_attention_scores)
        output = ops.reshape(
            output, (-1, *inputs.shape[1:3], self.num_heads * self.value_dim)
        )
        output = self._project(self.out, output, training)
        if self.residual:
            output = inputs + ops.cast(self.sigma, output.dtype) * output
        if not return_attention_scores:
            return output
        return output, dense_weights(weights, self.patterns_for(inputs.shape))

    def start_at_zero(self):
        # With a residual the output is not what the map gives, and a spectral
        # norm divides zero by zero.
        if self.built or self.residual or self.spectral_norm:
            return False
        self.output_initializer = keras.initializers.Zeros()
        return True

    def attention_weights(self, inputs):
        """What each head looks at, in inference.

        Args:
            inputs: float tensor (B, H, W, C).

        Returns:
            List of N float32 tensors (B, H W, degree) in the layout of
            `self.patterns_for(inputs.shape)[head].neighbours`;
            `dense_weights` makes matrices of them.
        """
        inputs = ops.cast(inputs, self.compute_dtype)
        if not self.built:
            self.build(inputs.shape)
        _, weights = self._heads(inputs, False, return_weights=True)
        return weights

    def attention_maps(self, inputs, position):
        grid = check_picture(inputs, position)
        index = position[0] * grid[1] + position[1]
        maps = []
        for weights, pattern in zip(
            self.attention_weights(inputs),
            self.patterns_for(inputs.shape),
            strict=True,
        ):
            weights = ops.convert_to_numpy(weights)[:, index]
            keys = np.zeros((len(weights), pattern.num_keys + 1), "float32")
            keys[:, pattern.neighbours[index]] = weights  # -1: the last
            maps.append(spread(keys[:, :-1], grid, self.pool_size))
        return np.stack(maps, axis=1)

    def patterns_for(self, input_shape):
        """The pattern of each head for an input of shape (B, H, W, C)."""
        grid = tuple(input_shape[1:3])
        if None in grid:
            raise ValueError(
                "The patterns need a known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        return self._patterns(grid, self._key_grid(grid))

    def _key_grid(self, grid):
        return tuple(-(-size // self.pool_size) for size in grid)

    def _token_counts(self, grid):
        return cells(grid), cells(self._key_grid(grid))

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "residual": self.residual,
            "spectral_norm": self.spectral_norm,
            "iterate_at_inference": self.iterate_at_inference,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "output_initializer": keras.initializers.serialize(
                self.output_initializer
            ),
        }

    def _heads(self, inputs, training, return_weights):
        """What the heads found, (B, H W, N, E), and their weights or None."""
        patterns = self.patterns_for(inputs.shape)
        query = self._project(self.theta, inputs, training)
        key = self._pooled(self._project(self.phi, inputs, training))
        value = self._pooled(self._project(self.g, inputs, training))
        found = pattern_attention(
            *(self._tokens(x) for x in (query, key, value)),
            patterns,
            scale=self.scale,
            implementation=self.implementation,
            return_weights=return_weights,
        )
        return found if return_weights else (found, None)

    def _map(self, name, filters, initializer=None):
        if initializer is None:
            initializer = self.kernel_initializer
        layer = keras.layers.Conv2D(
            filters,
            1,
            data_format="channels_last",
            use_bias=False,
            kernel_initializer=fresh(initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        if not self.spectral_norm:
            return layer
        return SpectralNormalization(
            layer,
            iterate_at_inference=self.iterate_at_inference,
            dtype=self.dtype_policy,
            name=f"{name}_sn",
        )

    def _project(self, layer, inputs, training):
        if self.spectral_norm:
            return layer(inputs, training=training)
        return layer(inputs)

    def _pooled(self, x):
        if self.pool_size == 1:
            return x
        return ops.max_pool(
            x,
            self.pool_size,
            self.pool_size,
            padding="same",
            data_format="channels_last",
        )

    def _tokens(self, x):
        """(B, H, W, N D) -> (B, H W, N, D)."""
        height, width, channels = x.shape[1:]
        size = channels // self.num_heads
        return ops.reshape(x, (-1, height * width, self.num_heads, size))


@keras.saving.register_keras_serializable(package="ylg")
class LocalSparseAttention2D(_PatternAttention2D):
    """Multi-head attention over a picture where each head sees O(sqrt n) cells.

        q, k, v = theta(x), pool(phi(x)), pool(g(x))
        y = x + sigma * out(concat over heads of attention(q, k, v | pattern))

    theta and phi are 1x1 maps to C/8 channels, g to C/2, out back to C; pool
    is the 2x2 maximum; sigma is a learned gate that starts at zero. The
    n x n product is never formed.

    Args:
        num_heads: N. Heads have max(1, C // 8N) channels for keys and
            max(1, C // 2N) for values.
        patterns: "ylg" or a sequence of names of `patterns.PATTERNS`,
            which the heads take in turn. "ylg" is the official eight for
            eight heads, for other numbers its four different ones in turn.
        alignment: where a query finds itself on the coarser grid of the
            pooled keys. "spatial", the default, is the key cell that covers
            it (where `pool_size` is above 2 and does not divide the grid, one
            next to that). "tiled" is the official model's, which wraps
            around: there most queries look at cells of another part of the
            picture, which is not the locality that the paper is about.
        pool_size: side of the pooling of keys and values; 1 for none.
        scale: factor of the logits: None is none, as in SAGAN; "rsqrt" is
            1 / sqrt(key channels of a head); or a number.
        residual: if False, the output is out(...) alone, without gate.
        spectral_norm: whether the four maps are spectrally normalised.
        iterate_at_inference: as in `SpectralNormalization`.
        kernel_initializer: of the four maps.
        output_initializer: of `out` in its place; or None.

    Call arguments:
        query: float tensor (B, H, W, C), H and W known.
        training: whether the vectors of a spectral norm are to move.
        return_attention_scores: also return the weights (B, N, H W, keys) in
            float32, O((H W)^2) memory: for looking. `attention_weights`
            gives them as the heads have them.

    Returns:
        (B, H, W, C), in the compute dtype; the softmax is in float32.

    Raises:
        ValueError: an argument out of its range, named with its value; an
            input of unknown height, width or channels; a mask.

    Cost: O(H W sqrt(H W) C) time and memory.

    Example:

    >>> layer = kanets.attention.LocalSparseAttention2D(num_heads=8)
    >>> layer(keras.random.normal((2, 32, 32, 64))).shape
    (2, 32, 32, 64)

    References:
        - [Zhang et al., ICML 2019](https://arxiv.org/abs/1805.08318), sec. 3
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 4
    """

    def __init__(
        self, num_heads=8, patterns="ylg", alignment="spatial", **kwargs
    ):
        super().__init__(num_heads, **kwargs)
        names = patterns
        if patterns == "ylg":
            names = patterns_.YLG_HEADS
            names = names if num_heads == 8 else (*names[:2], *names[4:6])
        elif not isinstance(patterns, list | tuple) or not patterns:
            raise ValueError(
                'patterns must be "ylg" or a list of pattern names. '
                f"Received: patterns={patterns!r}"
            )
        check_choice(patterns_.ALIGNMENTS, alignment=alignment)
        self._names = [names[h % len(names)] for h in range(num_heads)]
        self.patterns = (
            patterns if isinstance(patterns, str) else list(patterns)
        )
        self.alignment = alignment
        patterns_.make_patterns(self._names, 1)  # refuses unknown names early

    def _patterns(self, grid, key_grid):
        return patterns_.make_patterns(
            self._names,
            grid,
            key_grid,
            partial_block=True,
            alignment=self.alignment,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "patterns": self.patterns,
            "alignment": self.alignment,
        }


@keras.saving.register_keras_serializable(package="ylg")
class NonLocalAttention2D(_PatternAttention2D):
    """SAGAN's attention: every query sees every pooled key.

    The dense twin of `LocalSparseAttention2D`: the same maps, weights, gate
    and arguments, but for `patterns` and `alignment`. SAGAN's own block has
    one head, `num_heads=1`; the default of eight is for comparisons.

    Cost: O((H W)^2 C) time, O((H W)^2 N) memory.

    References:
        - [Zhang et al., ICML 2019](https://arxiv.org/abs/1805.08318), sec. 3
    """

    def _patterns(self, grid, key_grid):
        pattern = patterns_.dense(grid, key_grid)
        return [pattern] * self.num_heads
