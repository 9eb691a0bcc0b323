"""Numbers of a grid as heat over a photo, which is grey and dark under it."""

import numpy as np
from PIL import Image

from kanets.visualize.sheets import LUMA, resized

_HEAT = np.array(  # from dark to light
    [
        (20, 11, 54),
        (101, 21, 110),
        (187, 55, 84),
        (249, 142, 9),
        (252, 255, 164),
    ]
)


def heated(picture, share):
    """The photo under heat.

    Args:
        picture: uint8 array (H, W, 3).
        share: float array (H, W) of 0..1.

    Returns:
        uint8 array (H, W, 3).
    """
    steps = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(share, steps, c) for c in _HEAT.T], axis=-1)
    grey = (picture @ LUMA)[..., None] * 0.55
    opacity = 0.85 * np.sqrt(share)[..., None]
    pixels = (1 - opacity) * grey + opacity * heat
    return np.round(pixels).astype("uint8")


def smooth(weights, size):
    """Numbers of a grid at every pixel: bilinear, edges clamped.

    Args:
        weights: float array (h, w), of a coarser grid.
        size: (H, W).

    Returns:
        float32 array (H, W).
    """
    image = Image.fromarray(np.ascontiguousarray(weights, "float32"))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def smooth_panel(picture, weights, width):
    """The photo under numbers of a grid, from zero to the largest."""
    share = smooth(weights / max(weights.max(), 1e-12), picture.shape[:2])
    return resized(heated(picture, np.clip(share, 0, 1)), width)
