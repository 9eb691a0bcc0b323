"""Single-head attention of some channels: the rest of them only passes.

Yun and Ro, "SHViT: Single-Head Vision Transformer with Memory Efficient Macro
Design", CVPR 2024. Heads that see the same maps find much the same, so one head
works on a part of the channels, and a map of all channels mixes it in.

Letters: B batch, H W grid, C channels, P of them that attend, D size of keys.
"""

import keras
from keras import ops

from kanets.attention.checks import (
    check_positive,
    check_positive_or_none,
)
from kanets.attention.core import attention
from kanets.attention.grid import flatten, unflatten
from kanets.attention.picture import EPSILON, NormedAttention, normed

PARTIAL_RATIO = 1 / 4.67


@keras.saving.register_keras_serializable(package="kanets")
class SingleHeadAttention(NormedAttention):
    """Dense attention of the first P channels, mixed into all of them.

        Z = [softmax(q(N) k(N)ᵀ) v(N), X[..., P:]],  N = norm(X[..., :P])
        Y = norm(W relu(Z))

    The first norm is a group normalisation of one group, over the grid and P;
    q, k and v are one map with a batch normalisation, and so is W.

    Args:
        partial_channels: P; None is the paper's share of C, 1 / 4.67.
        key_dim: D, channels of queries and keys.
        num_heads: one in the paper; more must divide D and P.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D / N),
            or a number.
        gamma_initializer: of the last batch normalisation's scale; "zeros"
            lets the output start at zero.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        training: whether batches are normalised by their own moments.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, H·W).

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; more partial channels than
            there are; an input that is no picture of known channels; a mask.

    Cost: O((H·W)²·(D + P) + H·W·C²) time, O(N·(H·W)²) memory.

    Example:

    >>> layer = SingleHeadAttention(partial_channels=8)
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/2401.16456, section 3.2.
    """

    wants_norm = False

    def __init__(
        self,
        partial_channels=None,
        key_dim=16,
        num_heads=1,
        scale=None,
        gamma_initializer="ones",
        **kwargs,
    ):
        super().__init__(num_heads, scale, gamma_initializer, **kwargs)
        self.key_dim = check_positive(key_dim=key_dim)
        self.partial_channels = check_positive_or_none(
            partial_channels=partial_channels
        )

    def build_maps(self, channels):
        self._partial = self.partial_channels
        if self._partial is None:
            share = round(channels * PARTIAL_RATIO / self.num_heads)
            self._partial = self.num_heads * max(1, share)
        if self._partial > channels or any(
            width % self.num_heads for width in (self.key_dim, self._partial)
        ):
            raise ValueError(
                "partial_channels must be channels of the input, and num_heads "
                "divide them and key_dim. Received: "
                f"partial_channels={self._partial}, key_dim={self.key_dim}, "
                f"num_heads={self.num_heads}, channels={channels}"
            )
        self.norm = self.new_layer(
            keras.layers.GroupNormalization,
            self._partial,
            "norm",
            groups=1,
            epsilon=EPSILON,
        )
        width = 2 * self.key_dim + self._partial
        self.maps = self.new_normed_map("maps", self._partial, width)
        self.output_map = self.new_normed_map(
            "output", channels, channels, self.gamma_initializer
        )

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        x = self.norm(inputs[..., : self._partial])
        x = normed(self.maps, x, training)
        tokens = flatten(x)
        found, weights = attention(
            tokens[..., : self.key_dim],
            tokens[..., self.key_dim : 2 * self.key_dim],
            tokens[..., 2 * self.key_dim :],
            self.num_heads,
            self.scale,
        )
        found = unflatten(found, x, None)
        x = ops.concatenate([found, inputs[..., self._partial :]], axis=-1)
        output = normed(self.output_map, ops.relu(x), training)
        return (output, weights) if return_attention_scores else output

    def get_config(self):
        return {
            **super().get_config(),
            "partial_channels": self.partial_channels,
            "key_dim": self.key_dim,
        }
