"""Nets of `keras.applications` as models of the zoo: RGB pixels 0..255 in.

What a net's `preprocess_input` does to pixels becomes a part of the model, so
that evaluation, prediction and exports do the same: scale and offset of each
channel a `PixelScale`; where channels change places, as in nets that came from
Caffe, those of the first kernel do instead. Nets that scale pixels themselves
are as they are. Weights are fetched by Keras, at their first use.
"""

import sys

import keras
import numpy as np

from kanets.checks import one_line
from kanets.data.folders import imagenet_names
from kanets.layers.pixel_scale import PixelScale

PREFIX = "keras.applications."


def application_name(source):
    """`keras.applications.<Net>` of such a name, also bare; None of others."""
    name = str(source).removeprefix(PREFIX)
    if name[:1].isupper() and callable(getattr(keras.applications, name, None)):
        return PREFIX + name
    return None


def application(name, num_classes=None, input_shape=None, pretrained=True):
    """A net of `keras.applications`, of pixels 0..255.

    Args:
        name: as in `application_name`.
        num_classes: of a new head, on the mean of the last map; None keeps
            the net's own, of ImageNet's classes.
        input_shape: (H, W, 3); default the net's, with a new head any.
        pretrained: whether it has ImageNet's weights.

    Returns:
        A `keras.Model`; with its own head and weights it has `class_names`.

    Raises:
        ValueError: Keras cannot fetch the weights, or refuses an argument.
    """
    name = application_name(name)
    builder = getattr(keras.applications, name.removeprefix(PREFIX))
    scale, offset, order = _prepared(sys.modules[builder.__module__])
    own_head = num_classes is None
    if input_shape is None:
        input_shape = (None, None, 3)
        if own_head:
            input_shape = builder(weights=None).input_shape[1:]
    x = inputs = keras.Input(input_shape)
    if (scale, offset) != (1.0, 0.0):
        x = PixelScale(scale, offset, name="pixel_scale")(x)
    options = {} if own_head else {"include_top": False, "pooling": "avg"}
    weights = "imagenet" if pretrained else None
    try:
        net = builder(input_tensor=x, weights=weights, **options)
    except Exception as error:  # Keras raises that itself
        raise ValueError(
            "Weights of keras.applications are fetched by Keras at their first "
            "use, which needs the network, and a size that the net takes. "
            f"Received: {name!r} ({one_line(error)})"
        ) from error
    if order != [0, 1, 2]:
        _reorder(net, order)
    if own_head:
        if pretrained:
            net.class_names = tuple(imagenet_names().values())
        return net
    head = keras.layers.Dense(
        num_classes, activation="softmax", name="predictions", dtype="float32"
    )
    return keras.Model(inputs, head(net.output), name=net.name)


def _prepared(module):
    """What `preprocess_input` of a module does to pixels.

    Returns:
        `(scale, offset, order)`: floats, or lists of one for each channel of
        the pixels; and of each channel that comes out, which it was.
    """
    probes = np.zeros((4, 1, 1, 3), "float32")
    probes[[1, 2, 3], 0, 0, [0, 1, 2]] = 255.0  # black, red, green, blue
    found = module.preprocess_input(probes, data_format="channels_last")
    black, *colours = np.asarray(found, "float64").reshape(4, 3)
    factors = (np.array(colours) - black) / 255  # of what came in, by row
    order = factors.argmax(0).tolist()
    offset = np.empty(3)
    offset[order] = black
    return _plain(factors.max(1)), _plain(offset), order


def _plain(values):
    """One float where all channels have the same, otherwise a list."""
    values = values.round(7).tolist()
    return values[0] if len(set(values)) == 1 else values


def _reorder(net, order):
    """Lets the first kernel take channels as they are in the pixels."""
    kernel = next(
        layer.kernel for layer in net.layers if hasattr(layer, "kernel")
    )
    kernel.assign(keras.ops.take(kernel, np.argsort(order), axis=2))
