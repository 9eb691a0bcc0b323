"""Sparsity patterns of attention: which keys each query sees.

A pattern is structure, not a mask: groups of queries that share a group of
keys (`GroupPattern`), a few summary keys that all queries share
(`SummaryPattern`), or a list of keys for each query (`NeighbourPattern`).
`ylg.ops.pattern_attention` computes with the structure; `.mask()` is for
looking and testing.

The functions below make the patterns of "Your Local GAN" (Daras et al., CVPR
2020). Given an integer, they are the one-dimensional patterns of Sparse
Transformers (Child et al., 2019) without their causal mask. Given a grid
(H, W), the cells are Enumerated in order of Manhattan distance from the
corner (0, 0), ties by row; the one-dimensional pattern, Shifted to those
ranks, is Applied to the cells ("ESA", section 3.3). Cells and mask axes are
always in row-major order.

Every pattern has O(n sqrt n) edges for n = H W.

Their defaults are those of `ylg.layers.LocalSparseAttention2D`: "spatial"
alignment, and a summary of an incomplete last block. The patterns of the paper
and of the official code are those of `ylg_heads(..., official=True)`, which is
alignment="tiled" and partial_block=False.
"""

import functools
import math
import sys
import warnings

import numpy as np

ALIGNMENTS = ("tiled", "spatial")


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
        query_shape = _shape(
            len(neighbours) if query_shape is None else query_shape
        )
        key_shape = query_shape if key_shape is None else _shape(key_shape)
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


def esa_order(grid):
    """Cells of a grid in ESA order.

    Args:
        grid: (H, W), or an integer for the order as it is.

    Returns:
        int32 [n]: the row-major index of the cell of each rank.
    """
    shape = _shape(grid)
    if len(shape) == 1:
        return np.arange(shape[0], dtype=np.int32)
    rows, columns = np.divmod(np.arange(math.prod(shape)), shape[1])
    return np.argsort(rows + columns, kind="stable").astype(np.int32)


def left_floor(shape, key_shape=None, *, stride=None, alignment=None):
    """Block-local step, left to right.

    Rank i sees rank j if both are in the same block of `stride` ranks and
    j <= i. The last cell of a block then knows the whole block.

    Args:
        shape: n or (H, W) of the queries.
        key_shape: n or (H, W) of the keys; default that of the queries.
        stride: ranks in a block; default floor(sqrt(num_keys)).
        alignment: the key cell whose row of the pattern a query of a finer
            grid takes. "spatial", the default: the key cell that covers the
            query. "tiled": cell q mod num_keys, as in the official model,
            where neighbouring queries may look at distant keys. That was the
            default; where it gave another pattern, a DeprecationWarning asks
            for one of the two.

    Returns:
        A `GroupPattern`. Equal arguments give the same object.

    Raises:
        ValueError: shapes of different rank, a stride out of range, an
            unknown alignment.
    """
    return _floor("left_floor", shape, key_shape, stride, alignment)


def right_floor(shape, key_shape=None, *, stride=None, alignment=None):
    """Block-local step, right to left: `left_floor` with j >= i."""
    return _floor("right_floor", shape, key_shape, stride, alignment)


def left_repetitive(
    shape,
    key_shape=None,
    *,
    stride=None,
    overlap=1,
    partial_block=None,
    alignment=None,
):
    """Summary step after `left_floor`: the last cells of all blocks, and self.

    Args:
        shape: n or (H, W) of the queries.
        key_shape: n or (H, W) of the keys; default that of the queries.
        stride: ranks in a block; default floor(sqrt(num_keys)).
        overlap: how many cells of each block are summaries.
        partial_block: whether an incomplete last block has summaries, too,
            as it has by default. Officially it has none, and then what it
            holds reaches nobody (`ylg.information_flow` shows it). That was
            the default; a DeprecationWarning as for `alignment`.
        alignment: as in `left_floor`.

    Returns:
        A `SummaryPattern`. Equal arguments give the same object.

    Raises:
        ValueError: as in `left_floor`, or `overlap` not in 1..stride.
    """
    return _repetitive(
        "left_repetitive",
        shape,
        key_shape,
        stride,
        overlap,
        partial_block,
        alignment,
    )


