"""Class folders -> checked pictures, labels and the rows of each set.

The name of a class is that of its folder, or the label that `classes.tsv`
gives the folder: a line `<folder>` TAB `<label>` for each, in the folder of
the class folders or in its parent. The order of the classes is that of the
folders in both cases. Folders whose names differ in case, spaces at their ends
or Unicode form alone are taken for one class in two folders, and refused unless
`classes.tsv` or the caller names them.

A model of ImageNet's classes finds them in folders that are WordNet ids, too:
`imagenet_classes.tsv`, beside this module, has all 1,000 in the order of their
ids, each with a name of its own.
"""

import unicodedata
import warnings
from pathlib import Path

import numpy as np

from kanets.data.batches import (
    MEMORY_BUDGET,
    ArrayPictures,
    BadPicturesError,
    FilePictures,
)
from kanets.data.listing import (  # noqa: F401
    TEST,
    TEST_FOLDERS,
    VALIDATION_FOLDERS,
    find_beside,
    find_folder,
    has_splits,
    list_files,
    subfolders,
    validates_on_test,
    warn_of_others,
)
from kanets.data.pictures import (
    SUFFIXES,
    PictureError,
    check_fits,
    fit_picture,
)
from kanets.data.records import Record, read
from kanets.data.threads import map_in_threads
from kanets.files import read_text
from kanets.progress import progress

LABELS_FILE = "classes.tsv"
IMAGENET_FILE = Path(__file__).with_name("imagenet_classes.tsv")


def list_classes(root):
    """Returns the names of the classes in `root`, in the order of its folders.

    Raises:
        ValueError: there is no class folder; two of them have one name in two
            spellings; `classes.tsv` is at fault.
    """
    names = list(_class_folders(root))
    if find_beside(root, LABELS_FILE) is not None:
        return names  # Whoever writes it says what is a class of its own.
    spelled = {}
    for name in names:
        other = spelled.setdefault(_spelling(name), name)
        if other != name:
            raise ValueError(
                "The names of class folders must differ in more than case and "
                "spaces: move the pictures into one folder, or name both in "
                f"`class_names` or {LABELS_FILE} if they are two classes. "
                f"Received: {other!r} and {name!r} in {str(root)!r}"
            )
    return names


def list_pictures(root, class_names, *, complete):
    """Lists the pictures of a class-folder tree.

    Pictures lie directly in their class folder. Hidden files are passed
    over; files without a picture's suffix are left out with a warning.

    Args:
        root: Path of the tree.
        class_names: list of str, the order of the labels: names of classes,
            or of their folders where not all of them are labels in
            `classes.tsv`, or ImageNet's of folders that are WordNet ids.
        complete: bool, every class must have a picture (a training set).

    Returns:
        `(paths, labels)`: list of Path and list of int, in class order, then
        by file name.

    Raises:
        ValueError: a folder is not in `class_names`; a class folder holds
            folders or cannot be read; there is no picture; with `complete`,
            a class has none; `classes.tsv` is at fault.
    """
    known = _class_folders(root)
    if not set(known) <= set(class_names):
        known = {folder.name: folder for folder in known.values()}
        names = imagenet_names()
        named = {names.get(name, name): known[name] for name in known}
        if set(named) <= set(class_names):
            known = named
    unknown = sorted(set(known) - set(class_names))
    if unknown:
        spelled = {_spelling(name): name for name in class_names}
        hints = [
            f" (rename {name!r} to {spelled[_spelling(name)]!r})"
            for name in unknown
            if _spelling(name) in spelled
        ]
        raise ValueError(
            "Every class folder must be one of class_names="
            f"{_shortened(class_names)}. Received: {_shortened(unknown)} in "
            f"{str(root)!r}{''.join(hints[:1])}"
        )
    paths, labels, ignored = [], [], []
    for label, name in enumerate(class_names):
        folder = known.get(name, root / name)
        found, others = list_files(folder, SUFFIXES)
        if complete and not found:
            raise ValueError(
                "Every class must have a picture. Received: no picture in "
                f"{str(folder)!r}{_mention(others)}"
            )
        paths += found
        labels += [label] * len(found)
        ignored += others
    if not paths:
        raise ValueError(
            "A picture folder must hold pictures. Received: none in "
            f"{str(root)!r}{_mention(ignored)}"
        )
    warn_of_others(ignored)
    return paths, labels


