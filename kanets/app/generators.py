"""What a page shows of a generator."""

from functools import lru_cache

import numpy as np

from kanets.zoo.gans import load_network
from ylg import gan

SLIDERS = 6  # of the first coordinates of the latent vector
STEPS = 8  # pictures of a walk
WIDTH = 640  # pixels that a picture is enlarged to, at most


@lru_cache(maxsize=2)
def opened(source):
    """The generator of a name or a path."""
    return load_network(source, "generator")


def class_names(source):
    """The classes that can be asked for, or an empty list."""
    generator = opened(source)
    count = gan.num_classes(generator)
    names = getattr(generator, "class_names", None)
    return list(names or map(str, range(count or 0)))


def latent(source, seed):
    """The latent vector (1, size) of a seed, float32."""
    return gan.latents(opened(source).inputs[0].shape[-1], 1, int(seed))


def drawn(source, seed, name=None, moved=()):
    """A picture, uint8 (H, W, 3), of a seed moved along some coordinates."""
    z = latent(source, seed)
    z[0, : len(moved)] += moved
    pictures = gan.draw(opened(source), z, _labels(source, name, 1))
    return _larger(gan.to_pixels(pictures)[0])


def walk(source, first, last, name=None):
    """The way from one seed's picture to another's, side by side."""
    ends = latent(source, first), latent(source, last)
    z = gan.spherical(*ends, STEPS).reshape(STEPS, -1)
    pictures = gan.draw(opened(source), z, _labels(source, name, STEPS))
    return _larger(gan.picture_grid(pictures, STEPS))


def _labels(source, name, count):
    names = class_names(source)
    return np.full(count, names.index(name)) if name in names else None


def _larger(pixels):
    """Enlarged by a whole number, so that pixels stay squares."""
    times = max(1, WIDTH // pixels.shape[1])
    return pixels.repeat(times, axis=0).repeat(times, axis=1)
