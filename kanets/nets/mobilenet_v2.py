"""keras.applications' MobileNetV2 with a KANet's strides: the yardstick.

A comparison is fair when both nets see maps of the same size, and Keras's
MobileNetV2 fixes its five strides. This is that model, rebuilt from its own
configuration with other strides, no pretrained weights, and the momentum of
our batch normalisations (its own 0.999 lags in short runs).

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018.
"""

import keras

# The layer that reduces the picture in each of the five places.
REDUCING = (
    "Conv1",
    "block_1_depthwise",
    "block_3_depthwise",
    "block_6_depthwise",
    "block_13_depthwise",
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
        ValueError: `strides` are not five numbers, 1 or 2.
    """
    if len(strides) != 5 or any(s not in (1, 2) for s in strides):
        raise ValueError(
            f"strides must be five numbers, 1 or 2. Received: strides={strides}"
        )
    shape = (224, 224, 3) if input_shape is None else input_shape
    pixels = keras.Input(shape, name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(
        pixels
    )
    body = keras.applications.MobileNetV2(
        alpha=alpha, include_top=False, weights=None, input_tensor=scaled
    )
    config = body.get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)
        settings = layer["config"]
        if layer["name"] in REDUCING:
            stride = strides[REDUCING.index(layer["name"])]
            settings.update(strides=(stride, stride), padding="same")
        elif layer["class_name"] == "ZeroPadding2D":
            settings["padding"] = ((0, 0), (0, 0))
        elif layer["class_name"] == "BatchNormalization":
            settings["momentum"] = 0.99
    body = keras.Model.from_config(config)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    x = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="predictions"
    )(x)
    return keras.Model(body.inputs[0], x, name=name)
