"""EfficientViT: inverted residuals, and linear attention at two scales.

Cai, Li, Hu, Gan and Han, "EfficientViT: Multi-Scale Linear Attention for
High-Resolution Dense Prediction", ICCV 2023. The numbers are those of timm's
nets of these names, whose published weights fit. Ours takes other strides, and
any mechanism in the place of its attention, which the last two stages have.

References: https://arxiv.org/abs/2205.14756;
https://github.com/mit-han-lab/efficientvit.
"""

from typing import NamedTuple

import keras

from kanets.checks import positive_integer
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

SIDE = 224
STRIDES = ("the stem", *(f"stage {number}" for number in range(4)))
EXPANSION = 4
ACTIVATION = "hard_swish"
FIRST_ATTENDING = 2  # stage, whose inverted residuals have one norm each


class Variant(NamedTuple):
    """A net: channels and blocks of stem and stages, of a head, and the top.

    A stage's count has its strided block; stages that attend have one more.
    """

    channels: tuple
    depths: tuple
    head_dim: int
    top: tuple


VARIANTS = {
    "b0": Variant((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16, (1024, 1280)),
    "b1": Variant((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16, (1536, 1600)),
    "b2": Variant((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32, (2304, 2560)),
    "b3": Variant((32, 64, 128, 256, 512), (1, 4, 6, 6, 9), 32, (2304, 2560)),
}


def EfficientViT(  # noqa: N802
    input_shape=None,
    variant="b0",
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
    """An EfficientViT image classifier, as a functional Keras model.

    | variant | parameters | multiply-adds |
    |---------|------------|---------------|
    | b0      | 3,410,008  | 100 M         |
    | b1      | 9,102,024  | 519 M         |
    | b2      | 24,330,712 | 1,584 M       |
    | b3      | 48,646,056 | 3,953 M       |

    Parameters are the trainable ones, multiply-adds those at 224 px.
    `feature_maps(model)` gives the last map at each of the five levels.

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default (224, 224, 3). The
            channels are last, whatever `keras.config.image_data_format()` is.
        variant: "b0", "b1", "b2" or "b3".
        include_top: whether the pooled classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (a 4-D map), "avg" or "max".
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name; default "efficientvit_<variant>".
        attention: None is the published net. One of
            `kanets.attention.names()`, such as "kao_qkv"; a dictionary of a
            name and arguments, {"name": "window", "num_heads": 4}; or what
            else `kanets.attention.make` takes to make a new layer for each
            block: normalised and added, in the place of linear attention.
            Logits are multiplied by 1/sqrt(D) where it does not say.
        strides: five numbers, 1 or 2, of the stem and of the four stages.
            Small pictures want fewer early ones. The weights do not depend on
            it.
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

    >>> model = EfficientViT((96, 96, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    References: Cai et al., "EfficientViT", https://arxiv.org/abs/2205.14756.
    """
    check_variant(variant, VARIANTS)
    check_input_shape(input_shape)
    check_strides(strides, STRIDES)
    check_no_layer(attention)
    check_pooling(pooling)
    classes = positive_integer("classes", classes)
    sizes = VARIANTS[variant]
    inputs = make_input(input_shape, input_tensor, SIDE)
    x = imagenet_scale(inputs) if include_preprocessing else inputs
    x = make_body(x, sizes, strides, attention)

    # Head
    if include_top:
        maps, features = sizes.top
        x = conv_norm(x, maps, activation=ACTIVATION, name="head")
        x = pooled(x, "avg")
        x = keras.layers.Dense(features, use_bias=False, name="features")(x)
        x = keras.layers.LayerNormalization(
            epsilon=EPSILON, name="features_norm"
        )(x)
        x = keras.layers.Activation(ACTIVATION, name="features_activation")(x)
        x = classifier(x, classes, classifier_activation, dropout_rate)
    else:
        x = pooled(x, pooling)
    name = f"efficientvit_{variant}" if name is None else name
    return finished(name, inputs, x, input_tensor, weights)


def make_body(x, sizes, strides, attention):
    """Stem and stages: from scaled pixels to maps (B, h, w, C)."""
    channels, *stages = sizes.channels
    x = conv_norm(x, channels, 3, strides[0], ACTIVATION, name="stem")
    for number in range(sizes.depths[0]):
        x = _residual(x, channels, 1, f"stem_block_{number}", widen=False)
    x = level(x, 1)
    for stage, channels in enumerate(stages):
        attends = stage >= FIRST_ATTENDING
        name = f"stage_{stage}_block_"
        stride = strides[stage + 1]
        x = _residual(
            x, channels, stride, f"{name}0", adds=False, norm=not attends
        )
        for number in range(1, sizes.depths[stage + 1] + attends):
            if attends:
                heads = channels // sizes.head_dim
                own = {"name": "linear", "num_heads": heads}
                place = f"{name}{number}_attention"
                x = in_place_of(own, x, attention, name=place)
            x = _residual(x, channels, 1, f"{name}{number}", norm=not attends)
        x = level(x, stage + 2)
    return x


def _residual(x, channels, stride, name, widen=True, adds=True, norm=True):
    """An inverted residual; where only its end is normalised, with biases."""
    entering = x
    arguments = {"activation": ACTIVATION, "norm": norm, "use_bias": not norm}
    if widen:
        wide = EXPANSION * x.shape[-1]
        x = conv_norm(x, wide, name=f"{name}_expand", **arguments)
    x = conv_norm(x, None, 3, stride, name=f"{name}_depthwise", **arguments)
    x = conv_norm(x, channels, name=f"{name}_project")
    if not adds:
        return x
    return keras.layers.Add(name=f"{name}_add")([x, entering])
