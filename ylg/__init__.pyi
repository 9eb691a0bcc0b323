# What `ylg` holds, for editors and for `lazy_loader`.

from . import (
    backends,
    gan,
    information_flow,
    inversion,
    layers,
    lookahead,
    metrics,
    official,
    ops,
    patterns,
    superconcentrator,
    visualize,
)
from .gan import SAGAN
from .inversion import invert
from .lookahead import Lookahead

__all__ = [
    "SAGAN",
    "Lookahead",
    "backends",
    "gan",
    "information_flow",
    "inversion",
    "invert",
    "layers",
    "lookahead",
    "metrics",
    "official",
    "ops",
    "patterns",
    "superconcentrator",
    "visualize",
]
