"""How the pictures of a model are fitted to it, as its own layers say."""

import json
from pathlib import Path

from kanets import compat
from kanets.data.pictures import PictureSize
from kanets.files import read_text
from kanets.layers.pixel_scale import PixelScale

PREPROCESSING = "preprocessing.json"


def picture_size(model, size=None):
    """The size that pictures are brought to for a model, and how.

    Args:
        model: Keras model that takes pictures.
        size: (height, width), where the model's is open or not asked for;
            default the model's, with None where it is open.

    Returns:
        A tuple (height, width); of a classifier that says how pictures are
        fitted, a `kanets.data.pictures.PictureSize`.
    """
    layer = _layer(model)
    size = tuple(model.input_shape[1:3] if size is None else size)
    outputs = getattr(model, "output_shape", None)
    of_classes = isinstance(outputs, tuple) and len(outputs) == 2
    if layer is None or None in size or not of_classes:
        return size
    return PictureSize(size, layer.crop, layer.interpolation)


def fit_whole_pictures(model):
    """Lets a model see all of a picture's centre, as training does."""
    layer = _layer(model)
    if layer is not None:
        layer.crop, layer.interpolation = None, "bilinear"


def write_size(folder, size):
    """Writes `preprocessing.json` where pictures are not fitted by our rule.

    Args:
        folder: of an export that takes pixels; its clients fit them.
        size: (height, width), of `picture_size`.
    """
    if isinstance(size, PictureSize):
        fields = {"image_size": size, **vars(size)}
        path = Path(folder, PREPROCESSING)
        path.write_text(f"{json.dumps(fields)}\n", encoding="utf-8")


def read_size(folder, size):
    """What `write_size` was given, or the size as it is.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder, PREPROCESSING)
    if not path.exists():
        return size
    try:
        fields = json.loads(read_text(path))
        return PictureSize(size, fields["crop"], fields["interpolation"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "preprocessing.json must hold crop and interpolation. Received: "
            f"{str(path)!r} ({type(error).__name__}: {error})"
        ) from error


def _layer(model):
    """The layer that says how pictures are fitted, or None."""
    layers = (x for x in compat.all_layers(model) if isinstance(x, PixelScale))
    return next((x for x in layers if x.crop is not None), None)
