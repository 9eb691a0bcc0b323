"""SAGAN and YLG-SAGAN."""

from ylg.gan.callbacks import Evaluation, SampleGrid, picture_grid, to_pixels
from ylg.gan.discriminator import discriminator
from ylg.gan.generator import generator
from ylg.gan.sagan import SAGAN
from ylg.gan.sampling import draw, latents, num_classes

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
    "to_pixels",
]