def right_repetitive(
    shape,
    key_shape=None,
    *,
    stride=None,
    overlap=1,
    partial_block=None,
    alignment=None,
):
    """Summary step after `right_floor`: the first cells of all blocks."""
    return _repetitive(
        "right_repetitive",
        shape,
        key_shape,
        stride,
        overlap,
        partial_block,
        alignment,
    )


def strided_window(shape, key_shape=None, *, stride=None, alignment=None):
    """Rank i sees the `stride` ranks j that end with it: 0 <= i - j < stride.

    Arguments, result and errors as in `left_floor`.
    """
    return _strided_window(*_arguments(shape, key_shape, stride, alignment))


def strided_repetitive(shape, key_shape=None, *, stride=None, alignment=None):
    """Rank i sees the ranks j with (i - j) mod stride = 0.

    Arguments, result and errors as in `left_floor`.
    """
    return _strided_repetitive(*_arguments(shape, key_shape, stride, alignment))


def dense(shape, key_shape=None, *, alignment=None):
    """Every query sees every key: O(n^2), the yardstick of the others.

    Args:
        shape, key_shape: as in `left_floor`.
        alignment: as there; it makes no difference here.

    Returns:
        A `GroupPattern` of one group.
    """
    alignment = "spatial" if alignment is None else alignment
    query_shape, key_shape, *_ = _arguments(shape, key_shape, None, alignment)
    return _dense(query_shape, key_shape)


PATTERNS = {
    "dense": dense,
    "left_floor": left_floor,
    "right_floor": right_floor,
    "left_repetitive": left_repetitive,
    "right_repetitive": right_repetitive,
    "strided_window": strided_window,
    "strided_repetitive": strided_repetitive,
}
YLG_HEADS = (
    "right_floor",
    "right_repetitive",
    "right_floor",
    "right_repetitive",
    "left_floor",
    "left_repetitive",
    "left_floor",
    "left_repetitive",
)


def ylg_heads(
    query_grid,
    key_grid=None,
    *,
    partial_block=None,
    alignment=None,
    official=False,
):
    """The patterns of the eight heads of YLG-SAGAN, in their official order.

    Args:
        query_grid: (H, W) of the queries, or n.
        key_grid: (H, W) of the keys, half of it each way in the official
            model; default that of the queries.
        partial_block: as in `left_repetitive`.
        alignment: as in `left_floor`.
        official: what is not given of the two is as in the paper and its
            code, False and "tiled". Ours are the defaults of
            `LocalSparseAttention2D`, True and "spatial".

    Returns:
        List of eight patterns.
    """
    return make_patterns(
        YLG_HEADS,
        query_grid,
        key_grid,
        partial_block=partial_block,
        alignment=alignment,
        official=official,
    )


