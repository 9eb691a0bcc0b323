"""Checks of the arguments that all loaders of pictures share."""

import numbers

from kanets.checks import as_integer, is_positive
from kanets.data.pictures import PictureSize


def check_arguments(image_size, batch_size, seed, on_error, class_names):
    """Checks the arguments common to all loaders; returns `image_size`."""
    image_size = check_size("image_size", image_size)
    if not is_positive(batch_size):
        raise ValueError(
            "`batch_size` must be a positive int. "
            f"Received: batch_size={batch_size!r}"
        )
    if as_integer(seed) is None or seed < 0:
        raise ValueError(
            f"`seed` must be a non-negative int. Received: seed={seed!r}"
        )
    if on_error not in ("stop", "skip"):
        raise ValueError(
            "`on_error` must be 'stop' or 'skip'. "
            f"Received: on_error={on_error!r}"
        )
    if class_names is not None and (
        not isinstance(class_names, tuple | list)
        or not all(isinstance(name, str) for name in class_names)
        or len(set(class_names)) != len(class_names)
        or not len(class_names)
    ):
        raise ValueError(
            "`class_names` must be a list of distinct strings. "
            f"Received: class_names={class_names!r}"
        )
    return image_size


def check_size(name, size):
    """Returns `(height, width)`, two positive ints, or None as it is."""
    if size is None:
        return None
    if (
        not isinstance(size, tuple | list)
        or len(size) != 2
        or not all(map(is_positive, size))
    ):
        raise ValueError(
            f"`{name}` must be (height, width), two positive ints, or None. "
            f"Received: {name}={size!r}"
        )
    if isinstance(size, PictureSize):
        return size
    return tuple(map(as_integer, size))


def check_validation(validation):
    """Checks the fraction of a set that is held out."""
    if (
        not isinstance(validation, numbers.Real)
        or isinstance(validation, bool)
        or not 0 <= validation < 1
    ):
        raise ValueError(
            "`validation` must be a fraction in [0, 1). "
            f"Received: validation={validation!r}"
        )
