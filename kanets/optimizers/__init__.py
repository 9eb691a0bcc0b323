"""Optimizers that Keras does not have."""

import keras  # noqa: F401, before ours: see `kanets.registered`

from kanets.optimizers.layerwise import (
    LayerwiseAdamW,
    LayerwiseSGD,
    layer_decay_factors,
)
from ylg.gan.lookahead import Lookahead

__all__ = [
    "LayerwiseAdamW",
    "LayerwiseSGD",
    "Lookahead",
    "layer_decay_factors",
]
