"""Gates of rows and columns, whose products gate the cells.

Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design",
CVPR 2021: means of rows and columns keep where something is along the other
axis. Xu and Wan, "ELA: Efficient Local Attention for Deep Convolutional Neural
Networks", 2024: convolutions along them in place of maps to fewer channels.

Letters: B batch, H W grid, C channels, R channels of the description.
"""

import keras
from keras import ops

from kanets.attention.checks import (
    check_odd,
    check_positive_or_none,
)
from kanets.attention.gates import EPSILON, Gate, near, on_grid, reduced
from kanets.attention.means import axis_means


class _AxisGate(Gate):
    """Gates that are made of the means of rows, and of columns.

    Attributes:
        reach: how many rows or columns away the means are at most, that the
            gate of one is made of.
    """

    reach = 0

    def looks(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        rows = on_grid(near(height, self.reach), near(width))
        return (rows + on_grid(near(height), near(width, self.reach))) / 2


@keras.saving.register_keras_serializable(package="kanets")
class CoordinateAttention(_AxisGate):
    """A gate for each row and one for each column, from their means.

        t = hard_swish(norm(r([row means, column means])))
        Y = X sigmoid(e_rows(t_rows)) sigmoid(e_columns(t_columns))

    The norm is a batch normalisation.

    Args:
        reduced_channels: R, of the map r; None is C / 16, and 8 at least.
        as_branch: whether it gives what twice the gates change, and starts
            at zero: Y = X 2G 2G' - X.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        training: whether batches are normalised by their own moments.
        return_attention_scores: also return what a cell's gates are made of,
            in float32 (B, 1, H·W, H·W): for one half its row, for the other
            its column.

    Returns:
        Tensor (B, H, W, C), and the weights on request. Means are summed in
        float32.

    Raises:
        ValueError: an argument out of its range, num_heads or scale; an input
            that is no picture of known channels; a mask.

    Cost: three passes over X, and O((H + W)·C·R); the weights, which nothing
    else needs, O((H·W)²).

    Example:

    >>> layer = CoordinateAttention()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/2103.02907, section 3.2.
    """

    def __init__(self, reduced_channels=None, as_branch=False, **kwargs):
        super().__init__(as_branch, **kwargs)
        self.reduced_channels = check_positive_or_none(
            reduced_channels=reduced_channels
        )

    def build_maps(self, channels):
        width = reduced(channels, self.reduced_channels)
        self.reduce = self.new_map(channels, width, "reduce")
        self.norm = self.new_layer(
            keras.layers.BatchNormalization, width, "norm", epsilon=EPSILON
        )
        self.rows, self.columns = (
            self.new_map(
                width,
                channels,
                name,
                kernel_initializer=self.last("glorot_uniform"),
            )
            for name in ("rows", "columns")
        )

    def _gates(self, inputs, training):
        height = ops.shape(inputs)[1]
        means = ops.concatenate(axis_means(inputs), axis=1)[:, :, None]
        x = ops.hard_silu(self.norm(self.reduce(means), training=training))
        rows = ops.sigmoid(self.rows(x[:, :height]))
        columns = ops.sigmoid(self.columns(x[:, height:]))
        return rows, ops.swapaxes(columns, 1, 2)

    def get_config(self):
        return {
            **super().get_config(),
            "reduced_channels": self.reduced_channels,
        }


@keras.saving.register_keras_serializable(package="kanets")
class EfficientLocalAttention(_AxisGate):
    """A gate for each row and column, from the means of those near it.

        Y = X sigmoid(silu(norm(k * row means))) · the same of columns

    The convolutions are depthwise, with kernels k of their own, and the norms
    group normalisations of one group, over all channels and rows or columns.

    Args:
        kernel_size: of the kernels, odd.
        as_branch: whether it gives what twice the gates change, and starts
            at zero: Y = X 2G 2G' - X.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return what a cell's gates are made of,
            but for the norms, in float32 (B, 1, H·W, H·W): for one half the
            rows under the kernel, for the other the columns.

    Returns, Raises: as `CoordinateAttention`.

    Cost: three passes over X, and O((H + W)·C·k).

    Example:

    >>> layer = EfficientLocalAttention()
    >>> layer(keras.random.normal((2, 12, 20, 32))).shape
    (2, 12, 20, 32)

    References: https://arxiv.org/abs/2403.01123, section 3.3.
    """

    def __init__(self, kernel_size=7, as_branch=False, **kwargs):
        super().__init__(as_branch, **kwargs)
        self.kernel_size = check_odd(kernel_size=kernel_size)

    @property
    def reach(self):
        return self.kernel_size // 2

    def build_maps(self, channels):
        size = self.kernel_size
        self.rows = self._along("rows", channels, (size, 1))
        self.columns = self._along("columns", channels, (1, size))

    def _along(self, name, channels, kernel_size):
        """A depthwise convolution and its group normalisation."""
        convolution = self.new_layer(
            keras.layers.DepthwiseConv2D,
            channels,
            name,
            kernel_size=kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
        )
        norm = self.new_layer(
            keras.layers.GroupNormalization,
            channels,
            f"{name}_norm",
            groups=1,
            epsilon=EPSILON,
            gamma_initializer=self.last("ones"),
        )
        return convolution, norm

    def _gates(self, inputs, training):
        rows, columns = axis_means(inputs)
        return (
            _gate(self.rows, rows[:, :, None]),
            _gate(self.columns, columns[:, None]),
        )

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}


def _gate(layers, means):
    convolution, norm = layers
    return ops.sigmoid(ops.silu(norm(convolution(means))))
