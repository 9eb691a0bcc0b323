"""Patterns as kernels take them: which rows of queries and keys meet."""

import dataclasses
import functools

import numpy as np

from kanets.attention.core import HIDDEN
from kanets.attention.kernels.calls import tile_of
from kanets.attention.pattern_kinds import GroupPattern, SummaryPattern


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Which rows of queries and keys meet, in groups; -1 is padding.

    One of a pattern is made once, and equal to nothing but itself: programs
    are kept by it.

    Attributes:
        queries: int [G, P], each query once. P is a multiple of its tile.
        keys: int [G, R], or [1, R] for all groups. R likewise.
        first, last: int32 [G, P, 1] or [1, P, 1]; a query sees the keys of
            its group from `first` to before `last`.
        own: None, or int [G, P], a key that the query sees beside them.
        bias: None, or float32 [G, P, 1], added to the score of that key:
            `HIDDEN` where it is one of the group's.
    """

    queries: np.ndarray
    keys: np.ndarray
    first: np.ndarray
    last: np.ndarray
    own: np.ndarray | None = None
    bias: np.ndarray | None = None


@functools.lru_cache(maxsize=256)
def layout_of(pattern):
    """The `Layout` of a pattern, None if it has none."""
    if isinstance(pattern, SummaryPattern):
        own = pattern.own.astype(np.int64)
        summary = tuple(pattern.summary.tolist())
        layout = shared_layout(len(own), summary)
        bias = np.where(np.isin(own, pattern.summary), HIDDEN, 0.0)
        padding = layout.queries < 0
        return dataclasses.replace(
            layout,
            own=np.where(padding, -1, own[layout.queries]),
            bias=bias[layout.queries][..., None].astype(np.float32),
        )
    if not isinstance(pattern, GroupPattern):
        return None
    # One row stands for all where they are equal, and may be n x n.
    visible = _interval(pattern.visible[: 1 if pattern.sees_all else None])
    present = _interval(pattern.key_groups >= 0)
    if visible is None or present is None:
        return None
    first = np.maximum(visible[0], present[0][:, None])
    last = np.minimum(visible[1], present[1][:, None])
    # Whoever sees nothing has no part in where a tile of queries starts.
    nothing = (pattern.query_groups < 0) | (first >= last)
    first = np.where(nothing, pattern.key_groups.shape[1], first)
    last = np.where(nothing, 0, last)
    return Layout(
        _padded(pattern.query_groups, -1),
        _padded(pattern.key_groups, -1),
        _padded(first, 0)[..., None].astype(np.int32),
        _padded(last, 0)[..., None].astype(np.int32),
    )


@functools.lru_cache(maxsize=256)
def shared_layout(queries, keys):
    """All queries see the same keys.

    Gradients of the keys are sums over a group of queries in a kernel, and
    over groups outside; 16 queries for each key make the latter cheap.
    """
    keys = _padded(np.array([keys], np.int64), -1)
    size = -(-min(queries, 16 * keys.shape[1]) // tile_of(queries))
    size *= tile_of(queries)
    groups = np.full(-(-queries // size) * size, -1)
    groups[:queries] = np.arange(queries)
    bound = np.full((1, size, 1), np.count_nonzero(keys >= 0), np.int32)
    return Layout(groups.reshape(-1, size), keys, np.zeros_like(bound), bound)


def _interval(mask):
    """First and end of the one run of True in each row; None if there's more.

    Rows of nothing else get an empty interval.
    """
    counts = mask.sum(axis=1)
    first = np.argmax(mask, axis=1)
    last = np.where(counts > 0, mask.shape[1] - mask[:, ::-1].argmax(1), first)
    return (first, last) if np.all(last - first == counts) else None


def _padded(array, fill):
    """[G, P] with P a multiple of its tile."""
    extra = -array.shape[1] % tile_of(array.shape[1])
    return np.pad(array, ((0, 0), (0, extra)), constant_values=fill)
