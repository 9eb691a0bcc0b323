"""Pictures with a label for every pixel, for semantic segmentation.

```python
train, validation = kanets.data.load_segmentation("camvid/", ignore_label=11)
model.fit(train, validation_data=validation, shuffle=False)
```

A set is a folder with `images/` and `labels/`. A picture and its label map
share the stem: `images/0001.jpg`, `labels/0001.png`. A label map is a PNG of
one channel, 8-bit grey or palette; its raw values are the labels. Pictures
are read and resized as everywhere in `kanets.data`; a label map is cropped to
the same box and sampled at the centres of the new pixels, so that no label is
made that was not there.
"""

import math
from pathlib import Path

import numpy as np

from kanets.checks import as_integer
from kanets.data import folders
from kanets.data.arguments import check_arguments, check_validation
from kanets.data.batches import BadPicturesError, Batches
from kanets.data.label_map_files import (  # noqa: F401
    FileLabelMaps,
    decode_label_maps,
    fit_label_map,
    read_label_map,
    sample_nearest,
)
from kanets.data.pictures import SUFFIXES
from kanets.files import read_text

NAMES_FILE = "classes.txt"


def load_segmentation(
    source,
    *,
    class_names=None,
    ignore_label=None,
    image_size=None,
    batch_size=8,
    validation=0.1,
    seed=0,
    on_error="stop",
):
    """Loads a training and a validation set of pictures and label maps.

    Args:
        source: a folder with `images/` and `labels/`; or one with `train/`
            and `val/`, `validation/`, `valid/` or `test/` (the first that
            exists), each with these two.
        class_names: list of str, at most 256; label `i` is `class_names[i]`.
            Default: the lines of `classes.txt` in `source` or its parent,
            which names given here must repeat where there is one.
        ignore_label: int in 0..255, the label of pixels without a class;
            None if every pixel has one.
        image_size: `(height, width)`; None keeps the size of the pictures,
            which must then all have one.
        batch_size: int, pictures per batch.
        validation: float in [0, 1), the fraction of pictures held out when
            the source has no validation set of its own; 0 for none.
        seed: non-negative int, of the split and the order.
        on_error: `"stop"` reports all faults of files in one error, `"skip"`
            leaves their pictures out, warns and lists them in `skipped`.

    Returns:
        `(train, validation)`: `Batches` of float32 `(B, h, w, 3)` in 0..255
        and int32 `(B, h, w)`, with the attributes `class_names`,
        `ignore_label`, `image_size`, `num_pictures` and `skipped` (of the
        whole source). Validation is None for `validation=0` and a source
        without a validation set.

    Raises:
        BadPicturesError: a file that cannot be read, a picture without label
            map or the reverse, a label map of another size or mode, or with a
            label that is neither a class nor `ignore_label`; all are named.
        ValueError: any other fault of the arguments or the data.
    """
    image_size = check_arguments(
        image_size, batch_size, seed, on_error, class_names
    )
    check_validation(validation)
    root = _folder(source)
    parts = [root]
    if not _is_set(root):
        if not _is_set(root / "train"):
            raise ValueError(
                "`source` must hold images/ and labels/, or train/ with "
                f"these. Received: source={str(root)!r}, which holds "
                f"{sorted(path.name for path in root.iterdir())[:10]}"
            )
        held = folders.find_folder(root, folders.VALIDATION_FOLDERS)
        parts = [root / "train"] + ([] if held is None else [held])
    shared, rows = _read(
        parts, root, class_names, ignore_label, image_size, on_error
    )
    shared["batch_size"] = batch_size
    if len(parts) == 1 and validation:
        rows = _split(rows[0], validation, seed)
    train = Batches(rows=rows[0], shuffle=True, seed=seed, **shared)
    if len(rows) == 1:
        return train, None
    is_test = len(parts) > 1 and parts[1].name == folders.TEST
    return train, Batches(rows=rows[1], is_test=is_test, **shared)


def load_segmentation_test(
    source,
    *,
    class_names=None,
    ignore_label=None,
    image_size=None,
    batch_size=8,
    split=None,
    on_error="stop",
):
    """Loads one set of pictures and label maps in a fixed order.

    Args:
        source: as for `load_segmentation`. Of a folder with `train/` and
            others, the first of test, val, validation and valid is read.
        class_names: as for `load_segmentation`.
        ignore_label: as for `load_segmentation`.
        image_size: as for `load_segmentation`.
        batch_size: as for `load_segmentation`.
        split: str, the subfolder to read instead.
        on_error: as for `load_segmentation`.

    Returns:
        `Batches`, attributes as for `load_segmentation`.

    Raises:
        BadPicturesError: as for `load_segmentation`.
        ValueError: any other fault of the arguments or the data.
    """
    image_size = check_arguments(
        image_size, batch_size, 0, on_error, class_names
    )
    root = _folder(source)
    part = _test_folder(root, split)
    shared, (rows,) = _read(
        [part], root, class_names, ignore_label, image_size, on_error
    )
    return Batches(rows=rows, batch_size=batch_size, **shared)


def find_test_pairs(source):
    """Returns the files that `load_segmentation_test` reads, in its order.

    Args:
        source: as for `load_segmentation`.

    Returns:
        List of pairs `(picture, label map)` of Path; whether they can be
        read is not looked at.
    """
    pairs, _ = _list_pairs(_test_folder(_folder(source)))
    return pairs


