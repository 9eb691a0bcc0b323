"""Attention: one file a mechanism, and one table of their names.

Each file holds an operator (a pure function on `keras.ops`), the layer that
owns its weights, and how the layer is drawn (`attention_maps`). All rest on
`core`, all layers on `base`. Nothing else of the package is imported here.

`names()` lists what can be asked for by name, `make` what a name, a dictionary
or a callable stands for, and `implementation` chooses what computes it.
"""

import keras  # noqa: F401, before ours: see `kanets.registered`

from kanets.attention.adaptive_span import (
    AdaptiveSpanAttention,
    trimmed_spans,
)
from kanets.attention.additive import AdditiveAttention, additive_scores
from kanets.attention.axial import AxialAttention, axial_attention
from kanets.attention.axis_gates import (
    CoordinateAttention,
    EfficientLocalAttention,
)
from kanets.attention.blocks import block_levels, block_summaries
from kanets.attention.causal_span import CausalSpanAttention, SegmentMemory
from kanets.attention.channel_gates import (
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    SqueezeExcitation,
    channel_kernel_size,
)
from kanets.attention.context import (
    GlobalContextAttention,
    global_context,
)
from kanets.attention.core import attend, attention
from kanets.attention.cross_covariance import (
    CrossCovarianceAttention,
    cross_covariance_attention,
)
from kanets.attention.dense import DenseAttention, dense_attention
from kanets.attention.efficient_additive import (
    EfficientAdditiveAttention,
    efficient_additive_attention,
)
from kanets.attention.hierarchical import HierarchicalAttention
from kanets.attention.implementations import implementation, why_no_kernel
from kanets.attention.kronecker import KroneckerAttention, kao_kv, kao_qkv
from kanets.attention.linear import LinearAttention, linear_attention
from kanets.attention.local_sparse import (
    LocalSparseAttention2D,
    NonLocalAttention2D,
)
from kanets.attention.lsh import LSHAttention, lsh_attention
from kanets.attention.means import axis_means, outer_sum
from kanets.attention.multi_query import (
    MultiQueryAttention,
    multi_query_attention,
)
from kanets.attention.neighborhood import (
    NeighborhoodAttention,
    neighborhood_attention,
    neighborhood_mask,
)
from kanets.attention.non_local import NonLocalAttention, non_local_attention
from kanets.attention.relative import (
    RelativePositions,
    relative_scores,
    relative_sums,
)
from kanets.attention.separable import SeparableAttention, separable_attention
from kanets.attention.single_head import SingleHeadAttention
from kanets.attention.single_head_modulation import SingleHeadModulation
from kanets.attention.smyrf import SMYRFAttention, smyrf_attention
from kanets.attention.span_operator import adaptive_span_attention, span_mask
from kanets.attention.sparse import dense_weights, pattern_attention
from kanets.attention.spatial_reduction import (
    SpatialReductionAttention,
    adaptive_average_pool,
)
from kanets.attention.superconcentrator_attention import (
    SuperconcentratorAttention,
)
from kanets.attention.table import MECHANISMS, Mechanism, check, make, names
from kanets.attention.windows import WindowAttention, window_attention

__all__ = [
    "AdaptiveSpanAttention",
    "AdditiveAttention",
    "AxialAttention",
    "CausalSpanAttention",
    "ConvolutionalBlockAttention",
    "CoordinateAttention",
    "CrossCovarianceAttention",
    "DenseAttention",
    "EfficientAdditiveAttention",
    "EfficientChannelAttention",
    "EfficientLocalAttention",
    "GlobalContextAttention",
    "HierarchicalAttention",
    "KroneckerAttention",
    "LSHAttention",
    "LinearAttention",
    "LocalSparseAttention2D",
    "MECHANISMS",
    "Mechanism",
    "MultiQueryAttention",
    "NeighborhoodAttention",
    "NonLocalAttention",
    "NonLocalAttention2D",
    "RelativePositions",
    "SMYRFAttention",
    "SegmentMemory",
    "SeparableAttention",
    "SingleHeadAttention",
    "SingleHeadModulation",
    "SpatialReductionAttention",
    "SqueezeExcitation",
    "SuperconcentratorAttention",
    "WindowAttention",
    "adaptive_average_pool",
    "adaptive_span_attention",
    "additive_scores",
    "attend",
    "attention",
    "axial_attention",
    "axis_means",
    "block_levels",
    "block_summaries",
    "channel_kernel_size",
    "check",
    "cross_covariance_attention",
    "dense_attention",
    "dense_weights",
    "efficient_additive_attention",
    "global_context",
    "implementation",
    "kao_kv",
    "kao_qkv",
    "linear_attention",
    "lsh_attention",
    "make",
    "multi_query_attention",
    "names",
    "neighborhood_attention",
    "neighborhood_mask",
    "non_local_attention",
    "outer_sum",
    "pattern_attention",
    "relative_scores",
    "relative_sums",
    "separable_attention",
    "smyrf_attention",
    "span_mask",
    "trimmed_spans",
    "why_no_kernel",
    "window_attention",
]
