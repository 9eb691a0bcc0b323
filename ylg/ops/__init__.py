"""Attention over a sparsity pattern."""

from kanets.attention.sparse import dense_weights, pattern_attention

__all__ = ["dense_weights", "pattern_attention"]
