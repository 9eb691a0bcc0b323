"""Kinds of patterns: which keys each query sees, as structure.

A pattern is no mask, but groups of queries that share a group of keys
(`GroupPattern`), a few summary keys that all queries share
(`SummaryPattern`), or a list of keys for each query (`NeighbourPattern`).
Sparse attention computes with the structure; `.mask()` is for looking and
testing.
"""

import functools
import math

import numpy as np


class Pattern:
    """Which of `num_keys` keys each of `num_queries` queries sees.

    Attributes:
        name: the field's name of it, for pictures and messages.
        query_shape: (n,) or (H, W) of the queries.
        key_shape: (n,) or (H, W) of the keys.
        neighbours: int32 [num_queries, degree], the keys of each query; -1
            where a query has fewer. Sparse attention weights have the same
            layout. Read-only.
    """

    def __init__(self, name, query_shape, key_shape):
        self.name = name
        self.query_shape = query_shape
        self.key_shape = key_shape

    @functools.cached_property
    def neighbours(self):
        neighbours = self._neighbours().astype(np.int32, copy=False)
        neighbours.setflags(write=False)
        return neighbours

    @property
    def num_queries(self):
        return math.prod(self.query_shape)

    @property
    def num_keys(self):
        return math.prod(self.key_shape)

    @property
    def num_edges(self):
        """How many (query, key) pairs the pattern has."""
        return int(np.count_nonzero(self.neighbours >= 0))

    @functools.cached_property
    def has_empty_rows(self):
        """Whether some query sees nothing."""
        return bool(np.any(np.all(self.neighbours < 0, axis=1)))

    def mask(self):
        """The pattern as a bool array [num_queries, num_keys]."""
        mask = np.zeros((self.num_queries, self.num_keys + 1), bool)
        np.put_along_axis(mask, self.neighbours, True, axis=1)  # -1: the last
        return mask[:, :-1]

    def __repr__(self):
        shapes = f"{self.query_shape} x {self.key_shape}"
        return f"<{type(self).__name__} {self.name} {shapes}>"


class GroupPattern(Pattern):
    """Groups of queries, each of which sees within one group of keys.

    Attributes:
        query_groups: int32 [G, P], every query exactly once; -1 is padding.
        key_groups: int32 [G, R]; -1 is padding.
        visible: bool [P, R], what the p-th query of any group sees.
        sees_all: whether that is all of the group's keys. Given None for
            `visible` it is, and `visible` takes no memory.
    """

    def __init__(
        self, name, query_shape, key_shape, query_groups, key_groups, visible
    ):
        self.query_groups = _constant(query_groups, np.int32)
        self.key_groups = _constant(key_groups, np.int32)
        if visible is None:
            shape = (self.query_groups.shape[1], self.key_groups.shape[1])
            self.visible, self.sees_all = np.broadcast_to(True, shape), True
        else:
            self.visible = _constant(visible, bool)
            self.sees_all = bool(np.all(self.visible))
        super().__init__(name, query_shape, key_shape)

    @functools.cached_property
    def has_empty_rows(self):
        present = self.key_groups >= 0
        if self.sees_all:
            sees = present.any(axis=1, keepdims=True)
        else:
            sees = present @ self.visible.T  # of truth values: "any of both"
        return bool(np.any((self.query_groups >= 0) & ~sees))

    def _neighbours(self):
        groups, places = np.divmod(self.query_slots, len(self.visible))
        if not self.sees_all:
            return np.where(self.visible[places], self.key_groups[groups], -1)
        if len(self.key_groups) == 1:  # equal rows, which are stored once
            shape = (self.num_queries, self.key_groups.shape[1])
            return np.broadcast_to(self.key_groups, shape)
        return self.key_groups[groups]

    @functools.cached_property
    def query_slots(self):
        """int32 [num_queries], where in the flat groups each query stands."""
        flat = self.query_groups.ravel()
        slots = np.flatnonzero(flat >= 0)
        return _constant(slots[np.argsort(flat[slots])], np.int32)


class SummaryPattern(Pattern):
    """All queries see the same summary keys, and each one a key of its own.

    Attributes:
        summary: int32 [M], the keys that all queries see, ascending.
        own: int32 [num_queries], the key of the query itself.
    """

    def __init__(self, name, query_shape, key_shape, summary, own):
        self.summary = _constant(summary, np.int32)
        self.own = _constant(own, np.int32)
        super().__init__(name, query_shape, key_shape)

    @functools.cached_property
    def has_empty_rows(self):
        return not self.summary.size and bool(np.any(self.own < 0))

    def _neighbours(self):
        shape = (self.num_queries, len(self.summary))
        shared = np.broadcast_to(self.summary, shape)
        own = np.where(np.isin(self.own, self.summary), -1, self.own)
        return np.concatenate([shared, own[:, None]], axis=1)


class NeighbourPattern(Pattern):
    """A list of keys for each query, which need not have any rule.

    Args:
        neighbours: int array [num_queries, degree], -1 where a query has
            fewer; no key twice in a row.
        query_shape: (n,) or (H, W); default (num_queries,).
        key_shape: (n,) or (H, W); default that of the queries.
        name: for pictures and messages.

    Raises:
        ValueError: a key out of range or twice in a row, or shapes that do
            not fit.
    """

    def __init__(
        self, neighbours, query_shape=None, key_shape=None, name="neighbours"
    ):
        neighbours = np.asarray(neighbours)
        if neighbours.ndim != 2 or neighbours.dtype.kind not in "iu":
            raise ValueError(
                "neighbours must be an integer array [num_queries, degree]. "
                f"Received: shape={neighbours.shape}, dtype={neighbours.dtype}"
            )
        query_shape = grid_shape(
            len(neighbours) if query_shape is None else query_shape
        )
        key_shape = query_shape if key_shape is None else grid_shape(key_shape)
        if math.prod(query_shape) != len(neighbours):
            raise ValueError(
                "neighbours needs a row for each query. Received: "
                f"{len(neighbours)} rows, query_shape={query_shape}"
            )
        low, high = neighbours.min(initial=0), neighbours.max(initial=0)
        if low < -1 or high >= math.prod(key_shape):
            raise ValueError(
                "neighbours must lie in -1..num_keys - 1. Received: values "
                f"{low}..{high}, key_shape={key_shape}"
            )
        ordered = np.sort(neighbours, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if twice.any():
            row = int(np.argmax(twice.any(axis=1)))
            raise ValueError(
                "A query must not have the same key twice. Received: "
                f"neighbours[{row}]={neighbours[row].tolist()}"
            )
        super().__init__(name, query_shape, key_shape)
        self._given = _constant(neighbours, np.int32)

    def _neighbours(self):
        return self._given


def grid_shape(shape):
    """(n,) or (H, W) as a tuple of int; raises for anything else."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    whole = all(isinstance(s, (int, np.integer)) and s >= 1 for s in sizes)
    if not whole or len(sizes) not in (1, 2):
        raise ValueError(
            "A shape is an integer n >= 1 or a grid (height, width). "
            f"Received: {shape!r}"
        )
    return tuple(int(size) for size in sizes)


def _constant(array, dtype):
    array = np.array(array, dtype)
    array.setflags(write=False)
    return array
