"""MobileNetV4: universal inverted bottlenecks, and hybrids that attend.

Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", ECCV 2024.
The numbers are those of timm's nets of these names, whose published weights
fit: symmetric padding, batch norm of epsilon 1e-5, and in the hybrids a factor
for each channel of a branch. Ours takes other strides; in the conv nets,
attention as a residual that starts closed; in the hybrids, any mechanism in
the place of multi-query attention.

References: https://arxiv.org/abs/2404.10518, appendix;
https://github.com/huggingface/pytorch-image-models, mobilenetv3.py.
"""

from typing import NamedTuple

import keras

from kanets.attention import table
from kanets.checks import positive_integer
from kanets.layers.attention_branch import residual_attention
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.layer_scale import LayerScale
from kanets.layers.normalized_convolution import EPSILON, conv_norm
from kanets.layers.universal_bottleneck import universal_inverted_bottleneck
from kanets.nets.parts import (
    check_input_shape,
    check_no_layer,
    check_pooling,
    check_strides,
    check_variant,
    classifier,
    finished,
    imagenet_scale,
    level,
    make_input,
    pooled,
)

STRIDES = ("the stem", *(f"stage {number}" for number in range(4)))
HEAD_CHANNELS = 1280
LAYER_SCALE = 1e-5  # what the branches of a hybrid start at
CONVOLUTION, FUSED, ATTENTION = "convolution", "fused", "attention"


class Block(NamedTuple):
    """A block: what it is, and its numbers.

    `kind` is one of the three above, or else the block is a universal inverted
    bottleneck; `kernel` is of a convolution, or in the middle of a bottleneck.
    """

    channels: int
    kind: str = ""
    start: int | None = None
    kernel: int | None = None
    expansion: int = 1
    strides: bool = False


class Variant(NamedTuple):
    """A net: side of the pictures, stem, activation, stages, its attention."""

    side: int
    stem: int
    activation: str
    stages: tuple
    attention: tuple = ()  # by stage, the arguments of multi-query attention


def _stage(channels, *rows):
    """Bottlenecks as (start, kernel, expansion), or attention."""
    blocks = []
    for row in rows:
        if row == ATTENTION:
            blocks.append(Block(channels, ATTENTION))
        else:
            blocks.append(Block(channels, "", *row, strides=not blocks))
    return tuple(blocks)


_FUSED = (Block(48, FUSED, kernel=3, expansion=4, strides=True),)
_LAST = (Block(960, CONVOLUTION, kernel=1),)
_LARGE = (
    *4 * [(5, 5, 4)],
    *((5, None, 4), (5, 3, 4), (5, None, 4), (5, None, 4)),
    *((5, 3, 4), (5, 5, 4)),
)
VARIANTS = {
    "conv_small": Variant(
        224,
        32,
        "relu",
        (
            (
                Block(32, CONVOLUTION, kernel=3, strides=True),
                Block(32, CONVOLUTION, kernel=1),
            ),
            (
                Block(96, CONVOLUTION, kernel=3, strides=True),
                Block(64, CONVOLUTION, kernel=1),
            ),
            _stage(96, (5, 5, 3), *4 * [(None, 3, 2)], (3, None, 4)),
            _stage(
                128,
                *((3, 3, 6), (5, 5, 4), (None, 5, 4), (None, 5, 3)),
                *2 * [(None, 3, 4)],
            ),
            _LAST,
        ),
    ),
    "conv_medium": Variant(
        256,
        32,
        "relu",
        (
            _FUSED,
            _stage(80, (3, 5, 4), (3, 3, 2)),
            _stage(
                160,
                *((3, 5, 6), (3, 3, 4), (3, 3, 4), (3, 5, 4), (3, 3, 4)),
                *((3, None, 4), (None, None, 2), (3, None, 4)),
            ),
            _stage(
                256,
                *((5, 5, 6), (5, 5, 4), (3, 5, 4), (3, 5, 4)),
                *((None, None, 4), (3, None, 4), (3, 5, 2), (5, 5, 4)),
                *((None, None, 4), (None, None, 4), (5, None, 2)),
            ),
            _LAST,
        ),
    ),
    "conv_large": Variant(
        384,
        24,
        "relu",
        (
            _FUSED,
            _stage(96, (3, 5, 4), (3, 3, 4)),
            _stage(
                192,
                *((3, 5, 4), *3 * [(3, 3, 4)], (3, 5, 4)),
                *(*5 * [(5, 3, 4)], (3, None, 4)),
            ),
            _stage(512, *_LARGE, *3 * [(5, None, 4)]),
            _LAST,
        ),
    ),
    "hybrid_medium": Variant(
        256,
        32,
        "relu",
        (
            _FUSED,
            _stage(80, (3, 5, 4), (3, 3, 2)),
            _stage(
                160,
                *((3, 5, 6), (None, None, 2), (3, 3, 4), (3, 5, 4)),
                *(ATTENTION, (3, 3, 4), ATTENTION, (3, None, 4)),
                *(ATTENTION, (3, 3, 4), ATTENTION, (3, None, 4)),
            ),
            _stage(
                256,
                *((5, 5, 6), (5, 5, 4), (3, 5, 4), (3, 5, 4)),
                *((None, None, 2), (3, 5, 2), (None, None, 2)),
                *((None, None, 4), ATTENTION, (3, None, 4)),
                *(ATTENTION, (5, 5, 4), ATTENTION, (5, None, 4)),
                *(ATTENTION, (5, None, 4)),
            ),
            _LAST,
        ),
        (
            {},
            {},
            {"num_heads": 4, "key_dim": 64, "key_stride": 2},
            {"num_heads": 4, "key_dim": 64},
        ),
    ),
    "hybrid_large": Variant(
        384,
        24,
        "gelu",
        (
            _FUSED,
            _stage(96, (3, 5, 4), (3, 3, 4)),
            _stage(
                192,
                *((3, 5, 4), *3 * [(3, 3, 4)], (3, 5, 4), *2 * [(5, 3, 4)]),
                *3 * [ATTENTION, (5, 3, 4)],
                *(ATTENTION, (3, None, 4)),
            ),
            _stage(512, *_LARGE, *4 * [ATTENTION, (5, None, 4)]),
            _LAST,
        ),
        (
            {},
            {},
            {"num_heads": 8, "key_dim": 48, "key_stride": 2},
            {"num_heads": 8, "key_dim": 64},
        ),
    ),
}


