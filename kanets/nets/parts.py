"""What nets share: their input, head and end, and checks of their arguments."""

import itertools
import operator

import keras

from kanets.attention import table
from kanets.checks import is_number, is_positive
from kanets.layers.attention_branch import residual_attention
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.pixel_scale import PixelScale

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def make_input(input_shape, input_tensor, side=224):
    """The pixels: a new input, square without a shape, or the given tensor."""
    if input_tensor is None:
        shape = (side, side, 3) if input_shape is None else input_shape
        return keras.Input(shape, name="pixels")
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            "input_tensor must be a Keras tensor, from keras.Input or a "
            f"layer. Received: input_tensor={type(input_tensor).__name__}"
        )
    return input_tensor


def signed_scale(pixels):
    """Pixels 0..255 to -1..1."""
    return keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(pixels)


def imagenet_scale(pixels):
    """Pixels 0..255 less ImageNet's mean, by its deviation, for each colour."""
    if pixels.shape[-1] != len(IMAGENET_MEAN):
        raise ValueError(
            "input_shape must be of three channels, red, green and blue, to be "
            "scaled as ImageNet's; include_preprocessing=False takes others. "
            f"Received: input_shape={tuple(pixels.shape[1:])}"
        )
    return PixelScale(
        [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION],
        [
            -mean / deviation
            for mean, deviation in zip(
                IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True
            )
        ],
        name="preprocessing",
    )(pixels)


def level(x, number):
    """The maps as they are, by the name that `feature_maps` finds them by."""
    return keras.layers.Identity(name=f"level{number}")(x)


def in_place_of(own, x, attention, *, name):
    """A net's own attention, or what takes its place, and the input added.

    Args:
        own: what `kanets.attention.make` takes; it normalises by itself.
        x: float tensor (B, H, W, C), symbolic.
        attention: None, or a mechanism, which is normalised here.
        name: str, of the layer; the sum is "<name>_add".
    """
    if attention is not None:
        return residual_attention(x, attention, gate=None, name=name)
    branch = table.make(own, name=name)(x)
    return keras.layers.Add(name=f"{name}_add")([x, branch])


def classifier(x, classes, activation, dropout_rate, name="predictions"):
    """Probabilities of features or of the means of maps, in float32."""
    x = pooled(x, "avg") if len(x.shape) == 4 else x
    if dropout_rate is not None and not (
        is_number(dropout_rate) and 0 <= dropout_rate <= 1
    ):
        raise ValueError(
            "dropout_rate must be a number from 0 to 1. "
            f"Received: dropout_rate={dropout_rate!r}"
        )
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    return keras.layers.Dense(
        classes, activation=activation, dtype="float32", name=name
    )(x)


def pooled(x, pooling):
    """The means or the greatest of the maps, or the maps as they are."""
    if pooling is None:
        return x
    layer = {
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }[pooling]
    return layer(data_format="channels_last", name="pool")(x)


def finished(name, inputs, outputs, input_tensor, weights):
    """The model of a graph, with the weights of a file if there is one."""
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        # A list would warn when the model is called with one tensor.
        inputs = inputs[0] if len(inputs) == 1 else inputs
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        model.load_weights(weights)
    return model


def conv_norm_relu6(x, channels, kernel_size, strides, name):
    """A convolution without bias, batch normalisation and ReLU6."""
    x = keras.layers.Conv2D(
        channels,
        kernel_size,
        strides=strides,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        name=f"{name}_conv",
    )(x)
    return norm_relu6(x, name)


def norm_relu6(x, name):
    """Batch normalisation and ReLU6."""
    x = BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.Activation("relu6", name=f"{name}_relu6")(x)


def width(channels, alpha):
    """A multiple of 8 near channels * alpha, never 10 % below it."""
    scaled = channels * alpha
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def are_strides(value, count=5):
    """Whether it is so many numbers, 1 or 2."""
    return (
        isinstance(value, tuple | list)
        and len(value) == count
        and all(stride in (1, 2) for stride in value)
    )


def check_strides(strides, places):
    """Raises a ValueError unless there is a stride, 1 or 2, for each place."""
    if not are_strides(strides, len(places)):
        raise ValueError(
            f"strides must be {len(places)} numbers, 1 or 2, of "
            f"{', '.join(places)}. Received: strides={strides}"
        )


def check_alpha(alpha):
    """Raises a ValueError unless the factor of the widths is positive."""
    if not is_number(alpha) or not alpha > 0:
        raise ValueError(
            f"alpha must be a positive number. Received: alpha={alpha!r}"
        )


def check_variant(variant, variants):
    """Raises a ValueError for a variant that is none of the known."""
    if not isinstance(variant, str) or variant not in variants:
        raise ValueError(
            f"variant must be one of {list(variants)}. "
            f"Received: variant={variant!r}"
        )


def check_no_layer(attention):
    """Raises a ValueError for one layer, and for what names no mechanism."""
    if isinstance(attention, keras.layers.Layer):
        raise ValueError(
            "attention must be a name, a dictionary or a callable that makes a "
            "new layer for each block, not one layer. "
            f"Received: attention={attention!r}"
        )
    table.check(attention)


def check_pooling(pooling):
    """Raises a ValueError for a pooling that is none."""
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            'pooling must be None, "avg" or "max". '
            f"Received: pooling={pooling!r}"
        )


def check_channels_last(input_shape):
    """Raises a ValueError for (channels, height, width) by mistake."""
    first, *others = input_shape
    if first in (1, 3) and all(n is None or n >= 16 for n in others):
        raise ValueError(
            "The last axis of input_shape is the channels, whatever "
            "keras.config.image_data_format() says. "
            f"Received: input_shape={tuple(input_shape)}"
        )


def check_input_shape(input_shape):
    """Raises a ValueError unless it is None or (H, W, C), channels last."""
    if input_shape is not None and (
        not isinstance(input_shape, tuple | list)
        or len(input_shape) != 3
        or not all(side is None or is_positive(side) for side in input_shape)
        or input_shape[-1] is None
    ):
        raise ValueError(
            "input_shape must be positive (height, width, channels), with "
            f"None for an open size. Received: input_shape={input_shape}"
        )
    if input_shape is not None:
        check_channels_last(input_shape)


def check_arguments(
    input_shape, alpha, strides, output_stride, reducing="24, 32, 64 and 160"
):
    """Raises a ValueError that names the first argument out of its range.

    `reducing` are the channels of the stages that `strides` are of.
    """
    check_input_shape(input_shape)
    check_alpha(alpha)
    if not are_strides(strides):
        raise ValueError(
            "strides must be five numbers, 1 or 2: of the stem and of the "
            f"stages with {reducing} channels. "
            f"Received: strides={strides}"
        )
    reached = set(itertools.accumulate(strides, operator.mul))
    if output_stride is not None and output_stride not in reached & {8, 16}:
        raise ValueError(
            "output_stride must be None, or 8 or 16 and a product of the "
            f"first of `strides`. Received: output_stride={output_stride}, "
            f"strides={strides}"
        )
