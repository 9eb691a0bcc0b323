"""Bilinear resizing to the size of another map, known or not.

Written as two products with matrices of weights, as in `jax.image.resize`:
`tf.image.resize` reads wrong cells under XLA for some sizes (9 to 33; see
tensorflow/tensorflow#118344), and `keras.ops.image.resize` refuses a size
that is not known before the call.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kanets")
class ResizeLike(keras.layers.Layer):
    """Resizes maps bilinearly to the height and width of a reference.

    Output cell i of m lies at (i + 1/2) · n / m - 1/2 among the n cells of
    the input, clamped to them, and is the mean of its two neighbours weighted
    by nearness: half-pixel centres, no antialiasing. The size is taken from
    the reference at each call, so the layer holds none, and a model with open
    sizes takes every picture.

    Call arguments:
        inputs: a list of two tensors: maps (B, h, w, C), and a reference
            (B, H, W, any) of which nothing but the size is used.

    Returns:
        Tensor (B, H, W, C) of the layer's dtype.

    Raises:
        ValueError: inputs that are not two 4-D tensors.

    Cost: h·w·W·C + h·H·W·C multiply-adds in dense products; no weights.

    Example:

    >>> maps = keras.ops.ones((2, 3, 4, 8))
    >>> picture = keras.ops.ones((2, 7, 9, 3))
    >>> ResizeLike()([maps, picture]).shape
    (2, 7, 9, 8)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = [keras.layers.InputSpec(ndim=4) for _ in range(2)]

    def call(self, inputs):
        maps, reference = inputs
        _, height, width, channels = ops.shape(maps)
        _, rows, columns, _ = ops.shape(reference)
        x = ops.matmul(_weights(width, columns, maps.dtype), maps)
        x = ops.reshape(x, (-1, height, columns * channels))
        x = ops.matmul(_weights(height, rows, maps.dtype), x)
        return ops.reshape(x, (-1, rows, columns, channels))

    def compute_output_shape(self, input_shape):
        maps, reference = input_shape
        return (maps[0], *reference[1:3], maps[3])


def _weights(before, after, dtype):
    """(after, before): what each output cell takes of each input cell."""
    places = ops.arange(after, dtype="float32") + 0.5
    places = ops.divide(ops.multiply(places, before), after) - 0.5
    places = ops.minimum(ops.maximum(places, 0.0), before - 1)
    distances = ops.abs(places[:, None] - ops.arange(before, dtype="float32"))
    return ops.cast(ops.relu(1.0 - distances), dtype)
