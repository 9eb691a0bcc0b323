"""Keras layers of sparse attention and of the GANs built on it."""

import keras  # noqa: F401, before ours: see `ylg.registered`

from kanets.attention.local_sparse import (
    LocalSparseAttention2D,
    NonLocalAttention2D,
)
from kanets.attention.spectral_normalization import SpectralNormalization
from kanets.attention.superconcentrator_attention import (
    SuperconcentratorAttention,
)
from ylg.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)
from ylg.layers.gated_attention import GatedAttention

__all__ = [
    "ConditionalBatchNormalization",
    "GatedAttention",
    "LocalSparseAttention2D",
    "NonLocalAttention2D",
    "SpectralNormalization",
    "SuperconcentratorAttention",
]
