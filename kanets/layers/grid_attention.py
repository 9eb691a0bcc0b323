"""Moved to `kanets.attention`: importable from here as before."""

from kanets.attention.dense import DenseAttention
from kanets.attention.kronecker import KroneckerAttention

__all__ = ["DenseAttention", "KroneckerAttention"]
