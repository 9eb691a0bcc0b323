"""SHViT: single-head attention, on few large patches.

Yun and Ro, "SHViT: Single-Head Vision Transformer with Memory Efficient Macro
Design", CVPR 2024. Four strided convolutions make patches of 16 pixels; blocks
of a depthwise convolution, single-head attention of a part of the channels
(not in the first stage) and a feed-forward network follow, each a residual. The
numbers are those of timm's nets of these names, whose published weights fit.
Ours takes other strides, and any mechanism in the place of its attention.

References: https://arxiv.org/abs/2401.16456;
https://github.com/ysj9909/SHViT.
"""

from typing import NamedTuple

import keras

from kanets.checks import positive_integer
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.normalized_convolution import EPSILON, conv_norm
from kanets.nets.parts import (
    check_input_shape,
    check_no_layer,
    check_pooling,
    check_strides,
    check_variant,
    classifier,
    finished,
    imagenet_scale,
    in_place_of,
    level,
    make_input,
    pooled,
)

STRIDES = (
    *(f"convolution {number} of the stem" for number in range(4)),
    *(f"stage {number}" for number in (1, 2)),
)
KEY_DIM = 16
SQUEEZE = 4  # channels of a merged patch to those of its gate


class Variant(NamedTuple):
    """A net: side of the pictures and, by stage, channels and blocks.

    `attending` are the channels that attend; the first stage has none.
    """

    side: int
    channels: tuple
    depths: tuple
    attending: tuple


VARIANTS = {
    "s1": Variant(224, (128, 224, 320), (2, 4, 5), (None, 48, 68)),
    "s2": Variant(224, (128, 308, 448), (2, 4, 5), (None, 66, 96)),
    "s3": Variant(224, (192, 352, 448), (3, 5, 5), (None, 75, 96)),
    "s4": Variant(256, (224, 336, 448), (4, 7, 6), (None, 72, 96)),
}


def SHViT(  # noqa: N802
    input_shape=None,
    variant="s1",
    include_top=True,
    weights=None,
    input_tensor=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
    *,
    attention=None,
    strides=(2, 2, 2, 2, 2, 2),
    dropout_rate=0.0,
    include_preprocessing=True,
):
    """An SHViT image classifier, as a functional Keras model.

    | variant | side | parameters | multiply-adds |
    |---------|------|------------|---------------|
    | s1      | 224  | 6,330,808  | 241 M         |
    | s2      | 224  | 11,483,072 | 365 M         |
    | s3      | 224  | 14,245,273 | 601 M         |
    | s4      | 256  | 16,588,484 | 986 M         |

    Parameters are the trainable ones. `feature_maps(model)` gives the last
    map at each of six levels, of which the first three are the stem's.

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default a square of the
            variant's side. The channels are last, whatever
            `keras.config.image_data_format()` is.
        variant: "s1", "s2", "s3" or "s4".
        include_top: whether the pooled classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (a 4-D map), "avg" or "max".
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name; default "shvit_<variant>".
        attention: None is the published net. One of
            `kanets.attention.names()`, such as "kao_qkv"; a dictionary of a
            name and arguments, {"name": "window", "num_heads": 4}; or what
            else `kanets.attention.make` takes to make a new layer for each
            block: normalised and added, in the place of single-head
            attention. Logits are multiplied by 1/sqrt(D) where it does not
            say.
        strides: six numbers, 1 or 2, of the four convolutions of the stem and
            of the last two stages. Small pictures want fewer early ones. The
            weights do not depend on it.
        dropout_rate: before the classifier.
        include_preprocessing: whether the model takes pixels in 0..255 and
            scales them itself, as ImageNet's mean and deviation say; without
            it the caller does.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, classes) in float32. With `keras.mixed_precision` set, the body
        computes in half precision and the classifier in float32.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:

    >>> model = SHViT((128, 128, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    References: Yun and Ro, "SHViT", https://arxiv.org/abs/2401.16456.
    """
    check_variant(variant, VARIANTS)
    check_input_shape(input_shape)
    check_strides(strides, STRIDES)
    check_no_layer(attention)
    check_pooling(pooling)
    classes = positive_integer("classes", classes)
    sizes = VARIANTS[variant]
    inputs = make_input(input_shape, input_tensor, sizes.side)
    x = imagenet_scale(inputs) if include_preprocessing else inputs
    x = make_body(x, sizes, strides, attention)

    # Head
    x = pooled(x, "avg" if include_top else pooling)
    if include_top:
        x = BatchNormalization(epsilon=EPSILON, name="head_norm")(x)
        x = classifier(x, classes, classifier_activation, dropout_rate)
    name = f"shvit_{variant}" if name is None else name
    return finished(name, inputs, x, input_tensor, weights)


def make_body(x, sizes, strides, attention):
    """Stem and stages: from scaled pixels to maps (B, h, w, C)."""
    for number, share in enumerate((8, 4, 2, 1)):
        x = conv_norm(
            x,
            sizes.channels[0] // share,
            3,
            strides[number],
            "relu" if share > 1 else None,
            name=f"stem_{number}",
        )
        x = level(x, number + 1) if share > 1 else x
    for stage, channels in enumerate(sizes.channels):
        if stage > 0:
            name = f"stage_{stage}"
            x = _local(x, f"{name}_before")
            x = _merged(x, channels, strides[3 + stage], f"{name}_merge")
            x = _local(x, f"{name}_after")
        attending = sizes.attending[stage]
        own = {
            "name": "single_head",
            "partial_channels": attending,
            "key_dim": KEY_DIM,
            "scale": "rsqrt",
            "gamma_initializer": "zeros",
        }
        for number in range(sizes.depths[stage]):
            name = f"stage_{stage}_block_{number}"
            x = _convolving(x, name, gamma_initializer="zeros")
            if attending is not None:
                x = in_place_of(own, x, attention, name=f"{name}_attention")
            x = _feed_forward(x, name)
        x = level(x, stage + 4)
    return x


def _local(x, name):
    return _feed_forward(_convolving(x, name), name)


def _convolving(x, name, gamma_initializer="ones"):
    branch = conv_norm(
        x,
        None,
        3,
        gamma_initializer=gamma_initializer,
        name=f"{name}_depthwise",
    )
    return keras.layers.Add(name=f"{name}_depthwise_add")([x, branch])


def _feed_forward(x, name):
    channels = x.shape[-1]
    branch = conv_norm(
        x, 2 * channels, activation="relu", name=f"{name}_expand"
    )
    branch = conv_norm(
        branch, channels, gamma_initializer="zeros", name=f"{name}_project"
    )
    return keras.layers.Add(name=f"{name}_add")([x, branch])


def _merged(x, channels, stride, name):
    """What halves the maps: an inverted bottleneck with a gate of channels."""
    wide = 4 * x.shape[-1]
    x = conv_norm(x, wide, activation="relu", name=f"{name}_expand")
    x = conv_norm(x, None, 3, stride, "relu", name=f"{name}_depthwise")
    gate = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", keepdims=True, name=f"{name}_pool"
    )(x)
    gate = conv_norm(
        gate,
        (wide // SQUEEZE + 4) // 8 * 8,  # a multiple of 8
        activation="relu",
        use_bias=True,
        norm=False,
        name=f"{name}_squeeze",
    )
    gate = conv_norm(
        gate,
        wide,
        activation="sigmoid",
        use_bias=True,
        norm=False,
        name=f"{name}_excite",
    )
    x = keras.layers.Multiply(name=f"{name}_gate")([x, gate])
    return conv_norm(x, channels, name=f"{name}_project")
