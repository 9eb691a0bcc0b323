"""EfficientNet-Lite: the body of the zoo's nets with ImageNet weights.

MobileNetV2's inverted residuals at EfficientNet's sizes, without
squeeze-and-excitation and with ReLU6 throughout, made by its authors for 8-bit
integers on phones. As published: TensorFlow's "same" padding, batch norm of
epsilon 1e-3, pixels (x - 127) / 128; a variant widens and deepens all but the
stem and the head, and deepens neither the first nor the last stage. Ours takes
other strides, and attention in its blocks as a residual that starts closed: the
published weights fit, and give the published answers until it is trained.

The weights are those of the authors, converted by
`training/convert_efficientnet_lite.py`; Apache-2.0.

References: Tan and Le, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks", ICML 2019; https://github.com/tensorflow/tpu,
models/official/efficientnet/lite.
"""

import math
from typing import NamedTuple

import keras

from kanets.checks import positive_integer
from kanets.layers.attention_branch import residual_attention
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.pixel_scale import PixelScale
from kanets.nets.parts import (
    check_arguments,
    check_pooling,
    check_variant,
    classifier,
    finished,
    make_input,
    pooled,
    width,
)

# Blocks, kernel, index of the stride in `strides`, expansion and channels.
STAGES = (
    (1, 3, None, 1, 16),
    (2, 3, 1, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 3, 6, 80),
    (3, 5, None, 6, 112),
    (4, 5, 4, 6, 192),
    (1, 3, None, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
VARIANTS = {  # width, depth and side of the pictures
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
}
EPSILON = 1e-3
ATTENDING_CHANNELS = 24  # the fewest of a block that attends, before widening
POSITIONS = ("output", "expansion")
POSITION = "output"  # where attention stands by default
PYRAMID = "aspp_1x1_conv"  # of a segmenter: reads what else the head would


class Block(NamedTuple):
    """An inverted residual: where it stands and what it is."""

    index: int
    kernel: int
    place: int | None  # of its stride in `strides`
    expansion: int
    channels: int
    attends: bool


def EfficientNetLite(  # noqa: N802
    input_shape=None,
    variant="lite0",
    include_top=True,
    weights=None,
    input_tensor=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
    *,
    attention=None,
    attention_position=POSITION,
    strides=(2, 2, 2, 2, 2),
    output_stride=None,
    dropout_rate=0.0,
    include_preprocessing=True,
):
    """An EfficientNet-Lite image classifier, as a functional Keras model.

    | variant | side | blocks | parameters | multiply-adds |
    |---------|------|--------|------------|---------------|
    | lite0   | 224  | 16     | 4,652,008  | 385 M         |
    | lite1   | 240  | 21     | 5,416,680  | 600 M         |
    | lite2   | 260  | 21     | 6,092,072  | 860 M         |

    Parameters are the trainable ones. `feature_maps(model)` gives the last
    map at each of the five levels.

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default a square of the
            variant's side. The channels are last, whatever
            `keras.config.image_data_format()` is.
        variant: "lite0", "lite1" or "lite2".
        include_top: whether the pooled classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (a 4-D map), "avg" or "max".
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name; default "efficientnet_<variant>".
        attention: in every block of stride 1 from 24 channels on, as a
            residual that starts closed: one of `kanets.attention.names()`,
            such as "kao_qkv"; a dictionary of a name and arguments,
            {"name": "kao_kv", "num_heads": 4}; or what else
            `kanets.layers.residual_attention` takes; None is the published
            net. `strides` do not change which blocks these are.
        attention_position: "output", of the block, with its C channels, or
            "expansion", before the depthwise convolution, with 6 C channels,
            where a map of channels has 36 times as many weights
            ({"name": "kao_qkv", "projections": ""} has none).
        strides: five numbers, 1 or 2, of the stem and of the stages that
            begin with 24, 40, 80 and 192 channels. Small pictures want fewer
            early ones. The weights do not depend on it.
        output_stride: None, or 8 or 16: what `strides` may reduce the picture
            by; the blocks after a removed stride are dilated, as in `KANet`.
        dropout_rate: before the classifier.
        include_preprocessing: whether the model takes pixels in 0..255 and
            maps them to (x - 127) / 128 itself; without it the caller does.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, classes) in float32. With `keras.mixed_precision` set, the body
        computes in half precision and the classifier in float32.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:

    >>> model = EfficientNetLite((96, 96, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    References: Tan and Le, "EfficientNet: Rethinking Model Scaling for
    Convolutional Neural Networks", ICML 2019;
    https://github.com/tensorflow/tpu, models/official/efficientnet/lite.
    """
    check_variant(variant, VARIANTS)
    check_arguments(
        input_shape, 1.0, strides, output_stride, "24, 40, 80 and 192"
    )
    if attention_position not in POSITIONS:
        raise ValueError(
            f"attention_position must be one of {POSITIONS}. "
            f"Received: attention_position={attention_position!r}"
        )
    check_pooling(pooling)
    classes = positive_integer("classes", classes)
    inputs = make_input(input_shape, input_tensor, VARIANTS[variant][-1])
    x = inputs
    if include_preprocessing:
        x = PixelScale(1 / 128, -127 / 128, name="preprocessing")(x)
    attentions = {attention_position: attention}
    x = make_body(x, variant, strides, output_stride, attentions)

    # Head
    x = _norm(_convolution(x, HEAD_CHANNELS, 1, "head"), "head_norm")
    if include_top:
        x = classifier(x, classes, classifier_activation, dropout_rate, "fc")
    else:
        x = pooled(x, pooling)
    name = f"efficientnet_{variant}" if name is None else name
    return finished(name, inputs, x, input_tensor, weights)


def blocks(variant):
    """The blocks of a variant, in order."""
    widen, deepen, _ = VARIANTS[variant]
    found = []
    for stage, (count, kernel, place, expansion, channels) in enumerate(STAGES):
        if stage not in (0, len(STAGES) - 1):
            count = math.ceil(count * deepen)
        for number in range(count):
            place = place if number == 0 else None
            attends = place is None and channels >= ATTENDING_CHANNELS
            found.append(
                Block(
                    index=len(found),
                    kernel=kernel,
                    place=place,
                    expansion=expansion,
                    channels=width(channels, widen),
                    attends=attends,
                )
            )
    return found


def make_body(x, variant, strides, output_stride, attentions):
    """Stem and blocks: from scaled pixels to maps (B, h, w, 320 or more).

    `attentions` are the mechanisms by position.
    """
    x = _convolution(x, STEM_CHANNELS, 3, "stem", strides[0])
    x = _norm(x, "stem_norm")
    reached, dilation = strides[0], 1
    for block in blocks(variant):
        stride = 1 if block.place is None else strides[block.place]
        first = dilation  # the strided block itself sees the cells before it
        if reached == output_stride:
            stride, dilation = 1, dilation * stride
        reached *= stride
        present = attentions if block.attends else {}
        x = _block(x, block, stride, first, present)
    return x


def readers(names):
    """The layers that receive the last map of each level.

    Args:
        names: set of str, of the layers of a net.

    Returns:
        A list of five names, or None for another net.
    """
    for variant in VARIANTS:
        found = blocks(variant)
        projections = {f"block_{block.index}_project" for block in found}
        if projections == {n for n in names if n.endswith("_project")}:
            strided = [block for block in found if block.place is not None]
            last = "head" if "head" in names else PYRAMID
            return [*(f"block_{b.index}_expand" for b in strided), last]
    return None


def _block(x, block, stride, dilation, attentions):
    def attended(x, position):
        mechanism = attentions.get(position)
        if mechanism is None:
            return x
        return residual_attention(x, mechanism, name=f"{name}attention")

    name = f"block_{block.index}_"
    entering = x
    if block.expansion != 1:
        x = _convolution(x, x.shape[-1] * block.expansion, 1, f"{name}expand")
        x = _norm(x, f"{name}expand_norm")
    x = attended(x, "expansion")
    x = keras.layers.DepthwiseConv2D(
        block.kernel,
        stride,
        "same",
        dilation_rate=dilation,
        data_format="channels_last",
        use_bias=False,
        name=f"{name}depthwise",
    )(x)
    x = _norm(x, f"{name}depthwise_norm")
    x = _convolution(x, block.channels, 1, f"{name}project")
    x = _norm(x, f"{name}project_norm", activation=False)
    if block.place is None and x.shape[-1] == entering.shape[-1]:
        x = keras.layers.Add(name=f"{name}add")([x, entering])
    return attended(x, "output")


def _convolution(x, channels, kernel, name, stride=1):
    return keras.layers.Conv2D(
        channels,
        kernel,
        stride,
        "same",
        data_format="channels_last",
        use_bias=False,
        name=name,
    )(x)


def _norm(x, name, activation=True):
    x = BatchNormalization(epsilon=EPSILON, name=name)(x)
    if not activation:
        return x
    return keras.layers.Activation("relu6", name=f"{name}_relu6")(x)