def _folder(source):
    root = Path(source).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"`source` must be a folder that exists. Received: source={source}"
        )
    return root


def _test_folder(root, split=None):
    part = root
    if split is not None:
        part = folders.find_folder(root, (split,))
    elif not _is_set(root):
        part = folders.find_folder(root, folders.TEST_FOLDERS)
    if part is None:
        raise ValueError(
            "A folder to evaluate on must hold the split, or images/ and "
            "labels/, or one of test/, val/, validation/ and valid/. Received: "
            f"split={split!r}, source={str(root)!r}"
        )
    return part


def _is_set(folder):
    return (folder / "images").is_dir() or (folder / "labels").is_dir()


def _read(parts, root, class_names, ignore_label, image_size, on_error):
    """Reads and checks the sets in the folders `parts`.

    Returns:
        `(shared, rows)`: the arguments of `Batches` that the sets share, and
        the rows of each set.
    """
    file = folders.find_beside(root, NAMES_FILE)
    if file is not None:
        class_names = _read_names(file, class_names)
    elif class_names is None:
        raise ValueError(
            f"Without `class_names`, {NAMES_FILE} must name the classes, one "
            "on each line, in the source or its parent. Received: "
            f"class_names=None, source={str(root)!r}"
        )
    _check_labels(class_names, ignore_label)
    listed = [_list_pairs(part) for part in parts]
    pairs = [pair for found, _ in listed for pair in found]
    bad = [fault for _, faults in listed for fault in faults]
    if not pairs:
        raise BadPicturesError(bad)
    images, maps = zip(*pairs, strict=True)
    pictures, reasons, sizes = folders.decode_pictures(images, image_size)
    labels, map_reasons = decode_label_maps(
        maps, sizes, pictures, len(class_names), ignore_label
    )
    reasons += map_reasons
    bad += [
        (str(path), why)
        for path, why in zip(images + maps, reasons, strict=True)
        if why is not None
    ]
    fine = np.array([why is None for why in reasons]).reshape(2, -1).all(0)
    folders.stop_or_warn(bad, fine.sum(), on_error)
    if image_size is None:
        folders.check_one_size(images, fine.nonzero()[0], sizes)
    part_of = np.repeat(range(len(parts)), [len(found) for found, _ in listed])
    rows = [(fine & (part_of == n)).nonzero()[0] for n in range(len(parts))]
    for part, members in zip(parts, rows, strict=True):
        if not len(members):
            raise ValueError(
                "Every set must have a picture that can be used. Received: "
                f"none in {str(part)!r}, {len(bad)} files skipped"
            )
    shared = dict(
        pictures=pictures,
        labels=labels,
        class_names=class_names,
        skipped=bad,
        ignore_label=ignore_label,
    )
    return shared, rows


def _read_names(file, class_names):
    lines = read_text(file).strip().splitlines()
    names = [line.strip() for line in lines]
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(
            f"The lines of {NAMES_FILE} must be distinct names. "
            f"Received: {names} in {str(file)!r}"
        )
    if class_names is not None and list(class_names) != names:
        raise ValueError(
            f"`class_names` must be those of {NAMES_FILE}, in its order: they "
            f"say what the labels mean. Received: {class_names}, not "
            f"{names} of {str(file)!r}"
        )
    return names


def _check_labels(class_names, ignore_label):
    if not 2 <= len(class_names) <= 256:
        raise ValueError(
            "Segmentation needs 2 to 256 classes. Received: "
            f"{len(class_names)} class names, {class_names}"
        )
    if ignore_label is not None and as_integer(ignore_label) not in range(256):
        raise ValueError(
            "`ignore_label` must be an int in 0..255, or None. "
            f"Received: ignore_label={ignore_label!r}"
        )


def _list_pairs(folder):
    """Returns pairs `(picture, label map)` and faults `(path, reason)`."""
    for name in ("images", "labels"):
        if not (folder / name).is_dir():
            raise ValueError(
                "A segmentation set must be a folder with images/ and "
                f"labels/. Received: no {name}/ in {str(folder)!r}"
            )
    images, others = folders.list_files(folder / "images", SUFFIXES)
    maps, more = folders.list_files(folder / "labels", (".png",))
    folders.warn_of_others(others + more)
    maps = {path.stem: path for path in maps}
    pairs, faults, seen = [], [], {}
    for path in images:
        if path.stem in seen:
            faults.append((str(path), f"shares {seen[path.stem].name}'s stem"))
        elif path.stem not in maps:
            faults.append((str(path), f"no label map labels/{path.stem}.png"))
        else:
            pairs.append((path, maps[path.stem]))
        seen.setdefault(path.stem, path)
    faults += [
        (str(path), f"no picture images/{stem}.*")
        for stem, path in maps.items()
        if stem not in seen
    ]
    if not pairs and not faults:
        raise ValueError(
            "A segmentation set must hold pictures. Received: none in "
            f"{str(folder)!r}"
        )
    return pairs, faults


def _split(rows, validation, seed):
    """Draws a fraction of the rows, to the nearest picture."""
    order = np.random.default_rng([seed, 1]).permutation(rows)
    count = math.floor(validation * len(rows) + 0.5)
    if not 0 < count < len(rows):
        raise ValueError(
            "The split must leave a picture to train on and one to validate "
            f"on (0 for no validation). Received: validation={validation} of "
            f"{len(rows)} pictures"
        )
    return np.sort(order[count:]), np.sort(order[:count])
