"""Pictures from a folder, arrays or TensorFlow Datasets, ready for `fit()`.

```python
train, validation = kanets.data.load("photos/", image_size=(160, 160))
model.fit(train, validation_data=validation, shuffle=False)
```

Folders and arrays need neither TensorFlow nor TensorFlow Datasets and run on
any Keras backend. Everything that can be wrong with the data is said before
training starts, in one error. Pictures are read and resized by the two rules
of `kanets.data.pictures`.
"""

import math
import os
from pathlib import Path

import numpy as np

from kanets.data import arrays, folders, records, tfds
from kanets.data.arguments import check_arguments, check_validation
from kanets.data.batches import Batches
from kanets.data.sample import SAMPLE, unpack_sample  # noqa: F401


def load(
    source,
    *,
    image_size=None,
    batch_size=32,
    validation=0.1,
    seed=0,
    on_error="stop",
    class_names=None,
):
    """Loads a training and a validation set.

    Args:
        source: one of

            - a folder of class folders, `photos/<class>/*.jpg`; or one with
              `train/` and `val/`, `validation/`, `valid/` or `test/` (the
              first that exists), each a folder of class folders. Pictures lie
              directly in their class folder; names that start with a dot are
              ignored. Where folders are named by ids, `classes.tsv` beside
              them or beside `train/` gives their labels, a line `<folder>`
              TAB `<label>` for each. Names that differ in case alone (`ants/`,
              `Ants/`) are refused, unless that file or `class_names` has both.
            - a pack of such a folder, as `kanets.data.pack` writes it.
            - arrays `(images, labels)`, or a dict with `"train"` and
              optionally `"validation"`, each such a pair. `images` is
              `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)`, uint8 or float in
              0..255; `labels` holds integers, `(N,)` or `(N, 1)`.
            - a TFDS name, `"tfds:cifar10"`; the prefix may be left out where
              no file of that name exists.
        image_size: `(height, width)`; None keeps the size of the pictures,
            which must then all have one.
        batch_size: int, pictures per batch.
        validation: float in [0, 1), the fraction of each class held out when
            the source has no validation set of its own (TFDS without one:
            the last part of `train`); 0 for none.
        seed: non-negative int, of the split and the order.
        on_error: `"stop"` reports unreadable pictures in an error, `"skip"`
            leaves them out, warns and lists them in `skipped`.
        class_names: list of str, the order of the labels. Default: the sorted
            folder names, or in the same order their labels in `classes.tsv`;
            `"0"`, `"1"`, ... for arrays, TFDS's own.

    Returns:
        `(train, validation)`: `Batches`, or `tf.data.Dataset`s for TFDS, with
        the attributes `class_names`, `image_size`, `num_pictures`, `is_test`
        and `skipped` (of the whole source). Validation is None for
        `validation=0` and a source without a validation set.

    Raises:
        BadPicturesError: pictures cannot be read; all are named.
        ValueError: any other fault of the arguments or the data.
    """
    image_size = check_arguments(
        image_size, batch_size, seed, on_error, class_names
    )
    check_validation(validation)
    kind, source = classify(source)
    if kind == "tfds":
        return tfds.load(
            source, image_size, batch_size, validation, seed, class_names
        )
    if kind in ("folder", "pack"):
        found = _list_pack if kind == "pack" else _list_folder
        read = _read(*found(source, class_names), image_size, on_error)
    else:
        read = arrays.read_arrays(source, image_size, class_names)
    pictures, labels, rows, held, class_names, skipped = read
    if held is None and validation:
        rows, held = _split(labels, rows, validation, seed, class_names)
    _check_training(labels[rows], class_names)
    if held is not None and not len(held):
        raise ValueError(
            "A validation set must have a picture that can be read. "
            f"Received: none, {len(skipped)} skipped"
        )
    shared = dict(
        batch_size=batch_size, class_names=class_names, skipped=skipped
    )
    train = Batches(pictures, labels, rows, shuffle=True, seed=seed, **shared)
    if held is None:
        return train, None
    is_test = _validates_on_test(kind, source)
    return train, Batches(pictures, labels, held, is_test=is_test, **shared)


def load_test(
    source,
    *,
    image_size=None,
    batch_size=32,
    split=None,
    class_names=None,
    on_error="stop",
):
    """Loads one set in a fixed order, for evaluation.

    Args:
        source: as for `load`. Of a folder with `train/` and others, or a
            dict, the first of test, val, validation and valid is read.
        image_size: as for `load`.
        batch_size: as for `load`.
        split: str, the subfolder, dict key or TFDS split to read instead.
        class_names: list of str, the order of the labels, such as that of the
            training set; classes without pictures are fine. Default: as for
            `load`, from `train/` where there is one.
        on_error: as for `load`.

    Returns:
        `Batches`, or a `tf.data.Dataset` for TFDS, attributes as for `load`.

    Raises:
        BadPicturesError: pictures cannot be read; all are named.
        ValueError: any other fault, such as a class not in `class_names`.
    """
    image_size = check_arguments(
        image_size, batch_size, 0, on_error, class_names
    )
    kind, source = classify(source)
    if kind == "tfds":
        return tfds.load_test(
            source, image_size, batch_size, split, class_names
        )
    if kind in ("folder", "pack"):
        if kind == "pack":
            index = records.read_index(source)
            class_names = class_names or index["classes"]
            part = records.test_part(index, split, source)
            paths, labels = _list_part(source, index, part, class_names)
        else:
            root, class_names = find_test_folder(source, split, class_names)
            paths, labels = folders.list_pictures(
                root, class_names, complete=False
            )
        pictures, rows, skipped = folders.read_pictures(
            paths, image_size, on_error
        )
        labels = np.array(labels, np.int32)
    else:
        pictures, labels, class_names = arrays.read_test_arrays(
            source, split, image_size, class_names
        )
        rows, skipped = np.arange(len(labels)), []
    return Batches(
        pictures,
        labels,
        rows,
        batch_size=batch_size,
        class_names=class_names,
        skipped=skipped,
    )


