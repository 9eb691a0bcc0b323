"""Attention over a sparsity pattern."""

from ylg.ops.attention import dense_weights, pattern_attention

__all__ = ["dense_weights", "pattern_attention"]
