"""Sparse attention and means of a grid as Pallas kernels, for JAX alone.

On a GPU the kernels are compiled by Triton (JAX 0.11 warns that it will not
keep that backend), on a TPU by Mosaic, and on a CPU they are interpreted,
slowly, for tests. What goes through device memory is inputs, outputs and one
normaliser for each query; scores stay on the chip, in both directions.

Both steps of a sparse pattern are the same kernels. Queries come in groups
[A, G, P, D] for A pictures and heads, keys in groups [A, G, R, D], or one
group that all share; a query sees an interval of its group's keys, and in the
summary step a key of its own, with which the running softmax starts. The
softmax is that of FlashAttention (Dao et al., 2022, algorithms 1 and 4): the
backward pass computes scores again, from the logarithm of their sum.

Precision: products of float16 and bfloat16 accumulate in float32, weights are
rounded to the dtype of the values. Products of float32 are exact to float32,
never TensorFloat-32, which costs speed. The softmax is in float32.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from ylg.ops import xla
from ylg.ops.softmax import HIDDEN
from ylg.patterns import GroupPattern, SummaryPattern

TILE = 64  # queries, and keys, of the scores that a program holds
LOWEST = HIDDEN / 2  # below every score, above what is hidden


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


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Arguments and results as in `ylg.ops.reference.attention`, in float16,
    bfloat16 or float32. Head sizes are padded to powers of two from 16 on.

    `ylg.ops.xla` computes what these kernels do not: a `NeighbourPattern`, a
    `GroupPattern` with queries that see no interval, and weights.

    Cost: O(edges (D + E)) time; O(n (D + E)) memory, where `ylg.ops.xla`
    takes O(edges).

    References: the steps are those of Daras et al., CVPR 2020, section 3; the
    kernels those of Dao et al., NeurIPS 2022 (https://arxiv.org/abs/2205.14135).
    """
    layout = None if return_weights else _layout(pattern)
    if layout is None:
        return xla.attention(query, key, value, pattern, scale, return_weights)
    options = (layout, float(scale))
    return _traced_once(_attention, options, query, key, value), None


def shared_attention(query, key, value, scale=1.0):
    """Attention of all queries over the same few keys.

    Args:
        query: float16, bfloat16 or float32 tensor (B, N, n, D).
        key: tensor (B, N, M, D) of the same dtype.
        value: tensor (B, N, M, E).
        scale: float, factor of the scores.

    Returns:
        (B, N, n, E), dtype of `value`; the softmax is in float32.

    Cost: O(n M (D + E)) time, O((n + M) (D + E)) memory.
    """
    layout = _shared_layout(query.shape[2], tuple(range(key.shape[2])))
    options = (layout, float(scale))
    return _traced_once(_attention, options, query, key, value)


def axis_means(x):
    """Means of the rows and of the columns of a picture, in one pass over it.

    Args:
        x: float16, bfloat16 or float32 tensor (B, H, W, C).

    Returns:
        List of means of rows (B, H, C) and of columns (B, W, C), in the dtype
        of `x`; sums run in float32.

    Cost: one read of x, and a tenth to a fifth of it for partial sums.
    """
    return list(_traced_once(_axis_means, (), x))


