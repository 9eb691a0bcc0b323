"""ylg: two-dimensional local sparse attention, and GANs built on it."""

import kanets.attention  # noqa: F401, before what stands on it
from ylg import (
    gan,
    information_flow,
    inversion,
    layers,
    metrics,
    official,
    ops,
    patterns,
    superconcentrator,
    visualize,
)
from ylg.gan import SAGAN
from ylg.inversion import invert
from ylg.lookahead import Lookahead

__all__ = [
    "SAGAN",
    "Lookahead",
    "gan",
    "information_flow",
    "inversion",
    "invert",
    "layers",
    "metrics",
    "official",
    "ops",
    "patterns",
    "superconcentrator",
    "visualize",
]
