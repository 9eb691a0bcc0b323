"""ylg: two-dimensional local sparse attention, and GANs built on it."""

from ylg import gan, layers, ops, patterns
from ylg.gan import SAGAN

__all__ = ["SAGAN", "gan", "layers", "ops", "patterns"]
