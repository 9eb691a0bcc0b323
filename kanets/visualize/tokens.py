"""Pictures as a model takes them, and tokens of a ViT as cells of a grid."""

import keras
import numpy as np

from kanets.layers import PositionEmbeddings


def class_token_layer(model):
    """What made tokens of a model's patches, behind a class token, or None."""
    for layer in model.layers:
        if isinstance(layer, PositionEmbeddings) and layer.class_token:
            return layer
    return None


def inputs_of(model, picture, names):
    """What layers of a model receive for a picture.

    Args:
        model: functional Keras model.
        picture: array (H, W, 3).
        names: of layers.

    Returns:
        A dict of tensors by name, and the grid (h, w) of the cells that follow
        a class token, None where a model has none.
    """
    tensors = [model.get_layer(name).input for name in names]
    tokens = class_token_layer(model)
    patches = [] if tokens is None else [tokens.input]
    probe = keras.Model(model.input, [*tensors, *patches])
    found = probe(np.asarray(picture, "float32")[None], training=False)
    # Of a single tensor Keras makes no list.
    found = list(found) if isinstance(found, list | tuple) else [found]
    grid = tuple(found.pop().shape[1:3]) if patches else None
    return dict(zip(names, found, strict=True)), grid


def said_of(model, picture):
    """What a model says of a picture, to be written above it.

    Args:
        model: Keras model.
        picture: array (H, W, 3), of a size the model takes: pixels 0..255.

    Returns:
        The class of the highest score and the score, as "tulip 0.97", of a
        classifier that has `class_names`; of another model "photo".
    """
    names = getattr(model, "class_names", None)
    if not names or model.output_shape != (None, len(names)):
        return "photo"
    scores = model(np.asarray(picture, "float32")[None], training=False)
    scores = keras.ops.convert_to_numpy(keras.ops.cast(scores, "float32"))[0]
    best = int(scores.argmax())
    return f"{names[best]} {scores[best]:.2f}"


def check_picture(picture, input_shape):
    """(H, W) of a picture; raises unless it is of a size the model takes."""
    shape = np.shape(picture)
    if len(shape) != 3 or any(
        expected not in (None, side)
        for expected, side in zip(input_shape[1:], shape, strict=True)
    ):
        raise ValueError(
            "picture must be (height, width, 3), of a size the model takes. "
            f"Received: shape={shape}, model.input_shape={input_shape}"
        )
    return shape[:2]


def cell_of(pixel, size, grid):
    """The cell of a grid in which a pixel of a picture lies."""
    return tuple(
        int(p) * n // side for p, n, side in zip(pixel, grid, size, strict=True)
    )
