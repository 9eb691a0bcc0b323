"""What each layer and operation is to quantization.

- LINEAR has weights of 8 bits; NORM is folded into a LINEAR before it.
- RELU is part of what comes before it: there is no rounding in between.
- EXACT moves numbers without changing them, which stay rounded as they are.
- SAME makes numbers within the range of its input, and rounds to it, as
  LiteRT does.
- FIXED has a range that is known; LiteRT wants it to be that one.
- PIXELS scales pictures, in floats, from the inputs to the first rounding.
- OTHER computes in floats, between numbers that are rounded; LiteRT computes
  in integers what it can.
"""

import keras

from kanets.layers.pixel_scale import PixelScale
from kanets.layers.resize_like import ResizeLike
from kanets.quantization import folding

LINEAR = "linear"
NORM = "norm"
RELU = "relu"
SILU = "silu"
EXACT = "exact"
SAME = "same"
FIXED = "fixed"
PIXELS = "pixels"
OTHER = "other"

_LAYERS = {
    EXACT: (
        keras.layers.ActivityRegularization,
        keras.layers.Cropping2D,
        keras.layers.Dropout,
        keras.layers.Flatten,
        keras.layers.GlobalMaxPooling2D,
        keras.layers.Identity,
        keras.layers.MaxPooling2D,
        keras.layers.Permute,
        keras.layers.RepeatVector,
        keras.layers.Reshape,
        keras.layers.SpatialDropout2D,
        keras.layers.ZeroPadding2D,
    ),
    SAME: (
        keras.layers.AveragePooling2D,
        keras.layers.UpSampling2D,
        ResizeLike,
    ),
    PIXELS: (keras.layers.Normalization, keras.layers.Rescaling, PixelScale),
}
# Names of classes of `keras.ops`, which are not public.
_OPERATIONS = {
    EXACT: "BroadcastTo Cast ExpandDims Flip GetItem Identity Max MaxPool Pad "
    "Ravel Repeat Reshape Split Squeeze StopGradient Swapaxes Tile Transpose",
    SAME: "AveragePool Resize",
    OTHER: "Add Concatenate Einsum Matmul Maximum Mean Minimum Multiply "
    "Subtract Sum",
}
_OF_OPERATIONS = {
    name: kind for kind, names in _OPERATIONS.items() for name in names.split()
}
_ACTIVATIONS = {
    "hard_silu": OTHER,
    "hardsilu": OTHER,  # the operation
    "linear": EXACT,
    "relu": RELU,
    "relu6": RELU,
    "sigmoid": FIXED,
    "silu": SILU,
    "softmax": FIXED,
    "tanh": FIXED,
}
# LiteRT's 256 values of these begin at the least, and miss the greatest.
FIXED_RANGES = {
    "sigmoid": (0.0, 255 / 256),
    "softmax": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
# With weights, in floats inside, as are the layers of this package.
_FLOAT = (keras.layers.GroupNormalization, keras.layers.LayerNormalization)


def activation(operation):
    """The name of an activation that is all of a layer or operation, or None.

    Args:
        operation: a layer, an operation of `keras.ops` or a function of
            `keras.activations`.
    """
    if isinstance(operation, keras.layers.Activation):
        operation = operation.activation
    if getattr(operation, "weights", ()):
        return None  # of one's own, by the name of one
    if isinstance(operation, keras.layers.ReLU):
        return "relu" if _is_plain(operation) else None
    name = getattr(operation, "__name__", type(operation).__name__).lower()
    return name if name in _ACTIVATIONS else None


def of_activation(name):
    """The kind of an activation by its name; OTHER of what has none."""
    return _ACTIVATIONS.get(name, OTHER)


def of_operation(operation, name):
    """The kind of a layer or operation.

    Raises:
        ValueError: a layer with weights of which it is not known what 8 bits
            make of them, or with the channels first.
    """
    if getattr(operation, "data_format", None) == "channels_first":
        raise ValueError(
            "Quantization is for maps with the channels last. Received: layer "
            f"{name!r} of data_format='channels_first'"
        )
    if mode := getattr(operation, "quantization_mode", None):
        raise ValueError(
            "A net is prepared while its weights are floats. Received: layer "
            f"{name!r} of quantization_mode={mode!r}"
        )
    if type(operation) in folding.KINDS:
        if operation.activity_regularizer is not None:
            raise ValueError(
                "A prepared layer has no loss of its own; leave its "
                f"regularizer out. Received: layer {name!r} with "
                f"activity_regularizer={operation.activity_regularizer!r}"
            )
        return LINEAR
    if type(operation) in folding.NORMS and folding.is_of_last_axis(operation):
        return NORM
    if (found := activation(operation)) is not None:
        return of_activation(found)
    for kind, classes in _LAYERS.items():
        if isinstance(operation, classes):
            return kind
    if not isinstance(operation, keras.layers.Layer):
        return _OF_OPERATIONS.get(type(operation).__name__, OTHER)
    ours = type(operation).__module__.partition(".")[0] in ("kanets", "ylg")
    if operation.weights and not ours and not isinstance(operation, _FLOAT):
        known = ", ".join(kind.__name__ for kind in folding.KINDS)
        raise ValueError(
            f"A layer with weights must be a {known}, a normalization of the "
            "last axis, or a layer of kanets: it is not known what 8 bits "
            f"make of the weights of others. Received: layer {name!r} of "
            f"class {type(operation).__name__}"
        )
    return OTHER


def is_of_integers(operation):
    """Whether LiteRT has a layer or operation inside of attention in 8 bits."""
    if isinstance(operation, keras.layers.Layer):
        return isinstance(
            operation,
            (keras.layers.InputLayer, *folding.KINDS, *folding.NORMS),
        )
    known = activation(operation) is not None
    return known or type(operation).__name__ in _OF_OPERATIONS


def _is_plain(relu):
    slope, least = float(relu.negative_slope or 0), float(relu.threshold or 0)
    return relu.max_value in (None, 6) and slope == least == 0
