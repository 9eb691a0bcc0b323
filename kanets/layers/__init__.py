"""Keras layers: attention over a grid, and the modules of a KANet."""

from kanets.layers.grid_attention import DenseAttention, KroneckerAttention
from kanets.layers.inverted_residual import (
    AttnModule,
    AttnSkipModule,
    BaseModule,
    BaseSkipModule,
)

__all__ = [
    "AttnModule",
    "AttnSkipModule",
    "BaseModule",
    "BaseSkipModule",
    "DenseAttention",
    "KroneckerAttention",
]
