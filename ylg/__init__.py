"""ylg: two-dimensional local sparse attention, and GANs built on it."""

from ylg import (
    gan,
    information_flow,
    layers,
    metrics,
    official,
    ops,
    patterns,
    superconcentrator,
)
from ylg.gan import SAGAN
from ylg.lookahead import Lookahead

__all__ = [
    "SAGAN",
    "Lookahead",
    "gan",
    "information_flow",
    "layers",
    "metrics",
    "official",
    "ops",
    "patterns",
    "superconcentrator",
]