def make_patterns(
    names,
    query_grid,
    key_grid=None,
    *,
    partial_block=None,
    alignment=None,
    official=False,
):
    """Patterns of a grid from their names.

    Args:
        names: sequence of keys of `PATTERNS`.
        query_grid, key_grid, partial_block, alignment, official: as in
            `ylg_heads`.

    Returns:
        List of patterns.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in PATTERNS]
    if unknown:
        raise ValueError(
            f"patterns must be among {sorted(PATTERNS)}. "
            f"Received: {unknown[0]!r}"
        )
    if official:
        alignment = "tiled" if alignment is None else alignment
        partial_block = False if partial_block is None else partial_block
    patterns = []
    for name in names:
        arguments = {"alignment": alignment}
        if PATTERNS[name] in (left_repetitive, right_repetitive):
            arguments["partial_block"] = partial_block
        patterns.append(PATTERNS[name](query_grid, key_grid, **arguments))
    return patterns


def plot(patterns, path, query=None):
    """Draws patterns side by side: the masks, and what one query sees.

    Args:
        patterns: a pattern or a list of them.
        path: PNG to write.
        query: index of the query whose keys are shown on the key grid, where
            a red dot marks its place; default the one in the middle.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    patterns = [patterns] if isinstance(patterns, Pattern) else list(patterns)
    figure = Figure(figsize=(3 * len(patterns), 6), layout="constrained")
    axes = figure.subplots(2, len(patterns), squeeze=False)
    for above, below, pattern in zip(*axes, patterns, strict=True):
        mask = pattern.mask()
        above.imshow(mask, cmap="Greys", aspect="auto", interpolation="none")
        above.set(title=pattern.name, xlabel="key", ylabel="query")
        shape = pattern.query_shape
        index = _middle(shape) if query is None else query
        sizes = pattern.key_shape if len(shape) == 2 else (1, pattern.num_keys)
        below.imshow(mask[index].reshape(sizes), cmap="Greys", vmin=0, vmax=1)
        # The query's place, from its own grid to that of the keys.
        grid = shape if len(shape) == 2 else (1, *shape)
        place = np.unravel_index(index, grid)
        row, column = (
            (at + 0.5) * keys / queries - 0.5
            for at, keys, queries in zip(place, sizes, grid, strict=True)
        )
        below.plot(column, row, "o", color="red")
        below.set(title=f"keys of query {index}", xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def _floor(name, shape, key_shape, stride, alignment):
    return _cached_floor(name, *_arguments(shape, key_shape, stride, alignment))


def _repetitive(
    name, shape, key_shape, stride, overlap, partial_block, alignment
):
    arguments = _arguments(shape, key_shape, stride, alignment)
    _, key_shape, stride, _ = arguments
    if not isinstance(overlap, int) or not 1 <= overlap <= stride:
        raise ValueError(
            f"overlap must be in 1..stride. Received: overlap={overlap!r}, "
            f"stride={stride}"
        )
    if partial_block is None:
        partial_block = True
        if math.prod(key_shape) % stride:
            _warn_of_default("partial_block", True, False)
    return _cached_repetitive(name, *arguments, overlap, bool(partial_block))


@functools.lru_cache(maxsize=256)
def _cached_floor(name, query_shape, key_shape, stride, alignment):
    blocks = _blocks(esa_order(key_shape), stride)
    groups, copies = _query_groups(query_shape, key_shape, alignment, blocks)
    visible = np.tri(blocks.shape[1], dtype=bool)
    if name == "right_floor":
        visible = visible.T
    visible = np.repeat(visible, copies, axis=0)
    return GroupPattern(name, query_shape, key_shape, groups, blocks, visible)


@functools.lru_cache(maxsize=256)
def _cached_repetitive(
    name, query_shape, key_shape, stride, alignment, overlap, partial_block
):
    order = esa_order(key_shape)
    n = len(order)
    whole = n - n % stride
    block = np.arange(whole).reshape(-1, stride)
    left = name == "left_repetitive"
    ranks = block[:, -overlap:] if left else block[:, :overlap]
    ranks = ranks.ravel()
    if partial_block:
        rest = np.arange(whole, n)
        rest = rest[-overlap:] if left else rest[:overlap]
        ranks = np.concatenate([ranks, rest])
    own = _query_cells(query_shape, key_shape, alignment)
    return SummaryPattern(
        name, query_shape, key_shape, np.sort(order[ranks]), own
    )


@functools.lru_cache(maxsize=256)
def _strided_window(query_shape, key_shape, stride, alignment):
    blocks = _blocks(esa_order(key_shape), stride)
    groups, copies = _query_groups(query_shape, key_shape, alignment, blocks)
    before = np.concatenate([np.full_like(blocks[:1], -1), blocks[:-1]])
    keys = np.concatenate([before, blocks], axis=1)
    distance = np.arange(stride)[:, None] + stride - np.arange(2 * stride)
    visible = np.repeat((distance >= 0) & (distance < stride), copies, axis=0)
    return GroupPattern(
        "strided_window", query_shape, key_shape, groups, keys, visible
    )


@functools.lru_cache(maxsize=256)
def _strided_repetitive(query_shape, key_shape, stride, alignment):
    classes = np.ascontiguousarray(_blocks(esa_order(key_shape), stride).T)
    groups, _ = _query_groups(query_shape, key_shape, alignment, classes)
    return GroupPattern(
        "strided_repetitive", query_shape, key_shape, groups, classes, None
    )


@functools.lru_cache(maxsize=256)
def _dense(query_shape, key_shape):
    queries = np.arange(math.prod(query_shape))[None]
    keys = np.arange(math.prod(key_shape))[None]
    return GroupPattern("dense", query_shape, key_shape, queries, keys, None)


def _blocks(order, size):
    """Consecutive blocks [ceil(n / size), size]; -1 pads the last one."""
    padded = np.full(-(-len(order) // size) * size, -1, np.int32)
    padded[: len(order)] = order
    return padded.reshape(-1, size)


def _query_cells(query_shape, key_shape, alignment):
    """The key cell whose row of the pattern each query takes."""
    if alignment == "tiled":
        return np.arange(math.prod(query_shape)) % math.prod(key_shape)
    along = [
        np.arange(queries) * keys // queries
        for queries, keys in zip(query_shape, key_shape, strict=True)
    ]
    cells = np.meshgrid(*along, indexing="ij")
    return np.ravel_multi_index([c.ravel() for c in cells], key_shape)


def _query_groups(query_shape, key_shape, alignment, key_groups):
    """Queries in the layout of the key groups: `copies` slots for each key."""
    cells = _query_cells(query_shape, key_shape, alignment)
    counts = np.bincount(cells, minlength=math.prod(key_shape))
    copies = counts.max()
    by_cell = np.full((len(counts) + 1, copies), -1, np.int32)
    queries = np.argsort(cells, kind="stable")
    turns = np.arange(len(cells)) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    by_cell[cells[queries], turns] = queries  # the last row is the padding's
    return by_cell[key_groups].reshape(len(key_groups), -1), copies


def _arguments(shape, key_shape, stride, alignment):
    query_shape = _shape(shape)
    key_shape = query_shape if key_shape is None else _shape(key_shape)
    if len(query_shape) != len(key_shape):
        raise ValueError(
            "Queries and keys must both be a sequence or both a grid. "
            f"Received: shape={shape!r}, key_shape={key_shape!r}"
        )
    n = math.prod(key_shape)
    if stride is None:
        stride = math.isqrt(n)
    if not isinstance(stride, int) or not 1 <= stride <= n:
        raise ValueError(
            f"stride must be in 1..{n}, the number of keys. "
            f"Received: stride={stride!r}"
        )
    if alignment is None:
        alignment = "spatial"
        cells = [_query_cells(query_shape, key_shape, a) for a in ALIGNMENTS]
        if not np.array_equal(*cells):
            _warn_of_default("alignment", "spatial", "tiled")
    if alignment not in ALIGNMENTS:
        raise ValueError(
            f"alignment must be one of {ALIGNMENTS}. "
            f"Received: alignment={alignment!r}"
        )
    return query_shape, key_shape, stride, alignment


def _warn_of_default(name, value, former):
    """Where the code stands that left it to a default that has changed."""
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__") == __name__:
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"The default of {name} is {value!r} now, as in "
        f"LocalSparseAttention2D. {name}={former!r} (or official=True, where "
        f"there is that) gives the former pattern, {name}={value!r} this one "
        "without a warning.",
        DeprecationWarning,
        stacklevel=level,
    )


def _shape(shape):
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    whole = all(isinstance(s, (int, np.integer)) and s >= 1 for s in sizes)
    if not whole or len(sizes) not in (1, 2):
        raise ValueError(
            "A shape is an integer n >= 1 or a grid (height, width). "
            f"Received: {shape!r}"
        )
    return tuple(int(size) for size in sizes)


def _middle(shape):
    return int(np.ravel_multi_index([size // 2 for size in shape], shape))


def _constant(array, dtype):
    array = np.array(array, dtype)
    array.setflags(write=False)
    return array
