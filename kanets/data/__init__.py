"""Pictures from a folder, arrays or TensorFlow Datasets, ready for `fit()`."""

from kanets.data.batches import (
    BadPicturesError,
    Batches,
    Steps,
    augmented,
    gathered,
)
from kanets.data.loading import load, load_test, unpack_sample

__all__ = [
    "BadPicturesError",
    "Batches",
    "Steps",
    "augmented",
    "gathered",
    "load",
    "load_test",
    "unpack_sample",
]
