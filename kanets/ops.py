"""Moved to `kanets.attention`: importable from here as before."""

from kanets.attention.core import attention
from kanets.attention.dense import dense_attention
from kanets.attention.kronecker import (
    IMPLEMENTATIONS,
    axis_means,
    kao_kv,
    kao_qkv,
    outer_sum,
)

__all__ = [
    "IMPLEMENTATIONS",
    "attention",
    "axis_means",
    "dense_attention",
    "kao_kv",
    "kao_qkv",
    "outer_sum",
]
