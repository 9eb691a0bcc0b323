"""Gates of channels, and of channels and then cells.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018: two dense maps
of the means of all channels. Wang et al., "ECA-Net", CVPR 2020: a short
convolution along the channels in their place. Woo et al., "CBAM", ECCV 2018:
means and maxima, of the channels first, then of the cells.

Letters: B batch, H W grid, C channels, R channels of the description.
"""

import math

import keras
from keras import ops

from kanets.attention.checks import (
    check_choice,
    check_odd,
    check_positive_or_none,
)
from kanets.attention.gates import (
    EPSILON,
    Gate,
    near,
    on_grid,
    picture_means,
    reduced,
)

ACTIVATIONS = ("sigmoid", "hard_sigmoid")


class _ChannelGate(Gate):
    """Gates that are made of the means of the whole picture."""

    def looks(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        return on_grid(near(height), near(width))


@keras.saving.register_keras_serializable(package="kanets")
class SqueezeExcitation(_ChannelGate):
    """Squeeze and excitation: a gate for each channel, from the means of all.

        Y = X g(e(relu(r(mean X))))

    Args:
        reduced_channels: R, of the map r; None is C / 16, and 8 at least.
        activation: g, "sigmoid" or "hard_sigmoid", relu6(x + 3) / 6.
        as_branch: whether it gives what twice the gate changes, and starts
            at zero: Y = X 2G - X.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return what a cell's gates are made of,
            in float32 (B, 1, H·W, H·W): all cells alike.

    Returns:
        Tensor (B, H, W, C), and the weights on request. Means are summed in
        float32.

    Raises:
        ValueError: an argument out of its range, num_heads or scale; an input
            that is no picture of known channels; a mask.

    Cost: two passes over X, and O(C·R); the weights, which nothing else needs,
    O((H·W)²).

    Example:

    >>> layer = SqueezeExcitation()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/1709.01507, section 3.
    """

    def __init__(
        self,
        reduced_channels=None,
        activation="sigmoid",
        as_branch=False,
        **kwargs,
    ):
        super().__init__(as_branch, **kwargs)
        self.reduced_channels = check_positive_or_none(
            reduced_channels=reduced_channels
        )
        check_choice(ACTIVATIONS, activation=activation)
        self.activation = activation

    def build_maps(self, channels):
        width = reduced(channels, self.reduced_channels)
        self.reduce = self.new_map(channels, width, "reduce", use_bias=True)
        self.expand = self.new_map(
            width,
            channels,
            "expand",
            use_bias=True,
            kernel_initializer=self.last("glorot_uniform"),
        )

    def _gates(self, inputs, training):
        x = ops.relu(self.reduce(picture_means(inputs)))
        return (keras.activations.get(self.activation)(self.expand(x)),)

    def get_config(self):
        return {
            **super().get_config(),
            "reduced_channels": self.reduced_channels,
            "activation": self.activation,
        }


def channel_kernel_size(channels):
    """How many channels the convolution of efficient channel attention sees.

    The next odd number at (log2(C) + 1) / 2, 3 at least.

    References: https://arxiv.org/abs/1910.03151, equation 12.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size + (size + 1) % 2)


@keras.saving.register_keras_serializable(package="kanets")
class EfficientChannelAttention(_ChannelGate):
    """A gate for each channel, from the means of channels that are near it.

        Y = X sigmoid(k * mean X)

    The convolution with k is along the channels, with zeros beyond them.

    Args:
        kernel_size: of k, odd; None is `channel_kernel_size(C)`.
        as_branch: whether it gives what twice the gate changes, and starts
            at zero: Y = X 2G - X.

    Call arguments, Returns, Raises: as `SqueezeExcitation`.

    Cost: two passes over X, and O(C·k).

    Example:

    >>> layer = EfficientChannelAttention()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/1910.03151, section 3.
    """

    def __init__(self, kernel_size=None, as_branch=False, **kwargs):
        super().__init__(as_branch, **kwargs)
        if kernel_size is not None:
            kernel_size = check_odd(kernel_size=kernel_size)
        self.kernel_size = kernel_size

    def build_maps(self, channels):
        size = self.kernel_size
        if size is None:
            size = channel_kernel_size(channels)
        self.along = keras.layers.Conv1D(
            1,
            size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            kernel_initializer=self.last("glorot_uniform"),
            dtype=self.dtype_policy,
            name="along",
        )
        self.along.build((None, channels, 1))

    def _gates(self, inputs, training):
        channels = inputs.shape[-1]
        means = ops.reshape(picture_means(inputs), (-1, channels, 1))
        gate = ops.sigmoid(self.along(means))
        return (ops.reshape(gate, (-1, 1, 1, channels)),)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable(package="kanets")
class ConvolutionalBlockAttention(Gate):
    """CBAM: a gate for each channel, then one for each cell.

        Z = X sigmoid(f(mean X) + f(max X)),  f = e(relu(r(.)))
        Y = Z sigmoid(norm(k * [mean of Z's channels, max of Z's channels]))

    The norm is a batch normalisation, of one channel.

    Args:
        reduced_channels: R, of the map r; None is C / 16, and 8 at least.
        kernel_size: side of the convolution with k, odd.
        as_branch: whether it gives what twice the gates change, and starts
            at zero.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        training: whether batches are normalised by their own moments.
        return_attention_scores: also return what the means of a cell's gates
            are made of, in float32 (B, 1, H·W, H·W): for one half all cells
            alike, for the other those under k.

    Returns, Raises: as `SqueezeExcitation`.

    Cost: six passes over X, and O(C·R + H·W·k²).

    Example:

    >>> layer = ConvolutionalBlockAttention()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/1807.06521, section 3.
    """

    def __init__(
        self, reduced_channels=None, kernel_size=7, as_branch=False, **kwargs
    ):
        super().__init__(as_branch, **kwargs)
        self.reduced_channels = check_positive_or_none(
            reduced_channels=reduced_channels
        )
        self.kernel_size = check_odd(kernel_size=kernel_size)

    def build_maps(self, channels):
        width = reduced(channels, self.reduced_channels)
        self.reduce = self.new_map(channels, width, "reduce")
        self.expand = self.new_map(
            width,
            channels,
            "expand",
            kernel_initializer=self.last("glorot_uniform"),
        )
        self.around = self.new_layer(
            keras.layers.Conv2D,
            2,
            "around",
            filters=1,
            kernel_size=self.kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
        )
        self.norm = self.new_layer(
            keras.layers.BatchNormalization,
            1,
            "norm",
            epsilon=EPSILON,
            gamma_initializer=self.last("ones"),
        )

    def _gates(self, inputs, training):
        largest = ops.amax(inputs, axis=(1, 2), keepdims=True)
        both = ops.concatenate([picture_means(inputs), largest], axis=1)
        both = self.expand(ops.relu(self.reduce(both)))
        channels = ops.sigmoid(ops.sum(both, axis=1, keepdims=True))
        x = inputs * channels
        maps = [ops.mean(x, -1, keepdims=True), ops.amax(x, -1, keepdims=True)]
        maps = self.around(ops.concatenate(maps, axis=-1))
        return channels, ops.sigmoid(self.norm(maps, training=training))

    def looks(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        reach = self.kernel_size // 2
        around = on_grid(near(height, reach), near(width, reach))
        return (on_grid(near(height), near(width)) + around) / 2

    def get_config(self):
        return {
            **super().get_config(),
            "reduced_channels": self.reduced_channels,
            "kernel_size": self.kernel_size,
        }
