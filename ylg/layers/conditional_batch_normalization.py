"""Batch normalisation whose scale and offset are looked up by class.

Dumoulin, Shlens and Kudlur, "A Learned Representation for Artistic Style",
ICLR 2017, and de Vries et al., NeurIPS 2017; the way SNGAN, SAGAN and YLG
tell their generators the class. As in theirs, gamma and beta are the values
themselves, not offsets from 1 and 0.
"""

import keras
from keras import ops

from kanets.attention.checks import check_positive


@keras.saving.register_keras_serializable(package="ylg")
class ConditionalBatchNormalization(keras.layers.Layer):
    """Normalises each channel, then scales and shifts it by the class.

        y = gamma[label] * (x - mean) / sqrt(variance + epsilon) + beta[label]

    In training mean and variance are those of the batch, over everything but
    the channels, and the moving averages follow; at inference, or where the
    layer is frozen (`trainable=False`), they are the moving averages. All
    classes share them. The variance is the biased one in both.

    Args:
        num_classes: rows of the gamma and beta tables, at least 1.
        momentum: of the moving averages, from 0 to 1.
        epsilon: added to the variance.

    Call arguments:
        inputs: `[x, labels]`: x float (B, *grid, C); labels int (B,). A
            label outside 0..num_classes - 1 is taken as the nearest one:
            backends disagree there, and some would return NaN.
        training: whether to use the batch's statistics.

    Returns:
        Tensor (B, *grid, C) in the compute dtype; everything inside runs in
        float32.

    Raises:
        ValueError: an argument out of its range; inputs that are no pair, or
            of unknown channels; labels that are not (B,).

    Cost: O(B·H·W·C); 2 · num_classes · C weights and two averages per
    channel.

    Example:

    >>> layer = ConditionalBatchNormalization(num_classes=10)
    >>> labels = keras.ops.convert_to_tensor([3, 7])
    >>> layer([keras.random.normal((2, 8, 8, 16)), labels]).shape
    (2, 8, 8, 16)
    """

    def __init__(self, num_classes, momentum=0.99, epsilon=1e-3, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = check_positive(num_classes=num_classes)
        if not 0 <= momentum <= 1:
            raise ValueError(
                "momentum must be between 0 and 1. "
                f"Received: momentum={momentum!r}"
            )
        if epsilon <= 0:
            raise ValueError(
                f"epsilon must be positive. Received: epsilon={epsilon!r}"
            )
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        if len(input_shape) != 2 or not isinstance(
            input_shape[0], tuple | list
        ):
            raise ValueError(
                "The input must be a pair [x, labels]. "
                f"Received: input_shape={input_shape}"
            )
        x, labels = (tuple(shape) for shape in input_shape)
        if len(x) < 2 or x[-1] is None or len(labels) != 1:
            raise ValueError(
                "x must be (batch, *grid, channels) with known channels and "
                f"labels (batch,). Received: shapes {x} and {labels}"
            )
        channels = x[-1]
        table = (self.num_classes, channels)
        self.gamma = self._weight("gamma", table, "ones")
        self.beta = self._weight("beta", table, "zeros")
        self.moving_mean = self._weight(
            "moving_mean", (channels,), "zeros", trainable=False
        )
        self.moving_variance = self._weight(
            "moving_variance", (channels,), "ones", trainable=False
        )

    def call(self, inputs, training=False):
        x, labels = inputs
        x = ops.cast(x, "float32")
        if training and self.trainable:
            mean, variance = ops.moments(x, axes=list(range(x.ndim - 1)))
            self._follow(self.moving_mean, mean)
            self._follow(self.moving_variance, variance)
        else:
            mean = ops.convert_to_tensor(self.moving_mean)
            variance = ops.convert_to_tensor(self.moving_variance)
        rows = ops.clip(labels, 0, self.num_classes - 1)
        gamma = ops.take(self.gamma, rows, axis=0)
        beta = ops.take(self.beta, rows, axis=0)
        per_picture = (-1, *[1] * (x.ndim - 2), x.shape[-1])
        scale = gamma * ops.rsqrt(variance + self.epsilon)
        y = (x - mean) * ops.reshape(scale, per_picture)
        y = y + ops.reshape(beta, per_picture)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }

    def _weight(self, name, shape, initializer, trainable=True):
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            trainable=trainable,
            dtype="float32",  # in half precision, too
            autocast=False,
            name=name,
        )

    def _follow(self, average, value):
        average.assign(average * self.momentum + value * (1.0 - self.momentum))
