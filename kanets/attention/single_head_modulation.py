"""Single-head modulation attention: what is found, times a gate.

Zheng, "iFormer: Integrating ConvNet and Transformer for Mobile Application",
ICLR 2025. Where many heads were to see different things, one head and a gate
for each channel of each cell do.

Letters: B batch, H W grid, C channels, D and E sizes of keys and values.
"""

import keras
from keras import ops

from kanets.attention.checks import (
    check_positive_or_none,
)
from kanets.attention.core import attention, check_heads
from kanets.attention.grid import flatten, unflatten
from kanets.attention.picture import NormedAttention, normed


@keras.saving.register_keras_serializable(package="kanets")
class SingleHeadModulation(NormedAttention):
    """Dense attention of one head, multiplied by a gate.

        Y = o(softmax(q(X) k(X)ᵀ) σ(v(X)) · σ(g(X)))

    All maps are batch-normalised; v and g are one.

    Args:
        key_dim: D, channels of queries and keys; None is C / 2, rounded down,
            1 at least.
        value_dim: E, channels of values and gate; None is C.
        num_heads: one in the paper; more must divide D and E.
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
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O((H·W)²·(D + E) + H·W·C·(C + D + E)) time, O(N·(H·W)²) memory.

    Example:

    >>> layer = SingleHeadModulation(key_dim=8)
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/2501.15369, section 3.3.
    """

    wants_norm = False

    def __init__(
        self,
        key_dim=None,
        value_dim=None,
        num_heads=1,
        scale=None,
        gamma_initializer="ones",
        **kwargs,
    ):
        super().__init__(num_heads, scale, gamma_initializer, **kwargs)
        self.key_dim, self.value_dim = check_positive_or_none(
            key_dim=key_dim, value_dim=value_dim
        )

    def build_maps(self, channels):
        key_dim, value_dim = self.key_dim, self.value_dim
        key_dim = max(1, channels // 2) if key_dim is None else key_dim
        value_dim = channels if value_dim is None else value_dim
        check_heads(key_dim, value_dim, self.num_heads)
        self.query = self.new_normed_map("query", channels, key_dim)
        self.key = self.new_normed_map("key", channels, key_dim)
        self.value_gate = self.new_normed_map(
            "value_gate", channels, 2 * value_dim
        )
        self.output_map = self.new_normed_map(
            "output", value_dim, channels, self.gamma_initializer
        )

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        query, key, value_gate = (
            normed(layers, inputs, training)
            for layers in (self.query, self.key, self.value_gate)
        )
        value, gate = ops.split(ops.sigmoid(value_gate), 2, axis=-1)
        found, weights = attention(
            *(flatten(t) for t in (query, key, value)),
            self.num_heads,
            self.scale,
        )
        found = unflatten(found, inputs, None) * gate
        output = normed(self.output_map, found, training)
        return (output, weights) if return_attention_scores else output

    def get_config(self):
        return {
            **super().get_config(),
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
        }
