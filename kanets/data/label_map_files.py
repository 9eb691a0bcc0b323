"""Files of label maps: read, checked, and fitted as their pictures are."""

import os

import numpy as np
from PIL import Image, UnidentifiedImageError

from kanets.data.batches import ArrayPictures, read_stack
from kanets.data.pictures import PictureError, center_box, failure
from kanets.data.threads import map_in_threads
from kanets.progress import progress

_LISTED = 10  # unknown labels of a file that an error names


def read_label_map(path):
    """Reads one label map.

    Args:
        path: a PNG file of one channel, 8-bit grey or palette (of any depth:
            the indices count, not the colours).

    Returns:
        uint8 array `(H, W)`, the raw values of the file.

    Raises:
        PictureError: the file is empty, damaged, no PNG or of another mode.
    """
    try:
        if not os.path.getsize(path):
            raise PictureError("empty file (0 bytes)")
        with Image.open(path, formats=("PNG",)) as image:
            raw_mode = image.tile[0][3]  # Pillow scales grey below 8 bits.
            if raw_mode != "L" and image.mode != "P":
                raise PictureError(
                    "a label map must be 8-bit grey or palette, not "
                    f"{raw_mode!r}"
                )
            image.load()
            return np.asarray(image)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("not a PNG file") from None
    except Exception as e:  # Decoders raise whatever a damaged file provokes.
        raise PictureError(failure(e)) from e


def sample_nearest(label_map, box, size):
    """Samples a box of a label map at the centres of new pixels.

    Args:
        label_map: array `(H, W)`.
        box: `(top, left, rows, columns)`, ints or floats, within the map.
        size: `(h, w)` of the result.

    Returns:
        Array `(h, w)` of the same dtype.
    """
    places = [
        (start + (np.arange(new) + 0.5) * length / new).astype(int)
        for start, length, new in zip(box[:2], box[2:], size, strict=True)
    ]
    return label_map[np.ix_(*places)]


def fit_label_map(label_map, image_size):
    """Crops and resizes a label map to where `fit_picture` puts its picture.

    Args:
        label_map: array `(H, W)`.
        image_size: `(h, w)`.

    Returns:
        Array `(h, w)` of the same dtype.
    """
    box = center_box(*label_map.shape, image_size)
    return sample_nearest(label_map, box, image_size)


class FileLabelMaps:
    """Label maps decoded and resized each time they are asked for.

    `maps[rows]` is a uint8 array `(len(rows), h, w)`.
    """

    def __init__(self, paths, image_size):
        self.paths = paths
        self.image_size = image_size

    def __getitem__(self, rows):
        return read_stack([self.paths[row] for row in rows], self._read)

    def _read(self, path):
        return fit_label_map(read_label_map(path), self.image_size)


def decode_label_maps(paths, sizes, pictures, num_classes, ignore_label):
    """Decodes and checks every label map once, in parallel.

    Args:
        paths: list of Path.
        sizes: the height and width of each one's picture, or None.
        pictures: what `folders.decode_pictures` returns; the label maps are
            kept in memory where the pictures are.
        num_classes: int.
        ignore_label: int or None.

    Returns:
        `(labels, reasons)`: what `Batches` takes label maps from, and for
        each path what is wrong with it, or None.
    """
    size = pictures.image_size
    kept = isinstance(pictures, ArrayPictures)
    if kept:
        labels = np.empty((len(paths), *size), np.uint8)
    else:
        labels = FileLabelMaps([str(path) for path in paths], size)

    def read(row):
        advance(1)
        try:
            label_map = read_label_map(paths[row])
        except PictureError as e:
            return str(e)
        if sizes[row] not in (None, label_map.shape):
            return f"is {label_map.shape}, its picture is {sizes[row]}"
        values = np.bincount(label_map.ravel()).nonzero()[0].tolist()
        wrong = [v for v in values if v >= num_classes and v != ignore_label]
        if wrong:
            return (
                f"holds {wrong[:_LISTED]}, which are no labels of the "
                f"{num_classes} classes and not ignore_label={ignore_label}"
            )
        if kept:
            labels[row] = fit_label_map(label_map, size)
        return None

    with progress(len(paths), "reading") as advance:
        return labels, tuple(map_in_threads(read, range(len(paths))))
