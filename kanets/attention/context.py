"""Global context: every cell gets the same, from where all cells look.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
Beyond", ICCV 2019 workshops. What non-local attention sees hardly differs from
query to query; so one softmax over the cells stands for that of all of them.

Letters: B batch, H W grid, C channels, R channels of the description, T tokens.
"""

import keras
from keras import ops

from kanets.attention.checks import (
    check_choice,
    check_positive_or_none,
)
from kanets.attention.core import masked_softmax, wide_dtype
from kanets.attention.gates import Gate, reduced
from kanets.attention.grid import flatten

EPSILON = 1e-6
FUSIONS = ("add", "scale")


def global_context(query, logits, return_attention_scores=False):
    """One weighted mean of all cells.

        softmax(logits)ᵀ X

    Args:
        query: tensor (B, H, W, C), X.
        logits: tensor (B, H, W, 1), how much a cell counts.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, 1, 1, C), dtype of `query`; with `return_attention_scores`
        a pair of it and the weights (B, 1, H·W), in float32 as the softmax.

    Cost: O(H·W·C) time, O(H·W) memory.

    References: https://arxiv.org/abs/1904.11492, equation 4.
    """
    logits = ops.swapaxes(flatten(logits), 1, 2)
    weights = masked_softmax(ops.cast(logits, wide_dtype(logits)))
    tokens = flatten(query)
    context = ops.matmul(ops.cast(weights, tokens.dtype), tokens)
    context = context[:, None]
    return (context, weights) if return_attention_scores else context


@keras.saving.register_keras_serializable(package="kanets")
class GlobalContextAttention(Gate):
    """What one softmax over all cells finds, for every cell.

        t = e(relu(norm(r(softmax(w X)ᵀ X))))
        Y = X + t  or, as a gate,  Y = X sigmoid(t)

    The norm is a layer normalisation, over R.

    Args:
        fuse: "add" (the paper's) or "scale", a gate.
        reduced_channels: R, of the map r; None is C / 16, and 8 at least.
        as_branch: whether it gives what is to be added to X, t or what twice
            the gate changes, X 2G - X; and starts at zero.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights of the softmax, in
            float32 (B, 1, H·W, H·W), the same for each query.

    Returns:
        Tensor (B, H, W, C), and the weights on request. The softmax runs in
        float32.

    Raises:
        ValueError: an argument out of its range, num_heads or scale; an input
            that is no picture of known channels; a mask.

    Cost: three passes over X, and O(C·R); the weights of all queries, which
    nothing else needs, O((H·W)²).

    Example:

    >>> layer = GlobalContextAttention()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/1904.11492, section 3.3.
    """

    def __init__(
        self, fuse="add", reduced_channels=None, as_branch=False, **kwargs
    ):
        super().__init__(as_branch, **kwargs)
        check_choice(FUSIONS, fuse=fuse)
        self.reduced_channels = check_positive_or_none(
            reduced_channels=reduced_channels
        )
        self.fuse = fuse

    def build_maps(self, channels):
        width = reduced(channels, self.reduced_channels)
        # As published with a bias, which the softmax takes off.
        self.logits = self.new_map(channels, 1, "logits", use_bias=True)
        self.reduce = self.new_map(channels, width, "reduce", use_bias=True)
        self.norm = self.new_layer(
            keras.layers.LayerNormalization, width, "norm", epsilon=EPSILON
        )
        self.expand = self.new_map(
            width,
            channels,
            "expand",
            use_bias=True,
            kernel_initializer=self.last("glorot_uniform"),
        )

    def _gates(self, inputs, training):
        if self.fuse == "add":
            return ()
        return (ops.sigmoid(self._transformed(inputs)),)

    def gated(self, inputs, training):
        if self.fuse == "scale":
            return super().gated(inputs, training)
        x = self._transformed(inputs)
        # Of the picture's size in a branch, too.
        return x + (ops.zeros_like(inputs) if self.as_branch else inputs)

    def looks(self, inputs):
        return global_context(inputs, self.logits(inputs), True)[1]

    def _transformed(self, inputs):
        """t, (B, 1, 1, C)."""
        x = self.reduce(global_context(inputs, self.logits(inputs)))
        return self.expand(ops.relu(self.norm(x)))

    def get_config(self):
        return {
            **super().get_config(),
            "fuse": self.fuse,
            "reduced_channels": self.reduced_channels,
        }