def MobileNetV4(  # noqa: N802
    input_shape=None,
    variant="conv_small",
    include_top=True,
    weights=None,
    input_tensor=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
    *,
    attention=None,
    strides=(2, 2, 2, 2, 2),
    dropout_rate=0.0,
    include_preprocessing=True,
):
    """A MobileNetV4 image classifier, as a functional Keras model.

    | variant       | side | parameters | multiply-adds |
    |---------------|------|------------|---------------|
    | conv_small    | 224  | 3,774,024  | 186 M         |
    | conv_medium   | 256  | 9,715,512  | 1,080 M       |
    | conv_large    | 384  | 32,590,864 | 6,376 M       |
    | hybrid_medium | 256  | 11,074,648 | 1,271 M       |
    | hybrid_large  | 384  | 37,764,624 | 7,712 M       |

    Parameters are the trainable ones. `feature_maps(model)` gives the last
    map at each of the five levels.

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default a square of the
            variant's side. The channels are last, whatever
            `keras.config.image_data_format()` is.
        variant: one of the five above.
        include_top: whether the pooled classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (a 4-D map), "avg" or "max".
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name; default "mobilenetv4_<variant>".
        attention: None is the published net. One of
            `kanets.attention.names()`, such as "kao_qkv"; a dictionary of a
            name and arguments, {"name": "window", "num_heads": 4}; or what
            else `kanets.attention.make` takes to make a new layer for each
            block. In a conv net it is a residual that starts closed, in
            every bottleneck of stride 1; in a hybrid it takes the place of
            multi-query attention. Logits are multiplied by 1/sqrt(D) where it
            does not say.
        strides: five numbers, 1 or 2, of the stem and of the first four
            stages. Small pictures want fewer early ones. The weights do not
            depend on it.
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

    >>> model = MobileNetV4((96, 96, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    References: Qin et al., "MobileNetV4: Universal Models for the Mobile
    Ecosystem", https://arxiv.org/abs/2404.10518.
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
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(
            data_format="channels_last", keepdims=True, name="pool"
        )(x)
        x = conv_norm(
            x, HEAD_CHANNELS, activation=sizes.activation, name="head"
        )
        x = keras.layers.Flatten("channels_last", name="flat")(x)
        x = classifier(x, classes, classifier_activation, dropout_rate)
    else:
        x = pooled(x, pooling)
    name = f"mobilenetv4_{variant}" if name is None else name
    return finished(name, inputs, x, input_tensor, weights)


def make_body(x, sizes, strides, attention):
    """Stem and stages: from scaled pixels to maps (B, h, w, 960)."""
    activation = sizes.activation
    x = conv_norm(x, sizes.stem, 3, strides[0], activation, name="stem")
    x = level(x, 1)
    index = 0
    for stage, blocks in enumerate(sizes.stages):
        for block in blocks:
            stride = strides[stage + 1] if block.strides else 1
            name = f"block_{index}"
            index += 1
            if block.kind == ATTENTION:
                mechanism = attention
                if mechanism is None:
                    own = sizes.attention[stage]
                    mechanism = {"name": "multi_query", **own}
                x = _attending(x, mechanism, name)
                continue
            x = _convolving(x, block, stride, sizes, name)
            closed = not (sizes.attention or block.kind or block.strides)
            if closed and attention is not None:
                x = residual_attention(x, attention, name=f"{name}_attention")
        if stage != 3:  # its maps are the last stage's, too
            x = level(x, min(stage + 2, 5))
    return x


def _convolving(x, block, stride, sizes, name):
    activation = sizes.activation
    if block.kind == CONVOLUTION:
        return conv_norm(
            x, block.channels, block.kernel, stride, activation, name=name
        )
    if block.kind == FUSED:
        widened = block.expansion * x.shape[-1]
        x = conv_norm(
            x,
            widened,
            block.kernel,
            stride,
            activation,
            name=f"{name}_expand",
        )
        return conv_norm(x, block.channels, name=f"{name}_project")
    return universal_inverted_bottleneck(
        x,
        block.channels,
        block.expansion,
        block.start,
        block.kernel,
        stride,
        activation,
        LAYER_SCALE if sizes.attention else None,
        name=name,
    )


def _attending(x, attention, name):
    entering = x
    x = BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
    layer = table.make(attention, scale="rsqrt", name=f"{name}_attention")
    x = layer(x)
    x = LayerScale(LAYER_SCALE, name=f"{name}_scale")(x)
    return keras.layers.Add(name=f"{name}_add")([x, entering])
