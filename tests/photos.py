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
