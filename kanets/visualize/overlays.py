"""Label maps as colours over the picture; NumPy and Pillow only."""

import functools
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kanets.visualize.sheets import LUMA, resized, save_sheet, with_legend

MAX_COLOURS = 256
_LEVELS = np.linspace(0, 255, 9).round()


def palette(n):
    """The first n of 256 fixed colours, each far from all before it.

    Every colour is the one farthest from its predecessors, out of a lattice
    without very dark and very light ones, in a distance that weighs red,
    green and blue by what the eye sees.

    Args:
        n: int from 1 to 256.

    Returns:
        uint8 array (n, 3), red, green and blue.

    Raises:
        ValueError: another n.

    References: farthest-first choice as in Glasbey et al., "Colour displays
    for categorical images", Color Research & Application 2007; distance of
    Riemersma, "Colour metric", https://www.compuphase.com/cmetric.htm.
    """
    if isinstance(n, bool) or not 1 <= n <= MAX_COLOURS:
        raise ValueError(
            f"n must be an integer from 1 to {MAX_COLOURS}. Received: n={n!r}"
        )
    return _all_colours()[:n].copy()


@functools.cache
def _all_colours():
    lattice = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), -1)
    lattice = lattice.reshape(-1, 3)
    luma = lattice @ LUMA
    lattice = lattice[(luma > 50) & (luma < 215)]
    chosen = [np.argmin(_distances(lattice, [230, 25, 45]))]  # a red
    nearest = np.full(len(lattice), np.inf)
    while len(chosen) < MAX_COLOURS:
        distances = _distances(lattice, lattice[chosen[-1]])
        nearest = np.minimum(nearest, distances)
        chosen.append(np.argmax(nearest))
    return lattice[chosen].astype("uint8")


def overlay(picture, label_map, colours=None, opacity=0.55, ignore_label=None):
    """The picture with every class tinted in its colour.

    Args:
        picture: uint8 array (H, W, 3).
        label_map: integer array (H, W), rows of `colours`.
        colours: uint8 array (classes, 3); default `palette`.
        opacity: of the tint, 0 (the picture) to 1 (the colours alone).
        ignore_label: label that is left as it is in the picture, such as
            that of pixels without a class.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        ValueError: arrays of other shapes or dtypes; an opacity outside of
            0..1; a label without a colour.
    """
    picture, label_map = np.asarray(picture), np.asarray(label_map)
    _check_shapes(picture, label_map)
    if not 0 <= opacity <= 1:
        raise ValueError(
            f"opacity must be from 0 to 1. Received: opacity={opacity!r}"
        )
    colours = palette(MAX_COLOURS) if colours is None else np.asarray(colours)
    tinted = np.ones(label_map.shape, bool)
    if ignore_label is not None:
        tinted = label_map != ignore_label
    labels = label_map[tinted]
    if labels.size and not 0 <= labels.min() <= labels.max() < len(colours):
        raise ValueError(
            f"Labels must be from 0 to {len(colours) - 1}, or ignore_label. "
            f"Received: labels from {labels.min()} to {labels.max()}, "
            f"ignore_label={ignore_label!r}"
        )
    result = picture.copy()
    mixed = (1 - opacity) * picture[tinted] + opacity * colours[labels]
    result[tinted] = np.round(mixed).astype("uint8")
    return result


def save_segmentation(picture, label_map, folder, stem, class_names=None):
    """Writes a label map, and the picture tinted by it.

    Args:
        picture: uint8 array (H, W, 3).
        label_map: integer array (H, W), labels 0..255.
        folder: made if missing.
        stem: what the names of the files begin with.
        class_names: sequence of str; label i is the i-th. Those that occur
            are told with their colours below the tinted picture; None tells
            none.

    Returns:
        Two `Path`s: `<stem>_labels.png`, 8-bit values that are the labels,
        shown in the colours of the overlay, and `<stem>_overlay.png`.

    Raises:
        ValueError: as in `overlay`.
    """
    folder = Path(folder)
    tinted = overlay(picture, label_map)
    if class_names is not None:
        colours = palette(MAX_COLOURS)
        found = np.unique(label_map)
        legend = [(class_names[i], colours[i].tolist()) for i in found]
        tinted = with_legend(tinted, legend)
    folder.mkdir(parents=True, exist_ok=True)
    labels_path = folder / f"{stem}_labels.png"
    overlay_path = folder / f"{stem}_overlay.png"
    labels_path.write_bytes(label_png(label_map))
    Image.fromarray(tinted).save(overlay_path)
    return labels_path, overlay_path


def label_png(label_map):
    """A label map as the bytes of a PNG file.

    Args:
        label_map: integer array (H, W), labels 0..255.

    Returns:
        bytes; the 8-bit values are the labels, shown in colours of `palette`.
    """
    labels = np.asarray(label_map).astype("uint8")
    image = Image.fromarray(labels, "L").convert("P")
    image.putpalette(palette(int(labels.max()) + 1).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def overlay_sheet(
    pictures, truths, predictions, class_names, path, ignore_label=None
):
    """Draws rows of photo, truth and prediction, and a legend, as a PNG.

    Args:
        pictures: uint8 arrays (H, W, 3), each of any size.
        truths: integer arrays (H, W), the labels of the pictures.
        predictions: integer arrays (H, W), without `ignore_label`.
        class_names: sequence of str; label i is the i-th.
        path: the PNG to write. Panels shrink until it is below 400 kB.
        ignore_label: label of true pixels without a class, left untinted.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: no pictures, or not as many of each; otherwise as in
            `overlay`.
    """
    counts = [len(pictures), len(truths), len(predictions)]
    if not counts[0] or len(set(counts)) != 1:
        raise ValueError(
            "There must be one truth and one prediction for each picture. "
            f"Received: {counts[0]} pictures, {counts[1]} truths, "
            f"{counts[2]} predictions"
        )
    colours = palette(len(class_names))
    rows = []
    for each in zip(pictures, truths, predictions, strict=True):
        picture, truth, prediction = map(np.asarray, each)
        panels = (
            picture,
            overlay(picture, truth, colours, ignore_label=ignore_label),
            overlay(picture, prediction, colours),
        )
        captions = ("", "", "") if rows else ("photo", "truth", "prediction")
        panels = [partial(resized, panel) for panel in panels]
        rows.append(list(zip(captions, panels, strict=True)))
    legend = [
        (name, tuple(map(int, colour)))
        for name, colour in zip(class_names, colours, strict=True)
    ]
    return save_sheet(rows, path, legend)


def _distances(colours, colour):
    """Squared distances, weighted by the mean of the two reds."""
    red, green, blue = np.moveaxis((colours - colour) ** 2, -1, 0)
    mean_red = (colours[:, 0] + colour[0]) / 2
    return (
        (2 + mean_red / 256) * red
        + 4 * green
        + (2 + (255 - mean_red) / 256) * blue
    )


def _check_shapes(picture, label_map):
    if (
        picture.ndim != 3
        or picture.dtype != np.uint8
        or picture.shape != (*label_map.shape, 3)
        or label_map.dtype.kind not in "iu"
    ):
        raise ValueError(
            "A picture must be uint8 (height, width, 3), and its label map "
            "integer (height, width). Received: picture "
            f"{picture.dtype} {picture.shape}, label map "
            f"{label_map.dtype} {label_map.shape}"
        )
