"""ylg: two-dimensional local sparse attention, and GANs built on it."""

from ylg import gan, layers, metrics, ops, patterns
from ylg.gan import SAGAN

__all__ = ["SAGAN", "gan", "layers", "metrics", "ops", "patterns"]
