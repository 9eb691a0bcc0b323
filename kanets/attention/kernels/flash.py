"""Attention in groups as kernels: the softmax as keys come, tile by tile.

Dao et al., "FlashAttention" (2022), algorithms 1 and 4: the backward pass
computes scores again, from the logarithm of their sum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from kanets.attention.core import HIDDEN
from kanets.attention.kernels.calls import call, power_of_two, traced_once

LOWEST = HIDDEN / 2  # below every score, above what is hidden


def attention(query, key, value, layout, scale):
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
    extra = power_of_two(size) - size
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
    output, normaliser = call(
        functools.partial(_forward_kernel, scale),
        (query, own, bounds),
        (key, value),
        [((*slots, value.shape[3]), value.dtype), ((*slots, 1), jnp.float32)],
    )
    return output, (query, key, value, own, bounds, output, normaliser)


def _attend_backward(scale, saved, gradient):
    own = saved[3]
    *gradients, d_own = traced_once(_gradients, (scale,), *saved, gradient)
    return *gradients, (*d_own, None) if own else (), None


def _gradients(
    query, key, value, own, bounds, output, normaliser, gradient, scale
):
    """Of query, key, value, and of the key and value of one's own."""
    delta = output.astype(jnp.float32) * gradient.astype(jnp.float32)
    delta = jnp.sum(delta, axis=3, keepdims=True)
    queries = (query, bounds, gradient, normaliser, delta)
    d_query, *d_own = call(
        functools.partial(_query_gradient_kernel, scale),
        (queries, own),
        (key, value),
        [(x.shape, x.dtype) for x in (query, *own[:2])],
    )
    # Where groups share keys, each gives a part of their gradients.
    groups, shared = query.shape[1], key.shape[1] < query.shape[1]
    d_key, d_value = call(
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
