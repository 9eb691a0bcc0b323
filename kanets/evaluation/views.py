"""What a segmenter sees of a picture in several views of it, on the average.

Other scales, the mirror image, windows that slide over the picture: each
gives probabilities of every pixel, and their mean decides.
"""

import math

import numpy as np
from PIL import Image

from kanets.data.arguments import check_size

PADDING = 127.5  # as in training, `kanets.augment.SegmentationAugmentation`
STEP = 2 / 3  # of a window, to the next one; less where they fill a picture


class Views:
    """How a segmenter looks at pictures; once, as they are, by default.

        p = mean over scales s and mirrored or not m of m'(s'(model(m(s(x)))))

    where s' resizes probabilities to the picture's size, bilinearly, and m'
    mirrors them back. A picture is scaled as in training: antialiased bilinear,
    rounded to 8 bits. With a window the model sees nothing but crops of that
    size, two thirds of one from the next or nearer and evenly laid; where they
    overlap, the mean counts. What is smaller than the window is padded with
    grey at its end.

    Args:
        scales: list of positive numbers; 1 is the picture's own size.
        flip: bool, whether each view counts mirrored, too.
        window: (height, width), or None for whole pictures.

    Raises:
        ValueError: an argument, named.

    Cost: a call of the model for each scale, window and direction.
    """

    def __init__(self, scales=(1.0,), flip=False, window=None):
        fine = isinstance(scales, tuple | list) and len(scales) > 0
        if not fine or not all(_is_scale(scale) for scale in scales):
            raise ValueError(
                "`scales` must be a list of positive numbers. "
                f"Received: scales={scales!r}"
            )
        self.scales = tuple(scales)
        self.flip = flip
        self.window = check_size("window", window)

    @property
    def single(self):
        """Whether it is but one look at the picture as it is."""
        return self.scales == (1.0,) and not self.flip and self.window is None

    def probabilities(self, model, images):
        """Probabilities of the classes of each pixel.

        Args:
            model: function from pixels (B, h, w, 3) to probabilities
                (B, h, w, classes), both float arrays.
            images: array (B, H, W, 3), 0..255.

        Returns:
            float32 array (B, H, W, classes).
        """
        turns = (1, -1) if self.flip else (1,)
        size = images.shape[1:3]
        total = 0.0
        for scale in self.scales:
            seen = _resized(images, [max(1, int(n * scale)) for n in size])
            for turn in turns:
                turned = np.ascontiguousarray(seen[:, :, ::turn])
                found = _resized_maps(self._slide(model, turned), images)
                total = total + found[:, :, ::turn]
        return total / (len(self.scales) * len(turns))

    def _slide(self, model, images):
        """Probabilities of pictures, whole or window by window."""
        if self.window is None:
            return model(images)
        size = images.shape[1:3]
        missing = [
            max(0, n - have) for n, have in zip(self.window, size, strict=True)
        ]
        images = np.pad(
            images,
            [(0, 0), *((0, n) for n in missing), (0, 0)],
            constant_values=PADDING,
        )
        tops, lefts = (
            _starts(have, n)
            for have, n in zip(images.shape[1:3], self.window, strict=True)
        )
        total, count = None, np.zeros((*images.shape[1:3], 1), "float32")
        for top in tops:
            for left in lefts:
                place = np.s_[
                    top : top + self.window[0], left : left + self.window[1]
                ]
                found = model(images[:, *place])
                if total is None:
                    shape = (*images.shape[:3], found.shape[-1])
                    total = np.zeros(shape, "float32")
                total[:, *place] += found
                count[place] += 1
        return (total / count)[:, : size[0], : size[1]]


def _is_scale(scale):
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    return is_number and 0 < scale < math.inf


def _starts(length, window):
    """Where windows begin, the first at 0 and the last at the end."""
    steps = math.ceil((length - window) / max(1, int(window * STEP)))
    return np.rint(np.linspace(0, length - window, steps + 1)).astype(int)


def _resized(images, size):
    if images.shape[1:3] == tuple(size):
        return np.asarray(images, "float32")
    pictures = np.rint(images).astype("uint8")
    return np.stack(
        [
            Image.fromarray(picture).resize(
                size[::-1], Image.Resampling.BILINEAR
            )
            for picture in pictures
        ]
    ).astype("float32")


def _resized_maps(maps, images):
    import keras

    from kanets.layers import ResizeLike

    if maps.shape[1:3] == images.shape[1:3]:
        return maps
    resized = ResizeLike(dtype="float32")([maps, images])
    return keras.ops.convert_to_numpy(resized)
