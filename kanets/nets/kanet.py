"""KANet: a compact classifier whose bottlenecks attend.

Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020, table 1. The body
is MobileNetV2's (Sandler et al., CVPR 2018) with part of each expansion taken
from the input or from a Kronecker attention operator. It differs from the
paper in the attention path, which is scaled and normalised: see `AttnModule`.
"""

import inspect
import re

import keras

from kanets.checks import positive_integer
from kanets.layers.inverted_residual import (
    AttnModule,
    AttnSkipModule,
    BaseModule,
    BaseSkipModule,
)
from kanets.nets import efficientnet_lite, kanet_version2
from kanets.nets.parts import (
    check_arguments,
    check_pooling,
    classifier,
    conv_norm_relu6,
    finished,
    make_input,
    pooled,
    signed_scale,
    width,
)

# Module, expansion, channels, repeats, and the index of its stride in
# `strides` where the stage may reduce the picture.
STAGES = (
    (BaseModule, 1, 16, 1, None),
    (BaseSkipModule, 6, 24, 2, 1),
    (BaseSkipModule, 6, 32, 2, 2),
    (AttnModule, 6, 32, 1, None),
    (BaseSkipModule, 6, 64, 1, 3),
    (AttnSkipModule, 6, 64, 3, None),
    (AttnSkipModule, 6, 96, 3, None),
    (BaseSkipModule, 6, 160, 1, 4),
    (AttnSkipModule, 6, 160, 2, None),
    (AttnSkipModule, 6, 320, 1, None),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280

# The last layer of each level: what comes before the next stride.
LEVELS = {
    "level1": "stage1_block1",
    "level2": "stage2_block2",
    "level3": "stage4_block1",
    "level4": "stage7_block3",
    "level5": "stage10_block1",
}


def KANet(  # noqa: N802
    input_shape=None,
    alpha=1.0,
    include_top=True,
    weights=None,
    input_tensor=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="kanet",
    *,
    version=1,
    attention="kao_qkv",
    attention_scale="rsqrt",
    attention_norm=True,
    attention_activation="relu6",
    strides=(2, 2, 2, 2, 2),
    output_stride=None,
    dropout_rate=0.0,
    include_preprocessing=True,
):
    """A KANet image classifier, as a functional Keras model.

    Small pictures want fewer early strides, or the attention has nothing
    left to look at. `strides` are those of the stem and of the stages with
    24, 32, 64 and 160 channels; for pictures of

    | side  | `strides`       | attention maps        |
    |-------|-----------------|-----------------------|
    | 224   | (2, 2, 2, 2, 2) | 28, 14, 7; the paper  |
    | 64-96 | (2, 2, 1, 2, 2) | 16-24, 8-12, 4-6      |
    | 32    | (1, 2, 1, 2, 2) | 16, 8, 4              |
    | 32    | (2, 1, 2, 2, 1) | 8, 4, 4; the cheapest |

    `feature_maps(model)` gives the last map at each of the five levels.

    `version=2` has today's blocks: a whole convolution at the large maps,
    bottlenecks of MobileNetV4, and attention behind the last block of each of
    the three later stages, as a residual that starts closed. Nothing of it is
    the paper's but the attention, and it is quicker (benchmarks/NOTES.md,
    where its accuracy stands, too). Its `strides` are those of the stem, the
    whole convolution and the stages; for 32 pixels (1, 2, 2, 2, 1).

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default (224, 224, 3). The
            channels are last, whatever `keras.config.image_data_format()` is.
        alpha: width; channels are multiplied by it and rounded to a multiple
            of 8 that is at least 90 % of the product, and the last 1280 maps
            grow only with alpha above 1, as in MobileNetV2.
        include_top: whether the pooled classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (a 4-D map), "avg" or "max".
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name.
        version: 1, the paper's, or 2; see above.
        attention: one of `kanets.attention.names()`, such as "kao_qkv",
            "dense_pool" (keys and values averaged over 2x2) or "ylg" (local
            sparse attention of eight heads, for a known input size); a
            dictionary of a name and arguments, {"name": "kao_kv",
            "num_heads": 4}; what else `kanets.attention.make` takes to make a
            new layer for each module; or None, which leaves the attention path
            out (the yardstick).
        attention_scale: of version 1, as the next two: scale of the logits,
            where `attention` does not say: "rsqrt" (1/sqrt(C)), None (the
            paper's) or a number.
        attention_norm: whether attention maps are batch-normalised; False is
            the paper's form.
        attention_activation: of attention maps; None is the paper's form.
        strides: five numbers, 1 or 2; see above.
        output_stride: None, or 8 or 16: what `strides` may reduce the picture
            by. The strides beyond it become 1, and the modules after a
            removed stride are dilated by it, so that they see what they saw
            (DeepLab's rule). The weights do not depend on it. None for
            version 2, which `KANetSegmenter(backbone=...)` dilates by itself.
        dropout_rate: before the classifier.
        include_preprocessing: whether the model takes pixels in 0..255 and
            maps them to -1..1 itself; without it the caller does.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, classes) in float32. With `keras.mixed_precision` set, the body
        computes in half precision and the classifier in float32.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Cost: at 224 px and alpha 1: 3.48 M trainable parameters and 281 M
    multiply-adds (QKV), 288 M (KV), 365 M (dense); of version 2 3.31 M and
    511 M (QKV), so that alpha 0.75 is nearest to it.

    Example:

    >>> model = KANet((32, 32, 3), 0.25, classes=10, strides=(2, 1, 1, 2, 2))
    >>> model.output_shape
    (None, 10)

    References: Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020,
    table 1; code: https://github.com/divelab/KANets.
    """
    check_arguments(input_shape, alpha, strides, output_stride)
    check_pooling(pooling)
    classes = positive_integer("classes", classes)
    inputs = make_input(input_shape, input_tensor)
    x = inputs
    if include_preprocessing:
        x = signed_scale(x)
    of_attention = {
        "attention_scale": attention_scale,
        "attention_norm": attention_norm,
        "attention_activation": attention_activation,
    }
    if version == 1:
        x = make_body(
            x, alpha, strides, output_stride, attention, **of_attention
        )
        channels = width(HEAD_CHANNELS, max(alpha, 1.0))
        x = conv_norm_relu6(x, channels, 1, 1, "head")
    else:
        _check_version2(version, output_stride=output_stride, **of_attention)
        x = kanet_version2.make_body(x, alpha, strides, attention)
        x = kanet_version2.head(x, alpha)
    if include_top:
        x = classifier(x, classes, classifier_activation, dropout_rate)
    else:
        x = pooled(x, pooling)
    return finished(name, inputs, x, input_tensor, weights)


def feature_maps(model):
    """The last feature map of each level of a net of convolutions.

    Args:
        model: a model made by `KANet`, `EfficientNetLite`, `MobileNetV4`,
            `EfficientViT` or `SHViT`, or by `KANetSegmenter` with the body of
            one.

    Returns:
        A dict from "level1" ... "level5" (of an `SHViT` "level6") to symbolic
        tensors (B, h, w, c), finest first, behind what `insert_attention` put
        there;
        `keras.Model(model.input, feature_maps(model))` is the pyramid as a
        model.

    Raises:
        ValueError: `model` has no such layers.
    """
    names = {layer.name for layer in model.layers}
    if names.issuperset(LEVELS.values()):
        return {level: _map(model, name) for level, name in LEVELS.items()}
    own = sorted(n for n in names if re.fullmatch(r"level\d", n))
    if own:
        return {name: _map(model, name) for name in own}
    readers = efficientnet_lite.readers(names)
    if readers is None:
        raise ValueError(
            "feature_maps needs a model made by KANet, EfficientNetLite or "
            "another net of levels; a ViT has maps of one size, which "
            "include_top=False gives. "
            f"Received: model={model.name!r}"
        )
    return {
        level: model.get_layer(reader).input
        for level, reader in zip(LEVELS, readers, strict=True)
    }


def _map(model, name):
    """What a layer makes, or the attention that was inserted after it."""
    names = {layer.name for layer in model.layers}
    while (behind := f"{name}_attention_add") in names:
        name = behind
    return model.get_layer(name).output


def _check_version2(version, **arguments):
    """Raises a ValueError for another version, or what only the first has."""
    if version != 2:
        raise ValueError(f"version must be 1 or 2. Received: {version=}")
    parameters = inspect.signature(KANet).parameters
    for name, value in arguments.items():
        if value != parameters[name].default:
            raise ValueError(
                f"{name} is for version 1. Received: {name}={value!r}, "
                f"version={version}"
            )


def make_body(
    x, alpha, strides, output_stride, attention, **attention_arguments
):
    """Stem and stages: from scaled pixels to maps (B, h, w, 320 * alpha)."""
    if isinstance(attention, keras.layers.Layer):
        raise ValueError(
            "attention must be a callable that makes a new layer for each "
            f"module, not one layer. Received: attention={attention!r}"
        )
    attention_arguments["attention"] = attention
    x = conv_norm_relu6(x, width(STEM_CHANNELS, alpha), 3, strides[0], "stem")
    reached, dilation = strides[0], 1
    for number, stage in enumerate(STAGES, start=1):
        module, expansion, channels, repeats, place = stage
        attends = issubclass(module, AttnModule)
        arguments = attention_arguments if attends else {}
        stride = 1 if place is None else strides[place]
        first = dilation  # the strided module itself sees the cells before it
        if reached == output_stride:
            stride, dilation = 1, dilation * stride
        reached *= stride
        for block in range(repeats):
            x = module(
                width(channels, alpha),
                expansion=expansion,
                strides=stride if block == 0 else 1,
                dilation_rate=first if block == 0 else dilation,
                name=f"stage{number}_block{block + 1}",
                **arguments,
            )(x)
    return x
