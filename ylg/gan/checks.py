"""What the data of a GAN must be: looked at in NumPy, before anything runs."""

import numpy as np
from keras import ops


def check_pixels(images):
    """Raises a ValueError for pictures that are not of pixels in 0..255.

    Of pixels in 0..1 all would be as good as black; pictures that are black,
    with nothing above 0, are none of those.
    """
    images = ops.convert_to_numpy(images)
    if not images.size:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255) or 0 < high <= 1:  # nor what is no number
        raise ValueError(
            "Pictures must have pixels in 0..255, which the GAN scales itself. "
            f"Received: pixels in {low:g}..{high:g}"
        )


def check_labels(labels, num_classes):
    """The labels, int32 (n,).

    Args:
        labels: integers (n,) or (n, 1), of any dtype of numbers.
        num_classes: int.

    Raises:
        ValueError: other values or shapes, labels outside of
            0..num_classes - 1.
    """
    labels = ops.convert_to_numpy(labels)
    shapes = ((labels.size,), (labels.size, 1))
    are_whole = labels.dtype.kind in "iuf" and np.all(
        np.floor(labels) == labels
    )
    if not are_whole or labels.shape not in shapes:
        raise ValueError(
            "labels must be integers (n,) or (n, 1). Received: labels of dtype "
            f"{labels.dtype}, shape {labels.shape}: {labels.ravel()[:3]}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            "labels must be in 0..num_classes - 1. Received: labels in "
            f"{labels.min()}..{labels.max()}, num_classes={num_classes}"
        )
    return labels.reshape(-1).astype("int32")
