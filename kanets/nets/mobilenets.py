"""keras.applications' MobileNets with a KANet's strides: the yardsticks.

A comparison is fair when all nets see maps of the same size, and those of
keras.applications fix their five strides. These are the same models, rebuilt
from their own configuration with other strides, no pretrained weights, and the
momentum of our batch normalisations (their own 0.999 lags in short runs).

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018; Howard et al., "Searching for MobileNetV3", ICCV 2019.
"""

import contextlib

import keras

from kanets.checks import positive_integer
from kanets.nets.parts import (
    are_strides,
    check_input_shape,
    classifier,
    make_input,
    pooled,
    signed_scale,
)

# The layer that reduces the picture in each of the five places.
V2_REDUCING = (
    "Conv1",
    "block_1_depthwise",
    "block_3_depthwise",
    "block_6_depthwise",
    "block_13_depthwise",
)
V3_SMALL_REDUCING = (
    "conv",
    "expanded_conv_depthwise",
    "expanded_conv_1_depthwise",
    "expanded_conv_3_depthwise",
    "expanded_conv_8_depthwise",
)


def MobileNetV2(  # noqa: N802
    input_shape=None,
    alpha=1.0,
    classes=1000,
    strides=(2, 2, 2, 2, 2),
    dropout_rate=0.0,
    name="mobilenet_v2",
):
    """A MobileNetV2 classifier of 0..255 pixels with a choice of strides.

    Args:
        input_shape: (H, W, 3), default (224, 224, 3).
        alpha: width multiplier.
        classes: number of classes.
        strides: five numbers, 1 or 2, as in `kanets.KANet`.
        dropout_rate: before the classifier.
        name: the model's name.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, classes) in float32.

    Raises:
        ValueError: `strides` are not five numbers, 1 or 2; an `input_shape`,
            `classes` or a `dropout_rate` that is none.
    """
    classes = positive_integer("classes", classes)
    pixels, x = _body(
        lambda scaled: keras.applications.MobileNetV2(
            alpha=alpha, include_top=False, weights=None, input_tensor=scaled
        ),
        V2_REDUCING,
        input_shape,
        strides,
    )
    x = classifier(x, classes, "softmax", dropout_rate)
    return keras.Model(pixels, x, name=name)


def MobileNetV3Small(  # noqa: N802
    input_shape=None,
    alpha=1.0,
    classes=1000,
    strides=(2, 2, 2, 2, 2),
    dropout_rate=0.0,
    name="mobilenet_v3_small",
):
    """A MobileNetV3-Small classifier with a choice of strides.

    Its 1024 units before the classifier are a dense layer here, which is what
    the 1x1 convolution of keras.applications computes.

    Args, Returns, Raises: as `MobileNetV2`.
    """
    classes = positive_integer("classes", classes)
    pixels, x = _body(
        lambda scaled: keras.applications.MobileNetV3Small(
            alpha=alpha,
            include_top=False,
            weights=None,
            input_tensor=scaled,
            include_preprocessing=False,
        ),
        V3_SMALL_REDUCING,
        input_shape,
        strides,
    )
    x = pooled(x, "avg")
    x = keras.layers.Dense(1024, activation="hard_swish", name="conv_2")(x)
    x = classifier(x, classes, "softmax", dropout_rate)
    return keras.Model(pixels, x, name=name)


def _body(make, reducing, input_shape, strides):
    """The input and the last map of a net, rebuilt with other strides."""
    if not are_strides(strides):
        raise ValueError(
            f"strides must be five numbers, 1 or 2. Received: strides={strides}"
        )
    check_input_shape(input_shape)
    scaled = signed_scale(make_input(input_shape, None))
    with _channels_last():
        config = make(scaled).get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)
        settings = layer["config"]
        if layer["name"] in reducing:
            stride = strides[reducing.index(layer["name"])]
            settings.update(strides=(stride, stride), padding="same")
        elif layer["class_name"] == "ZeroPadding2D":
            settings["padding"] = ((0, 0), (0, 0))
        elif layer["class_name"] == "BatchNormalization":
            settings["momentum"] = 0.99
    body = keras.Model.from_config(config)
    return body.inputs[0], body.output


@contextlib.contextmanager
def _channels_last():
    """keras.applications follow the global format, and take no argument."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
