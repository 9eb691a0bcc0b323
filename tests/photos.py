"""Pictures that a net can learn in seconds."""

import numpy as np
from PIL import Image


def write_photos(root, train, val, size, suffix, **save):
    """Two classes that differ in colour, `train` and `val` pictures each."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                noise = generator.normal(0, 20, (*size, 3))
                pixels = np.clip(noise + colour, 0, 255).astype("uint8")
                path = folder / f"{index}.{suffix}"
                Image.fromarray(pixels).save(path, **save)
    return root


def write_streets(root, train, val, size):
    """Pictures half blue, half red, and their label maps: 0, 1, a strip of 7.

    The border lies elsewhere in each picture; the strip of label 7 along the
    first column is to be ignored.
    """
    generator = np.random.default_rng(0)
    height, width = size
    for split, count in (("train", train), ("val", val)):
        for name in ("images", "labels"):
            (root / split / name).mkdir(parents=True)
        for index in range(count):
            border = generator.integers(1, height)
            labels = np.zeros(size, np.uint8)
            labels[border:] = 1
            colours = np.array([(40, 40, 200), (200, 40, 40)])[labels]
            pixels = generator.normal(0, 20, (*size, 3)) + colours
            labels[:, 0] = 7
            Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(
                root / split / "images" / f"{index}.png"
            )
            Image.fromarray(labels).save(
                root / split / "labels" / f"{index}.png"
            )
    return root
