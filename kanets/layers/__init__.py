"""Keras layers: attention over a grid, the modules of a KANet, resizing."""

from kanets.attention import DenseAttention, KroneckerAttention
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.inverted_residual import (
    AttnModule,
    AttnSkipModule,
    BaseModule,
    BaseSkipModule,
)
from kanets.layers.resize_like import ResizeLike

__all__ = [
    "AttnModule",
    "AttnSkipModule",
    "BaseModule",
    "BaseSkipModule",
    "BatchNormalization",
    "DenseAttention",
    "KroneckerAttention",
    "ResizeLike",
]