def _traced_once(function, options, *arrays):
    """function(*arrays, *options), which an eager call does not trace again.

    The kernels of an eager call would be made and compiled at each call, for
    seconds. Inside another program or a gradient nothing changes.

    Args:
        function: one of this module.
        options: tuple of what is no array, hashable.
        *arrays: arrays, or tuples of them.
    """
    return _run(function, options, _platform(), *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _run(function, options, platform, *arrays):
    del platform  # one more reason to trace again: kernels depend on it
    return function(*arrays, *options)


@functools.lru_cache(maxsize=256)
def _layout(pattern):
    """The `Layout` of a pattern, None if it has none."""
    if isinstance(pattern, SummaryPattern):
        own = pattern.own.astype(np.int64)
        summary = tuple(pattern.summary.tolist())
        layout = _shared_layout(len(own), summary)
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
def _shared_layout(queries, keys):
    """All queries see the same keys.

    Gradients of the keys are sums over a group of queries in a kernel, and
    over groups outside; 16 queries for each key make the latter cheap.
    """
    keys = _padded(np.array([keys], np.int64), -1)
    size = -(-min(queries, 16 * keys.shape[1]) // _tile(queries))
    size *= _tile(queries)
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
    extra = -array.shape[1] % _tile(array.shape[1])
    return np.pad(array, ((0, 0), (0, extra)), constant_values=fill)


def _tile(size):
    """Rows of a tile: a power of two that Triton can multiply."""
    return min(TILE, _power_of_two(size))


def _power_of_two(size):
    return max(16, pl.next_power_of_2(size))


def _attention(query, key, value, layout, scale):
    """Rows into groups, the kernels, and back: (B, N, n, E)."""
    shape = (*query.shape[:3], value.shape[3])
    query, key, value = map(_flat, (query, key, value))
    own = ()
    if layout.own is not None:
        own = _take(key, layout.own), _take(value, layout.own), layout.bias
    output = _attend(
        scale,
        _take(query, layout.queries),
        _take(key, layout.keys),
        _take(value, layout.keys),
        own,
        (layout.first, layout.last),
    )
    output = output.reshape(len(output), -1, output.shape[-1])
    output = _take(output, _places(layout.queries, shape[2])[:, 0])
    return output[..., : shape[3]].reshape(shape)


def _flat(x):
    """(B, N, n, D) -> (B N, n, D padded to what Triton can multiply)."""
    *_, rows, size = x.shape
    x = x.reshape(-1, rows, size)
    extra = _power_of_two(size) - size
    return jnp.pad(x, ((0, 0), (0, 0), (0, extra))) if extra else x


def _take(x, index):
    """x[:, index] and zeros where it is -1: (A, n, D) -> (A, *index, D).

    Its gradient gathers, too: a scatter would need atomics, whose order, and
    with it the sum, is another in each run.
    """
    shape = (len(x), *index.shape, x.shape[2])
    if np.array_equal(index.ravel(), np.arange(x.shape[1])):
        return x.reshape(shape)
    places = _places(index, x.shape[1])

    @jax.custom_vjp
    def take(x):
        return _gather(x, index)

    def backward(_, gradient):
        gradient = gradient.reshape(len(gradient), -1, shape[-1])
        parts = _gather(gradient, places)
        return (jnp.sum(parts, 2, jnp.float32).astype(gradient.dtype),)

    take.defvjp(lambda x: (take(x), None), backward)
    return take(x)


def _gather(x, index):
    index = np.where(index < 0, x.shape[1], index).astype(np.int32)
    return jnp.take(x, index, axis=1, mode="fill", fill_value=0)


def _places(index, size):
    """Where in the flat index each of 0..size - 1 is: [size, copies], or -1."""
    flat = index.ravel()
    slots = np.flatnonzero(flat >= 0)
    slots = slots[np.argsort(flat[slots], kind="stable")]
    counts = np.bincount(flat[slots], minlength=size)
    places = np.full((size, max(1, counts.max())), -1)
    places[np.arange(places.shape[1]) < counts[:, None]] = slots
    return places


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scale, query, key, value, own, bounds):
    """Attention in groups.

    Args:
        scale: float.
        query: (A, G, P, D).
        key, value: (A, G or 1, R, D or E).
        own: (), or key and value (A, G, P, D or E) and `bias` of the `Layout`.
        bounds: `first` and `last` of the `Layout`.

    Returns:
        (A, G, P, E).
    """
    return _attend_forward(scale, query, key, value, own, bounds)[0]


def _attend_forward(scale, query, key, value, own, bounds):
    slots = query.shape[:3]
    output, normaliser = _call(
        functools.partial(_forward_kernel, scale),
        (query, own, bounds),
        (key, value),
        [((*slots, value.shape[3]), value.dtype), ((*slots, 1), jnp.float32)],
    )
    return output, (query, key, value, own, bounds, output, normaliser)


def _attend_backward(scale, saved, gradient):
    own = saved[3]
    *gradients, d_own = _traced_once(_gradients, (scale,), *saved, gradient)
    return *gradients, (*d_own, None) if own else (), None


def _gradients(
    query, key, value, own, bounds, output, normaliser, gradient, scale
):
    """Of query, key, value, and of the key and value of one's own."""
    delta = output.astype(jnp.float32) * gradient.astype(jnp.float32)
    delta = jnp.sum(delta, axis=3, keepdims=True)
    queries = (query, bounds, gradient, normaliser, delta)
    d_query, *d_own = _call(
        functools.partial(_query_gradient_kernel, scale),
        (queries, own),
        (key, value),
        [(x.shape, x.dtype) for x in (query, *own[:2])],
    )
    # Where groups share keys, each gives a part of their gradients.
    groups, shared = query.shape[1], key.shape[1] < query.shape[1]
    d_key, d_value = _call(
        functools.partial(_key_gradient_kernel, scale),
        (key, value),
        queries,
        [
            ((len(x), groups, *x.shape[2:]), jnp.float32 if shared else x.dtype)
            for x in (key, value)
        ],
    )
    if shared:
        d_key = jnp.sum(d_key, axis=1, keepdims=True).astype(key.dtype)
        d_value = jnp.sum(d_value, axis=1, keepdims=True).astype(value.dtype)
    return d_query, d_key, d_value, d_own


_attend.defvjp(_attend_forward, _attend_backward)


def _forward_kernel(scale, tile, tiled, whole, output, normaliser):
    """Softmax over tiles of keys, as they come."""
    (query, own, bounds), (key, value) = tiled, whole
    query, bounds = query[...], _read(bounds)

    def step(index, state):
        largest, total, output = state
        at, scores = _scores(query, key, bounds, index, tile, scale)
        new = jnp.maximum(largest, jnp.max(scores, axis=1, keepdims=True))
        weights, shrink = jnp.exp(scores - new), jnp.exp(largest - new)
        total = total * shrink + jnp.sum(weights, axis=1, keepdims=True)
        output = output * shrink + _dot(weights.astype(value.dtype), value[at])
        return new, total, output

    if own:
        own_score, own_value = _own_score(query, own, scale), own[1][...]
        largest = jnp.maximum(own_score, LOWEST)
        total = jnp.exp(own_score - largest)
        start = largest, total, total * own_value.astype(jnp.float32)
    else:
        column = jnp.zeros(normaliser.shape, jnp.float32)
        start = column + LOWEST, column, jnp.zeros(output.shape, jnp.float32)
    largest, total, result = lax.fori_loop(*_tiles(bounds, tile), step, start)
    seen = total > 0  # a query that sees nothing gets zeros
    total = jnp.where(seen, total, 1.0)
    output[...] = (result / total).astype(output.dtype)
    normaliser[...] = jnp.where(seen, largest + jnp.log(total), 0.0)


def _query_gradient_kernel(scale, tile, tiled, whole, d_query, *d_own):
    """Over tiles of keys, of which scores and weights are computed again."""
    (queries, own), (key, value) = tiled, whole
    query, bounds, gradient, normaliser, delta = _read(queries)

    def step(index, total):
        at, scores = _scores(query, key, bounds, index, tile, scale)
        weights = jnp.exp(scores - normaliser)
        d_scores = weights * (_dot(gradient, value[at], (1, 1)) - delta)
        return total + _dot(d_scores.astype(key.dtype), key[at])

    total = jnp.zeros(d_query.shape, jnp.float32)
    total = lax.fori_loop(*_tiles(bounds, tile), step, total)
    if own:
        own_key, own_value = _read(own[:2], jnp.float32)
        weights = jnp.exp(_own_score(query, own, scale) - normaliser)
        d_weights = jnp.sum(gradient * own_value, axis=1, keepdims=True)
        d_scores = weights * (d_weights - delta)
        total += d_scores * own_key
        d_own[0][...] = (d_scores * scale * query).astype(d_own[0].dtype)
        d_own[1][...] = (weights * gradient).astype(d_own[1].dtype)
    d_query[...] = (total * scale).astype(d_query.dtype)


def _key_gradient_kernel(scale, tile, tiled, queries, d_key, d_value):
    """Over tiles of queries: gradients of one tile of keys and values."""
    key, value = _read(tiled)
    columns = pl.program_id(0) * len(key)

    def step(index, totals):
        at = pl.ds(pl.multiple_of(index * tile, tile), tile)
        query, bounds, gradient, normaliser, delta = _read(queries, at=at)
        scores = _dot(query, key, (1, 1)) * scale
        scores = _hidden(scores, bounds, columns)
        weights = jnp.exp(scores - normaliser)
        d_scores = weights * (_dot(gradient, value, (1, 1)) - delta)
        return (
            totals[0] + _dot(d_scores.astype(query.dtype), query, (0, 0)),
            totals[1] + _dot(weights.astype(gradient.dtype), gradient, (0, 0)),
        )

    totals = [jnp.zeros(x.shape, jnp.float32) for x in (key, value)]
    steps = queries[0].shape[0] // tile
    totals = lax.fori_loop(0, steps, step, tuple(totals))
    d_key[...] = (totals[0] * scale).astype(d_key.dtype)
    d_value[...] = totals[1].astype(d_value.dtype)


def _read(refs, dtype=None, at=...):
    """Arrays, or tiles of their rows, in the structure of the references."""
    arrays = jax.tree.map(lambda ref: ref[at], refs)
    if dtype is None:
        return arrays
    return jax.tree.map(lambda array: array.astype(dtype), arrays)


def _tiles(bounds, tile):
    """The tiles of keys that some of the queries see."""
    first, last = bounds
    last = jnp.max(last) + (tile - 1)
    return lax.div(jnp.min(first), tile), lax.div(last, tile)


def _scores(query, key, bounds, index, tile, scale):
    """A tile of keys: where it is, and its scores."""
    start = pl.multiple_of(index * tile, tile)
    at = pl.ds(start, tile)
    scores = _dot(query, key[at], (1, 1)) * scale
    return at, _hidden(scores, bounds, start)


def _hidden(scores, bounds, start):
    """`HIDDEN` where a query does not see a key."""
    first, last = bounds
    column = start + lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jnp.where((column >= first) & (column < last), scores, HIDDEN)


def _own_score(query, own, scale):
    key, _, bias = own
    products = query.astype(jnp.float32) * key[...].astype(jnp.float32)
    return jnp.sum(products, axis=1, keepdims=True) * scale + bias[...]


def _dot(left, right, axes=(1, 0)):
    """Matrix product over one axis of each, summed in float32."""
    exact = left.dtype == jnp.float32
    return lax.dot_general(
        left,
        right,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


@jax.custom_vjp
def _axis_means(x):
    batch, height, width, channels = x.shape
    rows, columns = _divisor(height, 32), _divisor(width, 64)
    # A power of two that divides the channels and keeps a tile in registers.
    depth = min(channels & -channels, max(8192 // columns, 1))
    depth = 1 << depth.bit_length() - 1
    if _platform() == "tpu" and depth % 128:
        depth = channels
    sums = _pallas_call(
        _sums_kernel,
        (channels // depth, width // columns, height // rows, batch),
        [
            pl.BlockSpec(
                (None, rows, columns, depth), lambda c, w, h, b: (b, h, w, c)
            )
        ],
        [
            pl.BlockSpec(
                (None, None, rows, depth), lambda c, w, h, b: (b, w, h, c)
            ),
            pl.BlockSpec(
                (None, None, columns, depth), lambda c, w, h, b: (b, h, w, c)
            ),
        ],
        [
            jax.ShapeDtypeStruct(shape, jnp.float32)
            for shape in (
                (batch, width // columns, height, channels),
                (batch, height // rows, width, channels),
            )
        ],
    )(x)
    return tuple(
        (jnp.sum(part, axis=1) / size).astype(x.dtype)
        for part, size in zip(sums, (width, height), strict=True)
    )


def _axis_means_forward(x):
    return _axis_means(x), None


def _axis_means_backward(_, gradients):
    rows, columns = (g.astype(jnp.float32) for g in gradients)
    rows, columns = rows / columns.shape[1], columns / rows.shape[1]
    total = rows[:, :, None] + columns[:, None]
    return (total.astype(gradients[0].dtype),)


_axis_means.defvjp(_axis_means_forward, _axis_means_backward)


def _sums_kernel(x, row_sums, column_sums):
    """Sums of a tile along both of its axes, a row of it at a time."""
    rows, columns, depth = x.shape
    # One or two powers of two, overlapping, cover a row.
    width = 1 << columns.bit_length() - 1
    starts = (0,) if width == columns else (0, columns - width)

    def step(row, totals):
        parts = [
            x[row, pl.ds(start, width), :].astype(jnp.float32)
            for start in starts
        ]
        totals = tuple(t + p for t, p in zip(totals, parts, strict=True))
        if len(parts) == 2:  # what the first has, too, counts once
            place = lax.broadcasted_iota(jnp.int32, parts[1].shape, 0)
            parts[1] = jnp.where(place < 2 * width - columns, 0.0, parts[1])
        parts = [jnp.sum(part, axis=0, keepdims=True) for part in parts]
        row_sums[pl.ds(row, 1), :] = sum(parts)
        return totals

    totals = tuple(jnp.zeros((width, depth), jnp.float32) for _ in starts)
    totals = lax.fori_loop(0, rows, step, totals)
    for start, total in zip(starts, totals, strict=True):
        column_sums[pl.ds(start, width), :] = total


def _divisor(size, limit):
    """The largest divisor up to `limit` that TPUs take, or `size` itself."""
    fitting = [d for d in range(8, limit + 1, 8) if size % d == 0]
    return size if size <= limit or not fitting else max(fitting)


def _call(kernel, tiled, whole, outputs):
    """Runs a program for each tile of rows of each group, picture and head.

    `kernel(tile, tiled, whole, *outputs)` gets a tile of the rows of what is
    in `tiled`, all rows that its group has of what is in `whole`, to read by
    tiles of so many rows, and its tile of the outputs, which are given as
    shapes and dtypes.
    """
    outputs = [jax.ShapeDtypeStruct(*output) for output in outputs]
    (batch, groups, rows, _), inner = outputs[0].shape, whole[0].shape[-2]
    # Products of long rows, and exact ones, take more registers.
    arrays = [x for x in jax.tree.leaves((tiled, whole)) if x.shape[-1] > 1]
    size = max(x.shape[-1] for x in arrays)
    is_large = size > 128 or any(x.dtype == jnp.float32 for x in arrays)
    largest = TILE // 2 if is_large else TILE
    tile, inner = min(_tile(rows), largest), min(_tile(inner), largest)
    of_tile = functools.partial(_block, rows=tile)
    return _pallas_call(
        functools.partial(kernel, inner),
        (rows // tile, groups, batch),
        [jax.tree.map(of_tile, tiled), jax.tree.map(_block, whole)],
        [of_tile(output) for output in outputs],
        outputs,
        num_warps=8 if is_large or size > 64 else 4,
    )(tiled, whole)


def _block(x, rows=None):
    """What a program of `_call` sees of ([A,] G or 1, P, D)."""
    groups, all_rows, size = x.shape[-3:]

    def place(tile, group, batch):
        inner = (group if groups > 1 else 0, 0 if rows is None else tile, 0)
        return (batch, *inner) if len(x.shape) == 4 else inner

    outer = (None,) * (len(x.shape) - 2)
    return pl.BlockSpec(
        (*outer, all_rows if rows is None else rows, size), place
    )


def _pallas_call(kernel, grid, inputs, results, shapes, num_warps=4):
    """`pl.pallas_call` for the platform at hand."""
    platform = _platform()
    options = None
    if platform not in ("cpu", "tpu"):
        from jax.experimental.pallas import triton

        options = triton.CompilerParams(num_warps=num_warps, num_stages=2)
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=inputs,
        out_specs=results,
        out_shape=shapes,
        compiler_params=options,
        interpret=platform == "cpu",
    )


def _platform():
    return jax.default_backend()
