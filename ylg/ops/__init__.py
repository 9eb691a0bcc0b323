"""Attention over a sparsity pattern."""

import keras  # noqa: F401, before ours: see `ylg.registered`

from kanets.attention.sparse import dense_weights, pattern_attention

__all__ = ["dense_weights", "pattern_attention"]
