"""SAGAN and YLG-SAGAN."""

from ylg.gan.callbacks import Evaluation, SampleGrid, picture_grid, to_pixels
from ylg.gan.discriminator import discriminator
from ylg.gan.generator import generator
from ylg.gan.sagan import SAGAN

__all__ = [
    "SAGAN",
    "Evaluation",
    "SampleGrid",
    "discriminator",
    "generator",
    "picture_grid",
    "to_pixels",
]
