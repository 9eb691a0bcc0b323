"""Arrays of pictures and labels -> checked arrays and rows of each set."""

import numpy as np

from kanets.data.batches import ArrayPictures
from kanets.data.listing import TEST_FOLDERS
from kanets.data.pictures import fit_picture

MOST_CLASSES = 1_000_000  # labels beyond are ids of something else


def read_arrays(source, image_size, class_names):
    """Reads the arrays that `kanets.data.load` takes.

    Args:
        source: a pair `(images, labels)`, or a dict of such pairs with
            `"train"` and optionally `"validation"`.
        image_size: `(h, w)`, or None for no resizing.
        class_names: list of str, or None for `"0"`, `"1"`, ...

    Returns:
        `(pictures, labels, rows, held, class_names, skipped)`: the rows of
        the training set and those of the validation set, or None for these.

    Raises:
        ValueError: a fault of the arrays, named with its value.
    """
    if isinstance(source, dict):
        if "train" not in source or set(source) - {"train", "validation"}:
            raise ValueError(
                "A dict `source` must have the key 'train' and may have "
                f"'validation'. Received: keys {sorted(map(str, source))}"
            )
        held = source.get("validation")
        source = source["train"]
    else:
        held = None
    images, labels = _checked(*_pair(source), image_size)
    names, rows = _array_names(labels, class_names), np.arange(len(labels))
    if held is not None:
        more, more_labels = _checked(*_pair(held), image_size)
        if more.shape[1:] != images.shape[1:] or more.dtype != images.dtype:
            raise ValueError(
                "Training and validation pictures must have one shape and "
                f"dtype. Received: {images.shape[1:]} {images.dtype} and "
                f"{more.shape[1:]} {more.dtype}"
            )
        _array_names(more_labels, names)
        images = np.concatenate([images, more])
        labels = np.concatenate([labels, more_labels])
        held = np.arange(len(rows), len(labels))
    return ArrayPictures(images), labels, rows, held, names, []


def read_test_arrays(source, split, image_size, class_names):
    """Reads the arrays that `kanets.data.load_test` takes.

    Args:
        source: a pair `(images, labels)`, or a dict of such pairs.
        split: str, the key of the dict; None for the first of test, val and
            validation.
        image_size: as for `read_arrays`.
        class_names: as for `read_arrays`.

    Returns:
        `(pictures, labels, class_names)`.

    Raises:
        ValueError: a fault of the arrays, named with its value.
    """
    images, labels = _checked(*_test_pair(source, split), image_size)
    class_names = _array_names(labels, class_names)
    return ArrayPictures(images), labels, class_names


def _test_pair(source, split):
    if not isinstance(source, dict):
        if split is not None:
            raise ValueError(
                "`split` needs a folder, a dict or a TFDS name as source. "
                f"Received: split={split!r} with a pair of arrays"
            )
        return _pair(source)
    names = TEST_FOLDERS if split is None else (split,)
    key = next((name for name in names if name in source), None)
    if key is None:
        raise ValueError(
            f"A dict to evaluate on must have one of the keys {names}. "
            f"Received: keys {sorted(map(str, source))}"
        )
    return _pair(source[key])


def _pair(source):
    if not isinstance(source, tuple | list) or len(source) != 2:
        parts = f" of {len(source)} parts" if hasattr(source, "__len__") else ""
        raise ValueError(
            "Arrays must come as a pair (images, labels). Received: "
            f"{type(source).__name__}{parts}"
        )
    return source


def _checked(images, labels, image_size):
    """Returns uint8 or float32 `(N, H, W, 1 or 3)` and int32 `(N,)`."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            "Pictures must have the shape (N, H, W), (N, H, W, 1) or "
            f"(N, H, W, 3). Received: images of shape {images.shape}"
        )
    if images.dtype != np.uint8:
        check_floats(images)
        images = images.astype(np.float32)
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(
            "Labels must be integers of shape (N,), one for each of the "
            f"{len(images)} pictures (not one-hot). Received: labels of "
            f"shape {labels.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers. Received: labels of dtype {labels.dtype}"
        )
    labels = labels.reshape(-1)
    if labels.min() < 0:
        raise ValueError(
            "Labels must not be negative. Received: label "
            f"{labels.min()} at index {labels.argmin()}"
        )
    if labels.max() > MOST_CLASSES:
        raise ValueError(
            f"Labels must count classes from 0, to {MOST_CLASSES:,} at most. "
            f"Received: label {labels.max()} at index {labels.argmax()}"
        )
    if image_size is not None and images.shape[1:3] != image_size:
        images = np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
        images = np.stack([fit_picture(image, image_size) for image in images])
    return images, labels.astype(np.int32)


def check_floats(images):
    """Raises a ValueError unless floats may be pixels from 0 to 255."""
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            "Pictures must be uint8 or floats in 0..255. Received: images of "
            f"dtype {images.dtype}"
        )
    low, high = images.min(), images.max()  # NaN spreads to both.
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "Pictures must be finite. Received: images with "
            f"{int((~np.isfinite(images)).sum())} NaN or infinite values"
        )
    if low < 0 or high > 255 or 0 < high <= 1:
        raise ValueError(
            "Pictures of floats must hold 0..255 (scale them first). "
            f"Received: images from {low} to {high}"
        )


def _array_names(labels, class_names):
    if class_names is None:
        return [str(label) for label in range(labels.max() + 1)]
    if labels.max() >= len(class_names):
        raise ValueError(
            f"Labels must be below the number of classes, {len(class_names)}."
            f" Received: label {labels.max()} at index {labels.argmax()}"
        )
    return list(class_names)
