"""Attention within a reach, written as loops, and cases of golden files."""

from pathlib import Path

import numpy as np

from tests.attention.references import from_golden

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(file, case, separator="/"):
    """`from_golden` of a committed file, and the arrays of the case."""
    beginning = case + separator
    with np.load(GOLDEN / file) as stored:
        arrays = {
            key.removeprefix(beginning): stored[key]
            for key in stored
            if key.startswith(beginning)
        }
    return (*from_golden(file, case, arrays), arrays)


def attend_by_loop(
    tokens,
    tables,
    low,
    scale,
    reach,
    span=None,
    ramp=1,
    causal=None,
    mask=None,
):
    """Float64, of heads (B, *grid, N, D): the output and the weights.

    With causal attention keys and values may begin before the queries. `mask`
    is of the keys; tables are (J, D), one an axis, first of offset `low`.
    """
    query, key, value = (np.asarray(t, "float64") for t in tokens)
    batch, *grid, heads, size = query.shape
    keys = key.shape[1:-2]
    past = np.subtract(keys, grid)
    mask = np.ones((batch, *keys), bool) if mask is None else mask
    output = np.zeros((*query.shape[:-1], value.shape[-1]))
    weights = np.zeros((batch, heads, *grid, *keys))
    for b, n, *i in np.ndindex(batch, heads, *grid):
        i = tuple(i)
        offset = np.indices(keys) - np.reshape(past + i, (-1, *[1] * len(i)))
        x = np.abs(offset).max(0) if causal is None else causal - offset[0]
        seen = mask[b] & (x >= 0)
        if reach is not None:
            seen &= x <= reach
        vectors = key[b][..., n, :] + sum(
            table[np.clip(o - low, 0, len(table) - 1)]
            for table, o in zip(tables, offset, strict=True)
        )
        entries = seen * np.exp(scale * vectors @ query[(b, *i, n)])
        if span is not None:
            z = span[n] if span.ndim == 1 else span[(b, *i, n)]
            entries = entries * np.clip((z - x) / ramp + 1, 0, 1)
        weights[(b, n, *i)] = entries / max(entries.sum(), 1e-30)
        output[(b, *i, n)] = np.tensordot(
            weights[(b, n, *i)], value[b][..., n, :], len(i)
        )
    return output, weights
