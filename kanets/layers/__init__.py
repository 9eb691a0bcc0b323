"""Keras layers: attention over a grid, the modules of a KANet and of compact
nets, resizing, tokens of patches, and attention as a residual branch."""

import keras  # noqa: F401, before ours: see `kanets.registered`

from kanets.attention.dense import DenseAttention
from kanets.attention.kronecker import KroneckerAttention
from kanets.layers.attention_branch import residual_attention
from kanets.layers.attention_decoder import AttentionDecoder
from kanets.layers.batch_normalization import BatchNormalization
from kanets.layers.inverted_residual import (
    AttnModule,
    AttnSkipModule,
    BaseModule,
    BaseSkipModule,
)
from kanets.layers.layer_scale import LayerScale
from kanets.layers.normalized_convolution import conv_norm
from kanets.layers.pixel_scale import PixelScale
from kanets.layers.position_embeddings import PositionEmbeddings
from kanets.layers.resize_like import ResizeLike
from kanets.layers.split_tokens import SplitTokens
from kanets.layers.universal_bottleneck import (
    universal_inverted_bottleneck,
)

__all__ = [
    "AttentionDecoder",
    "AttnModule",
    "AttnSkipModule",
    "BaseModule",
    "BaseSkipModule",
    "BatchNormalization",
    "DenseAttention",
    "KroneckerAttention",
    "LayerScale",
    "PixelScale",
    "PositionEmbeddings",
    "ResizeLike",
    "SplitTokens",
    "conv_norm",
    "residual_attention",
    "universal_inverted_bottleneck",
]
