"""The way back from tokens of `PositionEmbeddings` to a token and a grid."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kanets")
class SplitTokens(keras.layers.Layer):
    """Takes a class token and the cells of a grid apart.

    Call arguments:
        inputs: a list of two tensors: tokens (B, 1 + H·W, C), the class token
            first and then the cells row by row, and a reference (B, H, W, any)
            of which nothing but the size is used.

    Returns:
        The class token (B, C) and the cells (B, H, W, C).

    Raises:
        ValueError: inputs that are not of the ranks 3 and 4.

    Example:

    >>> tokens, maps = keras.ops.ones((2, 13, 8)), keras.ops.ones((2, 3, 4, 5))
    >>> [part.shape for part in SplitTokens()([tokens, maps])]
    [(2, 8), (2, 3, 4, 8)]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = [keras.layers.InputSpec(ndim=n) for n in (3, 4)]

    def call(self, inputs):
        tokens, reference = inputs
        _, height, width, _ = ops.shape(reference)
        shape = (-1, height, width, tokens.shape[-1])
        return tokens[:, 0], ops.reshape(tokens[:, 1:], shape)

    def compute_output_shape(self, input_shape):
        (batch, _, channels), (_, height, width, _) = input_shape
        return (batch, channels), (batch, height, width, channels)