def read_pictures(paths, image_size, on_error):
    """Decodes every picture once, in parallel, before any training.

    Args:
        paths: list of Path, or of `Record`.
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
    pictures, reasons, sizes = decode_pictures(paths, image_size)
    bad = [
        (str(path), why)
        for path, why in zip(paths, reasons, strict=True)
        if why is not None
    ]
    good = np.array([row for row, why in enumerate(reasons) if why is None])
    stop_or_warn(bad, len(good), on_error)
    if image_size is None:
        check_one_size(paths, good, sizes)
    return pictures, good, bad


def decode_pictures(paths, image_size):
    """Decodes every picture once, in parallel, and judges nothing.

    Args:
        paths: as for `read_pictures`.
        image_size: as for `read_pictures`.

    Returns:
        `(pictures, reasons, sizes)`: pictures as `read_pictures` returns
        them; for each path why it cannot be read, or None, and the height
        and width of the picture, or None.
    """
    size = _first_size(paths) if image_size is None else image_size
    pixels = None  # None beyond the budget: pictures are then only checked.
    if size is not None and len(paths) * size[0] * size[1] * 3 <= MEMORY_BUDGET:
        pixels = np.empty((len(paths), *size, 3), np.uint8)

    def look(row):
        advance(1)
        try:
            image = read(paths[row])
            if pixels is None:
                check_fits(image, image_size)
            elif image_size is not None or image.shape[:2] == size:
                pixels[row] = fit_picture(image, size)
        except PictureError as e:
            return str(e), None
        return None, image.shape[:2]

    with warnings.catch_warnings(), progress(len(paths), "reading") as advance:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        results = map_in_threads(look, range(len(paths)))
    reasons, sizes = zip(*results, strict=True)
    files = [p if isinstance(p, Record) else str(p) for p in paths]
    if pixels is None:
        return FilePictures(files, size), reasons, sizes
    return ArrayPictures(pixels, list(map(str, files))), reasons, sizes


def stop_or_warn(bad, num_good, on_error):
    """Stops at bad files, or warns that they were left out.

    Args:
        bad: list of `(path, reason)`.
        num_good: int, the pictures that are left.
        on_error: `"stop"` or `"skip"`.

    Raises:
        BadPicturesError: there are bad files and `on_error="stop"`, or no
            picture is left.
    """
    if not bad:
        return
    if on_error == "stop" or not num_good:
        raise BadPicturesError(bad)
    warnings.warn(
        f"{len(bad)} file(s) cannot be used and were left out, for example "
        f"{bad[0][0]!r}: {bad[0][1]}. All are listed in `skipped`; "
        f"{num_good} pictures remain.",
        stacklevel=5,
    )


def _first_size(paths):
    for path in paths:
        try:
            return read(path).shape[:2]
        except PictureError:
            continue
    return None


def check_one_size(paths, good, sizes):
    """Checks that the pictures in the rows `good` have one size.

    Raises:
        ValueError: two of them differ; both are named.
    """
    first = good[0]
    for row in good:
        if sizes[row] != sizes[first]:
            raise ValueError(
                "Without `image_size` all pictures must be of one size "
                "(height, width). Received: "
                f"{str(paths[first])!r} is {sizes[first]}, "
                f"{str(paths[row])!r} is {sizes[row]}, image_size=None"
            )


def _check_name(name, root):
    """Raises a ValueError for a name that no file of labels can hold."""
    try:
        name.encode()
        lines = len(name.splitlines())
    except UnicodeEncodeError:
        lines = 0
    if lines != 1:
        raise ValueError(
            "The name of a class folder must be one line of Unicode text. "
            f"Received: {name!r} in {str(root)!r}"
        )


def _class_folders(root):
    """Returns `{name of the class: Path}` in the order of the folders."""
    found = subfolders(root)
    for folder in found:
        _check_name(folder.name, root)
    if not found:
        raise ValueError(
            "A picture folder must hold one folder per class "
            "(`photos/<class>/*.jpg`). Received: a folder without folders, "
            f"source={str(root)!r}"
        )
    if [folder.name for folder in found] == ["images", "labels"]:
        raise ValueError(
            "A folder with images/ and labels/ is read by "
            "kanets.data.load_segmentation: these are no classes. "
            f"Received: source={str(root)!r}"
        )
    file = find_beside(root, LABELS_FILE)
    if file is None:
        return {folder.name: folder for folder in found}
    labels = _read_labels(file)
    missing = [folder.name for folder in found if folder.name not in labels]
    if missing:
        raise ValueError(
            f"Every class folder must have a line in {str(file)!r}. Received: "
            f"none for {_shortened(missing)} in {str(root)!r}"
        )
    named = {labels[folder.name]: folder for folder in found}
    for folder in found:
        other = named[labels[folder.name]]
        if other != folder:
            raise ValueError(
                f"Every class folder must have a label of its own in "
                f"{str(file)!r}. Received: {labels[folder.name]!r} for "
                f"{folder.name!r} and for {other.name!r}"
            )
    return named


def imagenet_names():
    """Returns the names of ImageNet's 1,000 classes by WordNet id, sorted."""
    return _read_labels(IMAGENET_FILE)


def _read_labels(file):
    """Returns `{folder name: label}` of a `classes.tsv`."""
    labels = {}
    lines = read_text(file).splitlines()
    for number, line in enumerate(lines, 1):
        folder, _, label = map(str.strip, line.partition("\t"))
        if line.strip() and (not folder or not label or folder in labels):
            raise ValueError(
                "A line must be a folder, a tab and its label, once for each "
                f"folder. Received: line {number}, {line!r}, of {str(file)!r}"
            )
        labels[folder] = label
    return labels


def _spelling(name):
    """What names have in common that differ in case, spaces or Unicode form."""
    return unicodedata.normalize("NFC", name.casefold()).strip()


def _mention(ignored):
    if not ignored:
        return ""
    return f" ({len(ignored)} other file(s), for example {ignored[0].name!r})"


def _shortened(names):
    names = list(names)
    return str(names) if len(names) <= 20 else f"{str(names[:20])[:-1]}, ...]"
