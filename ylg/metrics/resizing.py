"""Pictures as the Inception graph of 2015 takes them, NumPy in float32.

Three ways to 299 x 299 are in use, and give three different FIDs (Parmar et
al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR
2022); they have clean-fid's names.

Letters: H W picture.
"""

import numpy as np

from kanets.checks import nearest

RESIZES = ("clean", "legacy_pytorch", "legacy_tensorflow")


def resize(pictures, mode, size=299):
    """Pictures at the size of the Inception graph.

    "clean": Pillow's bicubic on float channels, antialiased, clipped to
    [0, 255] and not rounded; clean-fid's. "legacy_tensorflow": TensorFlow 1's
    bilinear, cell i from i * H / size, no antialiasing; that of the graph
    itself, of TTUR and of torch-fidelity. "legacy_pytorch": bilinear between
    the centres of pixels, no antialiasing; pytorch-fid's.

    Args:
        pictures: array (..., H, W, 3), pixels from 0 to 255, any dtype.
        mode: "clean", "legacy_pytorch" or "legacy_tensorflow".
        size: int, height and width of the result.

    Returns:
        float32 (..., size, size, 3), pixels from 0 to 255.

    Raises:
        ValueError: an unknown mode.

    Cost: O(size·(H + size)·W) for each channel with "clean", O(size²)
    otherwise.

    Example:

    >>> resize(np.full((2, 5, 7, 3), 9, "uint8"), "clean").shape
    (2, 299, 299, 3)
    """
    check_resize(mode)
    along = {
        "clean": _bicubic,
        "legacy_pytorch": _between_centers,
        "legacy_tensorflow": _between_corners,
    }[mode]
    x = np.asarray(pictures, "float32")
    for axis in (-2, -3):  # width first, as the references do
        x = along(x, axis, size)
    return np.clip(x, 0, 255) if mode == "clean" else x


def normalize(pixels, mode):
    """Pixels from 0 to 255 as the net takes them after a `resize`.

    Args:
        pixels: float32 array.
        mode: as of `resize`. (x - 128) / 128, but with "legacy_pytorch"
            x / 127.5 - 1.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: an unknown mode.
    """
    check_resize(mode)
    pixels = np.asarray(pixels, "float32")
    if mode == "legacy_pytorch":
        return 2 * (pixels / 255) - 1
    return (pixels - 128) / 128


def check_resize(mode):
    """Refuses what is no way to resize."""
    if mode not in RESIZES:
        raise ValueError(
            f"A resize must be one of {', '.join(RESIZES)}"
            f"{nearest(str(mode), RESIZES)}. Received: mode={mode!r}"
        )


def _between_corners(x, axis, size):
    scale = np.float32(x.shape[axis] / size)
    return _linear(x, axis, np.arange(size, dtype="float32") * scale)


def _between_centers(x, axis, size):
    scale = np.float32(x.shape[axis] / size)
    half = np.float32(0.5)
    source = (np.arange(size, dtype="float32") + half) * scale - half
    return _linear(x, axis, np.maximum(source, 0))


def _linear(x, axis, source):
    """Values at places of an axis, clamped to its end."""
    low = source.astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (source - low.astype("float32")).reshape(-1, *[1] * (-1 - axis))
    a, b = np.take(x, low, axis), np.take(x, high, axis)
    return a + (b - a) * weight


def _bicubic(x, axis, size):
    """Pillow's: sums in float64, an axis of this size left alone."""
    if x.shape[axis] == size:
        return x
    weights = _bicubic_weights(x.shape[axis], size)
    y = np.tensordot(weights, x.astype("float64"), (1, x.ndim + axis))
    return np.moveaxis(y, 0, axis).astype("float32")


def _bicubic_weights(length, size):
    """Float64 (size, length): what each cell takes of each pixel."""
    scale = length / size
    stretch = max(scale, 1.0)  # antialiased where it shrinks
    weights = np.zeros((size, length))
    for i, center in enumerate((np.arange(size) + 0.5) * scale):
        first = max(0, int(center - 2 * stretch + 0.5))
        last = min(length, int(center + 2 * stretch + 0.5))
        taps = np.arange(first, last)
        values = _cubic((taps + 0.5 - center) / stretch)
        weights[i, first:last] = values / values.sum()
    return weights


def _cubic(x):
    """Keys's kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))
