"""Picture files and labels, as evaluation and prediction need them."""

import io
import itertools
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from kanets import data, tasks
from kanets.data import folders
from kanets.data.framing import picture_size
from kanets.data.graph_pictures import JPEG, PNG
from kanets.data.pictures import (
    PictureError,
    failure,
    fit_picture,
    read_picture,
)
from kanets.data.threads import map_in_threads
from kanets.evaluation.finding import picture_files
from kanets.evaluation.sources import Source

_NOT_SERVED = "a SavedModel reads JPEG and PNG only"
_END = b"\xaeB`\x82"  # the checksum of a PNG's last chunk, unseen by Pillow


def servable(paths, on_error):
    """Rows of the pictures that a bundle can read: whole JPEG and PNG."""
    _, rows, _ = folders.read_pictures(paths, (1, 1), on_error)
    good = jpeg_or_png([paths[row] for row in rows], on_error)
    return [rows[place] for place in good]


def jpeg_or_png(paths, on_error):
    """Rows of the files in a format of a bundle, of pictures that are whole."""
    good, faults = [], []
    for row, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                _check_served(file)
        except PictureError as error:
            faults.append((str(path), str(error)))
        else:
            good.append(row)
    folders.stop_or_warn(faults, len(good), on_error)
    return good


def _check_served(file):
    """Raises a PictureError of an open file that no bundle reads.

    Pillow reads a PNG without its last bytes, and TensorFlow does not.
    """
    start = file.read(8)
    if not start.startswith((JPEG, PNG)):
        raise PictureError(_NOT_SERVED)
    if start.startswith(PNG):
        try:
            Image.open(file).verify()
            if file.read(len(_END)) != _END:
                raise ValueError("PNG file without its end")
        except Exception as error:  # whatever a damaged file provokes
            raise PictureError(failure(error)) from error


def is_keras(model):
    """Whether it is a Keras model, not an `Artifact`."""
    return hasattr(model, "predict")


def takes_files(model):
    """Whether it is given the bytes of files, as SavedModels are."""
    return not is_keras(model) and model.takes_files


def read(picture, size=None):
    """One picture as uint8 (H, W, 3); an error names it.

    Args:
        picture: a path, or a `Source`.
        size: (H, W) that it is fitted to; None leaves it as it is.
    """
    try:
        if isinstance(picture, Source):
            pixels = picture.pixels()
        else:
            pixels = read_picture(picture)
        return pixels if size is None else fit_picture(pixels, size)
    except PictureError as error:
        raise data.BadPicturesError([(picture, str(error))]) from None


def read_file(picture):
    """The bytes of a file that a bundle can read; an error names it."""
    if not isinstance(picture, Source):
        read(picture)
        jpeg_or_png([picture], "stop")
        return picture.read_bytes()
    try:
        content = picture.content()
        read_picture(io.BytesIO(content))
        _check_served(io.BytesIO(content))
    except PictureError as error:
        raise data.BadPicturesError([(picture, str(error))]) from None
    return content


def in_parts(paths, read, size, on_bad=None):
    """Reads picture files, part by part, each as it is asked for.

    Args:
        paths: iterable of what `read` takes; no more of it than a part is
            held.
        read: function from a path to what is wanted of it, which raises
            `BadPicturesError`.
        size: positive int, files that are read at once.
        on_bad: function (path, reason), called for each bad file, which is
            left out; None raises at the first.

    Yields:
        Lists of `(path, what was read)`, never empty. Before an error come
        all the files before the bad one.
    """

    def attempt(path):
        try:
            return read(path), None
        except data.BadPicturesError as error:
            return None, error

    paths = iter(paths)
    while chunk := list(itertools.islice(paths, size)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            attempts = map_in_threads(attempt, chunk)
        part = []
        for path, (found, error) in zip(chunk, attempts, strict=True):
            if error is None:
                part.append((path, found))
            elif on_bad is not None:
                on_bad(path, error.pictures[0][1])
            else:
                if part:
                    yield part
                raise error
        if part:
            yield part


def sample(model, paths, count):
    """At most `count` picture files for a model, evenly taken.

    Args:
        model: Keras model; for a segmenter, a folder may be one of data, with
            its pictures in `images/`.
        paths: files and folders, as in `picture_files`.
        count: positive int.
    """
    check_takes_pictures(model, model.name)
    inside = [Path(path, tasks.of_model(model).pictures) for path in paths]
    paths = [
        there if there.is_dir() else path
        for there, path in zip(inside, paths, strict=True)
    ]
    files = picture_files(paths)
    if not files:
        raise ValueError("There must be a picture. Received: no paths")
    count = min(count, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def representative(model, folder, image_size=None, count=200):
    """Pictures of a folder as a model sees them, to calibrate int8 with.

    Args:
        model: Keras model that takes pictures.
        folder: of pictures, or a file, as in `sample`.
        image_size: pair of int, where the model leaves its size open.
        count: the most pictures.

    Returns:
        float32 array (n, H, W, 3), 0..255.
    """
    size = picture_size(model, image_size)
    if None in size:
        raise ValueError(
            "Pictures to represent those of a model of open size need an "
            f"image_size. Received: image_size={image_size}"
        )
    files = sample(model, [folder], count)
    pictures, rows, _ = folders.read_pictures(files, size, "stop")
    return pictures.take(rows)


def image_size(model):
    """Height and width a model is for, or None where they are open."""
    return picture_size(model) if is_keras(model) else model.image_size


def size_of(model):
    """Height and width of a model's input, which must be fixed."""
    size = image_size(model)
    if None in size:
        raise ValueError(
            "The model must have a fixed input size; give it one with "
            "kanets.create_model(..., input_shape=...), or an export with "
            f"image_size. Received: {model.name!r} with input size {size}"
        )
    return size


def class_names_of(model):
    """The class names of a model, which must have some."""
    names = getattr(model, "class_names", None)
    if not names:
        raise ValueError(
            "The model must have class names (labels.txt beside its weights). "
            f"Received: {model.name!r} without"
        )
    return list(names)


def check_takes_pictures(model, source):
    """Raises a ValueError unless a Keras model takes pictures alone."""
    if not tasks.takes_pictures(model):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            "The model must take pictures, as a classifier or a segmenter. "
            f"Received: {str(source)!r} with inputs {shapes}"
        )


def check_outputs(outputs, model):
    """Raises a ValueError unless the outputs of a model are finite numbers.

    Args:
        outputs: array of float.
        model: Keras model or `Artifact`.
    """
    if not np.isfinite(outputs).all():
        raise ValueError(
            "The outputs of a model must be finite: it diverged in training, "
            f"or its precision is too low. Received: NaN from {model.name!r}"
        )
