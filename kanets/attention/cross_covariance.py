"""Cross-covariance attention: channels attend to channels.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021. The
products of queries and keys are summed over the cells, not over the channels:
a matrix of a head's channels, whose size does not grow with the picture.

Letters: B batch, H W grid, C channels, N heads, D = C / N, T tokens H·W.
"""

import keras
from keras import ops

from kanets.attention.base import check_picture
from kanets.attention.checks import check_divides
from kanets.attention.core import (
    attend,
    check_heads,
    split_heads,
    unit_length,
)
from kanets.attention.grid import flatten, unflatten
from kanets.attention.picture import MappedAttention


def cross_covariance_attention(
    query, key, value, num_heads=1, temperature=None
):
    """Softmax attention between the channels of a head.

        Y = V softmax(τ Q̂ᵀ K̂)ᵀ

    Q̂ and K̂ are channels divided by their length over the tokens.

    Args:
        query, key, value: tensors (B, T, C).
        num_heads: N, a divisor of C.
        temperature: τ, tensor (N,), or None for ones.

    Returns:
        Output (B, T, C) in the dtype of `value`, and the weights
        (B, N, D, D) in float32, of sum 1 over the last axis.

    Raises:
        ValueError: heads that do not divide the channels.

    Cost: O(T·C·D) time, O(T·C + C·D) memory.

    References: https://arxiv.org/abs/2106.09681, section 3.2.
    """
    check_heads(query.shape[-1], value.shape[-1], num_heads)
    query, key = (_unit_channels(t, num_heads) for t in (query, key))
    if temperature is not None:
        shape = (num_heads, 1, 1) if num_heads > 1 else (1, 1)
        temperature = ops.reshape(temperature, shape)
        query = query * ops.cast(temperature, query.dtype)
    length = ops.shape(value)[1]
    channels = value.shape[-1]
    value = ops.swapaxes(split_heads(value, num_heads), -1, -2)
    found, weights = attend(query, key, value)
    if num_heads == 1:
        return ops.swapaxes(found, 1, 2), weights[:, None]
    found = ops.reshape(found, (-1, channels, length))
    return ops.swapaxes(found, 1, 2), weights


@keras.saving.register_keras_serializable(package="kanets")
class CrossCovarianceAttention(MappedAttention):
    """Cross-covariance attention of a picture.

        Y = o(v(X) softmax(τ Q̂ᵀ K̂)ᵀ),  Q̂, K̂ = q(X), k(X) / their lengths

    q, k and v are one map; τ is learned, one a head.

    Args:
        num_heads: N, a divisor of C.
        scale: of no effect, as τ is learned.
        use_bias: whether q, k and v have a bias; o has.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights, in float32
            (B, N, C / N, C / N): queries and keys are channels.

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O(H·W·C²) time, O(H·W·C + C² / N) memory.

    Example:

    >>> layer = CrossCovarianceAttention(num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/2106.09681, section 3.2.
    """

    def build_maps(self, channels):
        check_divides(self.num_heads, channels)
        self.maps = self.linear_map("maps", channels, 3 * channels)
        self.temperature = self.add_weight(
            shape=(self.num_heads,), initializer="ones", name="temperature"
        )
        self.output_map = self.linear_map("output", channels, channels, True)

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        found, weights = cross_covariance_attention(
            *self._tokens(inputs), self.num_heads, self.temperature
        )
        output = self.output_map(unflatten(found, inputs, None))
        return (output, weights) if return_attention_scores else output

    def attention_maps(self, inputs, position):
        """Where in a picture the products are from that all cells share.

        A cell counts by its share in the squared lengths of the queries and
        keys of a head, which is the same for every position.

        Args, Returns, Raises: as in `AttentionLayer`.
        """
        grid = check_picture(inputs, position)
        inputs = ops.cast(inputs, self.compute_dtype)
        if not self.built:
            self(inputs)
        query, key, _ = self._tokens(inputs)
        shares = [
            ops.mean(ops.square(_unit_channels(t, self.num_heads)), axis=-2)
            for t in (query, key)
        ]
        shares = ops.convert_to_numpy(shares[0] + shares[1]) / 2
        return shares.reshape(-1, self.num_heads, *grid)

    def _tokens(self, inputs):
        """Queries, keys and values, each (B, T, C)."""
        return ops.split(flatten(self.maps(inputs)), 3, axis=-1)

    def compute_output_shape(self, input_shape, return_attention_scores=False):
        output = tuple(input_shape)
        if not return_attention_scores:
            return output
        size = output[-1] // self.num_heads
        return output, (output[0], self.num_heads, size, size)


def _unit_channels(tokens, num_heads):
    """(B, T, N·D) -> (B, N, D, T), or (B, D, T) of one head, of length 1."""
    tokens = ops.swapaxes(split_heads(tokens, num_heads), -1, -2)
    return unit_length(tokens, -1)
