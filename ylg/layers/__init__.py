"""Keras layers of sparse attention and of the GANs built on it."""

from ylg.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)
from ylg.layers.pattern_attention_2d import (
    LocalSparseAttention2D,
    NonLocalAttention2D,
)
from ylg.layers.spectral_normalization import SpectralNormalization
from ylg.layers.superconcentrator_attention import SuperconcentratorAttention

__all__ = [
    "ConditionalBatchNormalization",
    "LocalSparseAttention2D",
    "NonLocalAttention2D",
    "SpectralNormalization",
    "SuperconcentratorAttention",
]
