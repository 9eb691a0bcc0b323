"""SAGAN and YLG-SAGAN."""

from ylg.gan.discriminator import discriminator
from ylg.gan.generator import generator
from ylg.gan.sagan import SAGAN

__all__ = ["SAGAN", "discriminator", "generator"]
