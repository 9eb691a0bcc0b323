"""Optimizers that Keras does not have."""

from kanets.optimizers.layerwise import (
    LayerwiseAdamW,
    LayerwiseSGD,
    layer_decay_factors,
)
from ylg.lookahead import Lookahead

__all__ = [
    "LayerwiseAdamW",
    "LayerwiseSGD",
    "Lookahead",
    "layer_decay_factors",
]
