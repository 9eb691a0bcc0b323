"""What a page shows of a classifier or a segmenter, and one picture."""

import time
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np

from kanets import visualize, zoo
from kanets.evaluation import predict
from kanets.evaluation.files import image_size, read
from kanets.evaluation.segmentation import label_maps
from kanets.visualize.attention import attention_panels
from kanets.visualize.heat import smooth_panel
from kanets.visualize.sheets import resized

WIDTH = 480  # pixels of what is drawn
OPACITY = 0.6  # of a class over the picture


@lru_cache(maxsize=4)
def opened(source):
    """The model of a name or a path, kept while others are not asked for."""
    return zoo.load_model(source)


@lru_cache(maxsize=1)  # each panel asks for the same
def seen(source, path):
    """The picture as the model sees it, uint8 (H, W, 3)."""
    size = image_size(opened(source))
    return read(Path(path), None if None in size else size)


def scores(source, path):
    """The five best classes with their probabilities, and the seconds."""
    [(_, ranked)], seconds = _timed(lambda: predict(opened(source), [path]))
    return dict(ranked), seconds


def segments(source, path):
    """The picture, a mask (H, W) for each class that is in it, the seconds.

    Returns:
        A pair (picture, list of (mask, name), the largest first), the colours
        by name as `#rrggbb`, and the seconds.
    """
    model = opened(source)
    picture = seen(source, path)
    pixels = picture[None].astype("float32")
    [found], seconds = _timed(lambda: label_maps(model, pixels))
    names = list(getattr(model, "class_names", None) or ())
    count = max(len(names), int(found.max()) + 1)
    names += [str(i) for i in range(len(names), count)]
    colours = {
        name: "#" + bytes(map(int, colour)).hex()
        for name, colour in zip(names, visualize.palette(count), strict=True)
    }
    areas = np.bincount(found.ravel(), minlength=count)
    present = [i for i in np.argsort(-areas, kind="stable") if areas[i]]
    masks = [(OPACITY * (found == i), names[i]) for i in present]
    return (picture, masks), colours, seconds


def attention(source, path, position=None):
    """Where a pixel looks, in the last attention layer of each size.

    Args:
        source, path: of the model, and of the picture.
        position: (row, column) of the picture that the model sees; None is
            the centre.

    Returns:
        A list of (picture, caption), empty for a model without attention that
        can be drawn.
    """
    model = opened(source)
    if not visualize.attention_layers(model):
        return []
    panels = attention_panels(model, seen(source, path), position)
    return [(panel(WIDTH), caption) for caption, panel in panels]


def speaking(source, path, name):
    """What speaks for a class, as a picture."""
    model = opened(source)
    picture = seen(source, path)
    names = getattr(model, "class_names", None)
    index = names.index(name) if names else int(name)
    if model.output_shape[-1] == 1:  # of the last class, whose other is first
        if index == 0 and len(names or ()) != 1:
            model = keras.Model(model.input, -model.output)
        index = 0
    return smooth_panel(
        picture, visualize.grad_cam(model, picture, index), WIDTH
    )


def shown(source, path):
    """What the model sees, at the width of the other panels."""
    return resized(seen(source, path), WIDTH)


def _timed(function):
    """What it returns, and the seconds of a second call: the first compiles."""
    function()
    start = time.perf_counter()
    return function(), time.perf_counter() - start
