"""SAGAN and YLG-SAGAN."""

import sys

import keras  # noqa: F401, before ours: see `ylg.registered`

from ylg.gan import discriminator_network, generator_network
from ylg.gan.callbacks import Evaluation, SampleGrid, picture_grid, to_pixels
from ylg.gan.discriminator_network import discriminator
from ylg.gan.generator_network import generator
from ylg.gan.sagan import SAGAN
from ylg.gan.sampling import draw, latents, num_classes, spherical

# `ylg.gan.generator` and `ylg.gan.discriminator` are functions; what were
# modules of these names can still be imported from.
sys.modules[f"{__name__}.generator"] = generator_network
sys.modules[f"{__name__}.discriminator"] = discriminator_network

__all__ = [
    "SAGAN",
    "Evaluation",
    "SampleGrid",
    "discriminator",
    "draw",
    "generator",
    "latents",
    "num_classes",
    "picture_grid",
    "spherical",
    "to_pixels",
]
