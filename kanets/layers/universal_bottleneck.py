"""MobileNetV4's block, of which older ones are cases.

Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", ECCV 2024,
section 4. An inverted residual with two depthwise convolutions that may each be
left out: without the first it is MobileNetV2's, without the second ConvNeXt's,
without both a feed-forward network.
"""

import keras

from kanets.layers.layer_scale import LayerScale
from kanets.layers.normalized_convolution import conv_norm


def universal_inverted_bottleneck(
    x,
    filters,
    expansion,
    start_kernel=None,
    middle_kernel=None,
    strides=1,
    activation="relu",
    layer_scale=None,
    *,
    name,
):
    """Adds a universal inverted bottleneck to a graph.

        depthwise, norm -> 1x1 to r·c, norm, activation
        -> depthwise, norm, activation -> 1x1 to `filters`, norm

    and the input, where strides and channels leave the shape as it is. The
    last depthwise convolution that is there strides. Layers "<name>_start",
    "<name>_expand", "<name>_depthwise", "<name>_project", each with its norm
    (see `conv_norm`), "<name>_scale" and "<name>_add".

    Args:
        x: float tensor (B, H, W, c), symbolic, c known.
        filters: channels of the output.
        expansion: r.
        start_kernel, middle_kernel: sides of the depthwise kernels before and
            after the expansion; None is without.
        strides: s, 1 or 2; 2 needs one of the kernels.
        activation: a name of `keras.activations`.
        layer_scale: what the factors of the branch start at (`LayerScale`);
            None is without.
        name: str, of the block.

    Returns:
        Tensor (B, ceil(H/s), ceil(W/s), filters).

    Raises:
        ValueError: strides without a kernel.

    Cost: about r·c·(c + filters/s² + k²/s²) multiply-adds a position.

    References: https://arxiv.org/abs/2404.10518, figure 4.
    """
    if strides > 1 and start_kernel is None and middle_kernel is None:
        raise ValueError(
            "strides need a depthwise kernel. Received: "
            f"strides={strides}, start_kernel=None, middle_kernel=None"
        )
    entering = x
    if start_kernel is not None:
        x = conv_norm(
            x,
            None,
            start_kernel,
            1 if middle_kernel is not None else strides,
            name=f"{name}_start",
        )
    x = conv_norm(
        x,
        expansion * x.shape[-1],
        activation=activation,
        name=f"{name}_expand",
    )
    if middle_kernel is not None:
        x = conv_norm(
            x,
            None,
            middle_kernel,
            strides,
            activation,
            name=f"{name}_depthwise",
        )
    x = conv_norm(x, filters, name=f"{name}_project")
    if layer_scale is not None:
        x = LayerScale(layer_scale, name=f"{name}_scale")(x)
    if strides == 1 and filters == entering.shape[-1]:
        x = keras.layers.Add(name=f"{name}_add")([x, entering])
    return x
