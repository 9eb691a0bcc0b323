"""Linear attention at several scales: in place of softmax, a rectifier.

Cai, Li, Hu, Gan and Han, "EfficientViT: Multi-Scale Linear Attention for
High-Resolution Dense Prediction", ICCV 2023. relu(q) relu(k)ᵀ v is summed from
the right, keys with values first, so that all cells together cost what each of
them costs a few channels. What such weights cannot say, sharp neighbourhoods,
comes from queries, keys and values that convolutions have mixed first.

Letters: B batch, H W grid, C channels, N heads, D size of a head, S scales.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import (
    check_divides,
    check_positive_or_none,
)
from kanets.attention.core import wide_dtype
from kanets.attention.picture import NormedAttention
from kanets.checks import is_positive

EPSILON = 1e-5


def linear_attention(query, key, value, return_attention_scores=False):
    """Attention with rectified products in place of a softmax.

        Y = relu(Q) (relu(K)ᵀ V) / (relu(Q) relu(K)ᵀ 1 + 1e-5)

    Args:
        query, key: tensors (..., T, D).
        value: tensor (..., T, E).
        return_attention_scores: also return the weights.

    Returns:
        Tensor (..., T, E), dtype of `value`, computed in float32; with
        `return_attention_scores` a pair of it and the weights (..., T, T) in
        float32, whose sum over the last axis is 1, but where a query has
        no positive entry, which sees nothing.

    Cost: O(T·D·E) time, O(T·(D + E)) memory; the weights O(T²·D) more.

    References: https://arxiv.org/abs/2205.14756, equations 1 to 3.
    """
    wide = wide_dtype(value)
    query, key = (ops.relu(ops.cast(t, wide)) for t in (query, key))
    values = ops.cast(value, wide)
    keys = ops.swapaxes(key, -1, -2)
    total = ops.sum(keys, axis=-1)[..., None]
    # Not a division, which LiteRT's integers refuse where the sum is too small
    # for them to tell from 0.
    root = ops.rsqrt(ops.matmul(query, total) + EPSILON)
    output = ops.matmul(query, ops.matmul(keys, values)) * root * root
    output = ops.cast(output, value.dtype)
    if not return_attention_scores:
        return output
    return output, ops.matmul(query, keys) * root * root


def attention_of_scales(scales, num_heads, return_attention_scores=False):
    """`linear_attention` of each scale's maps of queries, keys and values.

    Args:
        scales: list of S tensors (B, H, W, N·3·D).
        num_heads: N.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, H, W, S·N·D), and the weights (B, S·N, H·W, H·W) on request.
    """
    _, height, width, channels = ops.shape(scales[0])
    size, heads = channels // (3 * num_heads), len(scales) * num_heads
    tokens = ops.concatenate(scales, axis=-1)
    shape = (-1, height * width, heads, 3 * size)
    tokens = ops.transpose(ops.reshape(tokens, shape), (0, 2, 1, 3))
    found = linear_attention(
        tokens[..., :size],
        tokens[..., size : 2 * size],
        tokens[..., 2 * size :],
        return_attention_scores,
    )
    found, weights = found if return_attention_scores else (found, None)
    found = ops.transpose(found, (0, 2, 1, 3))
    found = ops.reshape(found, (-1, height, width, heads * size))
    return (found, weights) if return_attention_scores else found


@keras.saving.register_keras_serializable(package="kanets")
class LinearAttention(NormedAttention):
    """Rectified linear attention of a picture, at several scales.

        Y = norm(o([A(M(X)), A(M_k(M(X))) for k in kernel_sizes]))

    A is `linear_attention`, M the map to queries, keys and values of N heads,
    and M_k a depthwise convolution of side k, then a map within each query,
    key and value of a head. The norm is a batch normalisation.

    Args:
        num_heads: N, of each scale.
        key_dim: D; None is C / N.
        kernel_sizes: sides of the further scales, odd.
        output_channels: of the output; None is C.
        kernel_initializer: of all kernels.
        scale: of no effect, as a factor of all products cancels.
        gamma_initializer: of the batch normalisation's scale; "zeros" lets
            the output start at zero.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        training: whether batches are normalised by their own moments.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, H·W), the mean over the scales.

    Returns:
        Tensor (B, H, W, C) or of `output_channels`, and the weights on
        request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O(S·H·W·N·D·(D + k²)) time, O(S·H·W·N·D) memory; the weights, which
    nothing else needs, O(S·N·(H·W)²).

    Example:

    >>> layer = LinearAttention(num_heads=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/2205.14756, section 3.1.
    """

    def __init__(
        self,
        num_heads=1,
        key_dim=None,
        kernel_sizes=(5,),
        output_channels=None,
        kernel_initializer="glorot_uniform",
        gamma_initializer="ones",
        **kwargs,
    ):
        super().__init__(
            num_heads, gamma_initializer=gamma_initializer, **kwargs
        )
        self.key_dim, self.output_channels = check_positive_or_none(
            key_dim=key_dim, output_channels=output_channels
        )
        if not isinstance(kernel_sizes, list | tuple) or not all(
            is_positive(size) and size % 2 for size in kernel_sizes
        ):
            raise ValueError(
                "kernel_sizes must be a list of odd positive integers. "
                f"Received: kernel_sizes={kernel_sizes!r}"
            )
        self.kernel_sizes = [int(size) for size in kernel_sizes]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build_maps(self, channels):
        self._head_dim = self.key_dim
        if self.key_dim is None:
            check_divides(self.num_heads, channels)
            self._head_dim = channels // self.num_heads
        width = self.num_heads * self._head_dim
        self.maps = self._map("maps", channels, 3 * width)
        self.scales = []
        for number, size in enumerate(self.kernel_sizes):
            depthwise = self.new_layer(
                keras.layers.DepthwiseConv2D,
                3 * width,
                f"depthwise_{number}",
                kernel_size=size,
                padding="same",
                data_format="channels_last",
                use_bias=False,
                depthwise_initializer=fresh(self.kernel_initializer),
            )
            groups = self.new_layer(
                _GroupedMap,
                3 * width,
                f"groups_{number}",
                groups=3 * self.num_heads,
                initializer=fresh(self.kernel_initializer),
            )
            self.scales.append((depthwise, groups))
        wide = width * (1 + len(self.kernel_sizes))
        (filters,) = self.compute_output_shape((channels,))
        self.output_map = self._map("output", wide, filters)
        self.output_norm = self.new_layer(
            keras.layers.BatchNormalization,
            filters,
            "output_norm",
            epsilon=EPSILON,
            gamma_initializer=self.gamma_initializer,
        )

    def _map(self, name, channels, filters):
        initializer = fresh(self.kernel_initializer)
        return self.new_map(
            channels, filters, name, kernel_initializer=initializer
        )

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        scales = [self.maps(inputs)]
        for depthwise, groups in self.scales:
            scales.append(groups(depthwise(scales[0])))
        found = attention_of_scales(
            scales, self.num_heads, return_attention_scores
        )
        found, weights = found if return_attention_scores else (found, None)
        output = self.output_norm(self.output_map(found), training=training)
        if not return_attention_scores:
            return output
        parts = ops.split(weights, len(scales), axis=1)
        return output, sum(parts[1:], parts[0]) / len(scales)

    def _maps_at(self, scores, cell, grid):
        maps = super()._maps_at(scores, cell, grid)
        # A scale whose query is rectified to zeros looks nowhere.
        maps = np.where(maps.any((2, 3), keepdims=True), maps, 1.0)
        return maps / maps.sum((2, 3), keepdims=True)

    def get_config(self):
        return {
            **super().get_config(),
            "key_dim": self.key_dim,
            "kernel_sizes": self.kernel_sizes,
            "output_channels": self.output_channels,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


class _GroupedMap(keras.layers.Layer):
    """A 1x1 convolution in groups, whose gradients CPUs lack or are slow at.

    The kernel is that of one: (1, 1, channels of a group, channels).
    `kanets.export.fold` makes it one, which runtimes are faster at.
    """

    def __init__(self, groups, initializer, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.initializer = initializer

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            shape=(1, 1, channels // self.groups, channels),
            initializer=self.initializer,
            name="kernel",
        )
        self.built = True

    def call(self, inputs):
        _, height, width, channels = ops.shape(inputs)
        size = channels // self.groups
        kernel = ops.reshape(self.kernel, (size, self.groups, size))
        x = ops.reshape(inputs, (-1, height * width, self.groups, size))
        x = ops.einsum("btgi,igo->btgo", x, kernel)
        return ops.reshape(x, (-1, height, width, channels))
