"""A convolution and its batch normalisation, padded as in PyTorch's nets.

What nets published for PyTorch are made of: strided convolutions pad both sides
alike, where "same" pads the end more for even sizes (another net with the same
weights), and batch normalisation has an epsilon of 1e-5.
"""

import keras

from kanets.layers.batch_normalization import BatchNormalization

EPSILON = 1e-5


def conv_norm(
    x,
    filters,
    kernel_size=1,
    strides=1,
    activation=None,
    *,
    use_bias=False,
    norm=True,
    gamma_initializer="ones",
    name,
):
    """Adds a convolution, its batch normalisation and what follows to a graph.

    Layers "<name>_pad" where it strides, "<name>", "<name>_norm" and
    "<name>_<activation>".

    Args:
        x: float tensor (B, H, W, C), symbolic, C known.
        filters: channels of the output; None is a depthwise convolution.
        kernel_size: odd, of both sides.
        strides: of both sides.
        activation: a name of `keras.activations`, or None.
        use_bias: whether the convolution has a bias.
        norm: whether it is normalised.
        gamma_initializer: of the normalisation's scale; "zeros" lets a
            residual branch start closed.
        name: str, of the convolution.

    Returns:
        Tensor (B, ceil(H/strides), ceil(W/strides), filters).
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:
        padding = "valid"
        x = keras.layers.ZeroPadding2D(
            kernel_size // 2, data_format="channels_last", name=f"{name}_pad"
        )(x)
    arguments = {
        "kernel_size": kernel_size,
        "strides": strides,
        "padding": padding,
        "data_format": "channels_last",
        "use_bias": use_bias,
        "name": name,
    }
    if filters is None:
        x = keras.layers.DepthwiseConv2D(**arguments)(x)
    else:
        x = keras.layers.Conv2D(filters, **arguments)(x)
    if norm:
        x = BatchNormalization(
            epsilon=EPSILON,
            gamma_initializer=gamma_initializer,
            name=f"{name}_norm",
        )(x)
    if activation is None:
        return x
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
