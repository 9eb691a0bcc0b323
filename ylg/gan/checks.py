"""What the data of a GAN must be: looked at in NumPy, before anything runs."""

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
    """Raises a ValueError for labels outside of 0..num_classes - 1."""
    labels = ops.convert_to_numpy(labels)
    if not labels.size:
        return
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise ValueError(
            "labels must be in 0..num_classes - 1. "
            f"Received: labels in {low}..{high}, num_classes={num_classes}"
        )
