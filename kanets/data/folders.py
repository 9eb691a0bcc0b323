"""Class folders -> checked pictures, labels and the rows of each set."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kanets.data.batches import (
    MEMORY_BUDGET,
    ArrayPictures,
    BadPicturesError,
    FilePictures,
)
from kanets.data.pictures import (
    SUFFIXES,
    PictureError,
    fit_picture,
    read_picture,
)

VALIDATION_FOLDERS = ("val", "validation", "test")
TEST_FOLDERS = ("test", "val", "validation")


def has_splits(root):
    """Says whether `root/train/` is a class-folder tree of its own.

    A folder `train/` that holds pictures and no folders is a class.
    """
    train = root / "train"
    return train.is_dir() and bool(_subfolders(train))


def find_folder(root, names):
    """Returns the first of `root/<name>` that is a folder, or None."""
    return next((root / n for n in names if (root / n).is_dir()), None)


def list_classes(root):
    """Returns the sorted names of the class folders in `root`.

    Raises:
        ValueError: there is none.
    """
    names = [folder.name for folder in _subfolders(root)]
    if not names:
        raise ValueError(
            "A picture folder must hold one folder per class "
            "(`photos/<class>/*.jpg`). Received: a folder without folders, "
            f"source={str(root)!r}"
        )
    return names


def list_pictures(root, class_names, *, complete):
    """Lists the pictures of a class-folder tree.

    Pictures lie directly in their class folder. Hidden files are passed
    over; files without a picture's suffix are left out with a warning.

    Args:
        root: Path of the tree.
        class_names: list of str, the order of the labels.
        complete: bool, every class must have a picture (a training set).

    Returns:
        `(paths, labels)`: list of Path and list of int, in class order, then
        by file name.

    Raises:
        ValueError: a folder is not in `class_names`; a class folder holds
            folders; there is no picture; with `complete`, a class has none.
    """
    unknown = sorted(set(list_classes(root)) - set(class_names))
    if unknown:
        raise ValueError(
            "Every class folder must be one of class_names="
            f"{_shortened(class_names)}. Received: {_shortened(unknown)} in "
            f"{str(root)!r}"
        )
    paths, labels, ignored = [], [], []
    for label, name in enumerate(class_names):
        found, others = _files_of_class(root / name)
        if complete and not found:
            raise ValueError(
                "Every class must have a picture. Received: no picture in "
                f"{str(root / name)!r}{_mention(others)}"
            )
        paths += found
        labels += [label] * len(found)
        ignored += others
    if not paths:
        raise ValueError(
            "A picture folder must hold pictures. Received: none in "
            f"{str(root)!r}{_mention(ignored)}"
        )
    if ignored:
        warnings.warn(
            f"{len(ignored)} file(s) without the suffix of a picture were "
            f"left out, for example {str(ignored[0])!r}.",
            stacklevel=4,
        )
    return paths, labels


def read_pictures(paths, image_size, on_error):
    """Decodes every picture once, in parallel, before any training.

    Args:
        paths: list of Path.
        image_size: `(h, w)`, or None: all pictures must then be of one size.
        on_error: `"stop"` or `"skip"`.

    Returns:
        `(pictures, good, skipped)`: what `Batches` takes rows from (in memory
        when the set fits in `MEMORY_BUDGET`), the readable rows as an integer
        array, and a list of `(path, reason)`.

    Raises:
        BadPicturesError: unreadable pictures, with `on_error="stop"`, or
            when none is readable.
        ValueError: `image_size` is None and sizes differ.
    """
    size = _first_size(paths) if image_size is None else image_size
    pixels = None  # None beyond the budget: pictures are then only checked.
    if size is not None and len(paths) * size[0] * size[1] * 3 <= MEMORY_BUDGET:
        pixels = np.empty((len(paths), *size, 3), np.uint8)

    def read(row):
        try:
            image = read_picture(paths[row])
        except PictureError as e:
            return str(e), None
        if pixels is not None and (
            image_size is not None or image.shape[:2] == size
        ):
            pixels[row] = fit_picture(image, size)
        return None, image.shape[:2]

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        results = list(pool.map(read, range(len(paths))))
    reasons, sizes = zip(*results, strict=True)
    bad = [
        (str(path), why)
        for path, why in zip(paths, reasons, strict=True)
        if why is not None
    ]
    if bad and (on_error == "stop" or len(bad) == len(paths)):
        raise BadPicturesError(bad)
    good = np.array([row for row, why in enumerate(reasons) if why is None])
    if image_size is None:
        _check_one_size(paths, good, sizes)
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(paths)} pictures cannot be read and were "
            f"left out, for example {bad[0][0]!r}: {bad[0][1]}. All are "
            "listed in `skipped`.",
            stacklevel=4,
        )
    if pixels is None:
        return FilePictures([str(p) for p in paths], size), good, bad
    return ArrayPictures(pixels), good, bad


def _first_size(paths):
    for path in paths:
        try:
            return read_picture(path).shape[:2]
        except PictureError:
            continue
    return None


def _check_one_size(paths, good, sizes):
    first = good[0]
    for row in good:
        if sizes[row] != sizes[first]:
            raise ValueError(
                "Without `image_size` all pictures must be of one size "
                "(height, width). Received: "
                f"{str(paths[first])!r} is {sizes[first]}, "
                f"{str(paths[row])!r} is {sizes[row]}, image_size=None"
            )


def _subfolders(root):
    return sorted(
        (Path(e.path) for e in os.scandir(root) if e.is_dir() and _seen(e)),
        key=lambda folder: folder.name,
    )


def _files_of_class(folder):
    """Returns (pictures, other files) of one class folder, sorted."""
    if not folder.is_dir():
        return [], []
    nested = _subfolders(folder)
    if nested:
        raise ValueError(
            "Pictures must lie directly in their class folder. Received: "
            f"the folder {str(nested[0])!r} inside class {folder.name!r}"
        )
    files = sorted(e.name for e in os.scandir(folder) if _seen(e))
    files = [folder / name for name in files]
    found = [f for f in files if f.suffix.lower() in SUFFIXES]
    return found, [f for f in files if f.suffix.lower() not in SUFFIXES]


def _seen(entry):
    return not entry.name.startswith((".", "__MACOSX"))


def _mention(ignored):
    if not ignored:
        return ""
    return f" ({len(ignored)} other file(s), for example {ignored[0].name!r})"


def _shortened(names):
    names = list(names)
    return str(names) if len(names) <= 20 else f"{str(names[:20])[:-1]}, ...]"
