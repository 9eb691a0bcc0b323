"""Keras layers of sparse attention and of the GANs built on it."""

from ylg.layers.pattern_attention_2d import (
    LocalSparseAttention2D,
    NonLocalAttention2D,
)
from ylg.layers.spectral_normalization import SpectralNormalization

__all__ = [
    "LocalSparseAttention2D",
    "NonLocalAttention2D",
    "SpectralNormalization",
]