def classify(source):
    """What a source is, and the source.

    Returns:
        `("folder", Path)`, `("pack", Path)`, `("arrays", ...)` or
        `("tfds", name)`.
    """
    if isinstance(source, dict | tuple | list):
        return "arrays", source
    if isinstance(source, str) and source.startswith("tfds:"):
        return "tfds", source.removeprefix("tfds:")
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "`source` must be a folder, arrays (images, labels) or a TFDS "
            f"name. Received: source of type {type(source).__name__}"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return "pack" if records.read_index(path) else "folder", path
    if path.exists() or not isinstance(source, str):
        raise ValueError(
            "A `source` that is a path must be a folder that exists. "
            f"Received: source={str(source)!r}"
        )
    return "tfds", source


def _list_folder(root, class_names):
    """`(paths, labels)` of the training set, of the other or None; names."""
    train, held = root, None
    if folders.has_splits(root):
        train = root / "train"
        held = folders.find_folder(root, folders.VALIDATION_FOLDERS)
    names = folders.list_classes(train) if class_names is None else class_names
    listed = folders.list_pictures(train, names, complete=True)
    more = held and folders.list_pictures(held, names, complete=False)
    return listed, more, names


def _list_pack(root, class_names):
    """As `_list_folder`, of a pack."""
    index = records.read_index(root)
    names = index["classes"] if class_names is None else class_names
    train, held = records.training_part(index), records.validation_part(index)
    listed = _list_part(root, index, train, names)
    more = held and _list_part(root, index, held, names)
    return listed, more, names


def _list_part(root, index, part, class_names):
    """`records.list_records`, also of ImageNet's names for its ids."""
    if not set(index["classes"]) <= set(class_names):
        names = folders.imagenet_names()
        names = [names.get(name, name) for name in index["classes"]]
        if set(names) <= set(class_names):
            index = {**index, "classes": names}
    return records.list_records(root, index, part, class_names)


def _read(listed, more, names, image_size, on_error):
    """Reads what is listed; returns what `arrays.read_arrays` does."""
    paths, labels = listed
    num_train = len(paths)
    if more is not None:
        paths, labels = paths + more[0], labels + more[1]
    pictures, good, skipped = folders.read_pictures(paths, image_size, on_error)
    rows, others = good[good < num_train], good[good >= num_train]
    return (
        pictures,
        np.array(labels, np.int32),
        rows,
        None if more is None else others,
        list(names),
        skipped,
    )


def _validates_on_test(kind, source):
    if kind == "pack":
        held = records.validation_part(records.read_index(source))
        return held == folders.TEST
    return kind == "folder" and folders.validates_on_test(source)


def find_test_folder(root, split=None, class_names=None):
    """Returns the class-folder tree to evaluate on, and the class names."""
    found = root
    if split is not None:
        found = folders.find_folder(root, (split,))
    elif folders.has_splits(root):
        found = folders.find_folder(root, folders.TEST_FOLDERS)
    if found is None:
        raise ValueError(
            "A folder to evaluate on must hold the split, or one of test/, "
            "val/, validation/ and valid/ beside train/. Received: "
            f"split={split!r}, source={str(root)!r}"
        )
    if class_names is None:
        splits = folders.has_splits(root)
        class_names = folders.list_classes(root / "train" if splits else found)
    return found, class_names


def _split(labels, rows, validation, seed, class_names):
    """Draws the same fraction of every class, to the nearest picture."""
    rng = np.random.default_rng([seed, 1])
    train, held = [], []
    for label in range(len(class_names)):
        members = rng.permutation(rows[labels[rows] == label])
        count = math.floor(validation * len(members) + 0.5)
        held.append(members[:count])
        train.append(members[count:])
        if len(members) and count == len(members):
            raise ValueError(
                "Every class must keep a training picture after the split. "
                f"Received: {count} picture(s) of class "
                f"{class_names[label]!r}, validation={validation}"
            )
    train, held = np.sort(np.concatenate(train)), np.sort(np.concatenate(held))
    if not len(held):
        raise ValueError(
            "The split must leave a picture to validate on (of more pictures, "
            "or in a folder val/ beside train/; validation=0 is none at all). "
            f"Received: validation={validation} of {len(rows)} pictures"
        )
    return train, held


def _check_training(labels, class_names):
    if len(class_names) < 2:
        raise ValueError(
            "Training needs at least two classes. Received: "
            f"class_names={class_names}"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        missing = [n for n, c in zip(class_names, counts, strict=True) if not c]
        raise ValueError(
            "Every class must have a readable training picture. Received: "
            f"none for {missing[:20]}"
        )
