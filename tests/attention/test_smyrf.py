"""SMYRF against the authors' numbers, and against loops."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention.smyrf import (
    balanced_clusters,
    hash_values,
    smyrf_attention,
)
from tests.attention.references import cases, from_golden
from tests.attention.test_operators import softmax
from tests.backends import dot, few_on_jax, gradient, to_numpy
from tests.layer_checks import random

GOLDEN = Path(__file__).parent.parent / "golden" / "smyrf.npz"
# Queries, keys, cluster size, rounds, heads.
SIZES = [
    (13, 13, 4, 3, 2),
    (7, 5, 2, 2, 1),
    (5, 12, 3, 1, 2),
    (9, 9, 1, 2, 1),
    (1, 1, 4, 2, 1),
    (1, 7, 3, 2, 1),
]


def transformed(query, key):
    """XBOX+: vectors of one length."""
    squares = [(x**2).sum(-1, keepdims=True) for x in (query, key)]
    total = squares[0].max() + squares[1].max()
    extra = [np.sqrt(total - s) for s in squares]
    return (
        np.concatenate([query, 0 * extra[0], extra[0]], -1),
        np.concatenate([key, extra[1], 0 * extra[1]], -1),
    )


def reference(query, key, value, lines, size, num_heads=1, masks=None):
    """Output and weights (B, N, Q, K) in float64, query by query."""
    query, key, value, lines = (
        x.astype("float64") for x in (query, key, value, lines)
    )
    batch, length = query.shape[:2]
    count = -(-key.shape[1] // size)
    output = np.zeros((batch, length, value.shape[-1]))
    scores = np.zeros((batch, num_heads, length, key.shape[1]))
    masks = masks or [np.ones(x.shape[:2], bool) for x in (query, key)]
    for b, head in np.ndindex(batch, num_heads):
        parts = [
            np.split(x[b], num_heads, axis=-1)[head]
            for x in (query, key, value)
        ]
        kept = [np.flatnonzero(mask[b]) for mask in masks]
        hashed = transformed(parts[0][kept[0]], parts[1][kept[1]])
        seen = [[] for _ in range(length)]
        for line in lines.T:
            q, k = (
                kept[i][np.argsort(hashed[i] @ line)].tolist() for i in (0, 1)
            )
            for g in range(count):
                members, keys = (
                    x[g * len(x) // count : (g + 1) * len(x) // count]
                    for x in (q, k)
                )
                for i in members:
                    seen[i] += keys
        for i in range(length):
            if seen[i]:
                weights = softmax(parts[0][i] @ parts[1][seen[i]].T)
                np.add.at(scores[b, head, i], seen[i], weights)
        part = slice(*(np.array([head, head + 1]) * parts[2].shape[-1]))
        output[b, :, part] = scores[b, head] @ parts[2]
    return output, scores


def example(queries, keys, rounds, heads, batch=2):
    return (
        random(batch, queries, 4 * heads, seed=1),
        random(batch, keys, 4 * heads, seed=2),
        random(batch, keys, 3 * heads, seed=3),
        random(6, rounds, seed=4),
    )


@pytest.fixture(scope="module")
def golden():
    [(case, arrays)] = cases(GOLDEN, "_").items()
    return arrays, *from_golden(GOLDEN.name, case, arrays)


def test_golden_output_and_gradients(golden):
    arrays, layer, call = golden
    inputs = [arrays[name] for name in ("queries", "keys", "values")]
    found = to_numpy(call(*inputs))
    np.testing.assert_allclose(found, arrays["output"], atol=1e-5)
    found = gradient(lambda *t: dot(call(*t), arrays["cotangent"]), *inputs)
    for name, ours in zip("qkv", found, strict=True):
        theirs = arrays[f"grad_{name}"]
        # Entries of up to 14: float32 itself gives no more.
        tolerance = 2e-6 * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_golden_hashes_and_clusters(golden):
    arrays, layer, _ = golden
    vectors = [arrays[name][:, None] for name in ("queries", "keys")]
    vectors = [keras.ops.convert_to_tensor(x) for x in vectors]
    found = hash_values(*vectors, layer.hashes)
    for letter, hashes in zip("qk", found, strict=True):
        # Their offset moves all of a round alike.
        ours = to_numpy(hashes)[:, 0].swapaxes(0, 1)
        ours = ours + arrays["beta"][0][:, None, None]
        np.testing.assert_allclose(ours, arrays[f"{letter}_hash"], atol=1e-5)
        clusters = balanced_clusters(hashes, 8)
        order = arrays[f"{letter}_positions"].swapaxes(0, 1).reshape(2, 1, -1)
        np.testing.assert_array_equal(to_numpy(clusters.tokens), order)
        assert clusters.size == 32 and clusters.present is None


@pytest.mark.parametrize(
    ("queries", "keys", "size", "rounds", "heads"), few_on_jax(SIZES)
)
def test_loops(queries, keys, size, rounds, heads):
    inputs = example(queries, keys, rounds, heads)
    output, scores = smyrf_attention(
        *inputs, heads, cluster_size=size, return_attention_scores=True
    )
    expected, weights = reference(*inputs, size, heads)
    np.testing.assert_allclose(to_numpy(output), expected, atol=2e-6)
    np.testing.assert_allclose(to_numpy(scores), weights, atol=2e-6)
    np.testing.assert_allclose(to_numpy(scores).sum(-1), 1, atol=1e-5)


def test_masks():
    """Padding takes no place, is not seen, and changes nothing."""
    *inputs, lines = example(13, 11, 3, 2, batch=3)
    rng = np.random.default_rng(0)
    masks = [rng.uniform(size=(3, n)) > 0.4 for n in (13, 11)]
    masks[0][1], masks[1][1] = True, True
    masks[1][2] = False  # no key at all
    arguments = {"num_heads": 2, "cluster_size": 4}
    output, scores = (
        to_numpy(x)
        for x in smyrf_attention(
            *inputs,
            lines,
            query_mask=masks[0],
            key_mask=masks[1],
            return_attention_scores=True,
            **arguments,
        )
    )
    masks_ = [masks[0][:2], masks[1][:2]]
    expected, weights = reference(*(x[:2] for x in inputs), lines, 4, 2, masks_)
    np.testing.assert_allclose(
        output[:2][masks_[0]], expected[masks_[0]], atol=2e-6
    )
    np.testing.assert_allclose(scores[:2], weights, atol=2e-6)
    assert np.all(output[2] == 0) and np.all(scores[2] == 0)
    noisy = [
        np.where(mask[..., None], x, 1e3)
        for x, mask in zip(inputs, (*masks, masks[1]), strict=True)
    ]
    again = smyrf_attention(
        *noisy, lines, query_mask=masks[0], key_mask=masks[1], **arguments
    )
    np.testing.assert_array_equal(to_numpy(again)[masks[0]], output[masks[0]])


@pytest.mark.parametrize("size", [11, 16])
def test_one_cluster_is_dense(size):
    *inputs, lines = example(7, 11, 3, 2)
    output, scores = smyrf_attention(
        *inputs, lines, 2, "rsqrt", size, return_attention_scores=True
    )
    expected, weights = attention.attention(*inputs, 2, "rsqrt")
    np.testing.assert_allclose(to_numpy(output), to_numpy(expected), atol=1e-6)
    np.testing.assert_allclose(to_numpy(scores), to_numpy(weights), atol=1e-6)


def test_gradients_of_odd_sizes():
    """Those of dense attention over the pairs, as often as they are seen."""
    *inputs, lines = example(13, 10, 2, 1)
    cotangent = random(2, 13, 3, seed=9)
    query, key = inputs[:2]
    _, weights = reference(*inputs, lines, 4)
    dense = softmax(query @ key.swapaxes(1, 2).astype("float64"))
    times = weights[:, 0] / dense  # up to a factor for each query
    times = times / times.max(-1, keepdims=True)
    times = keras.ops.convert_to_tensor(times.astype("float32"))

    def masked(query, key, value):
        logits = keras.ops.matmul(query, keras.ops.swapaxes(key, 1, 2))
        raised = keras.ops.exp(logits) * times
        raised = raised / keras.ops.sum(raised, axis=-1, keepdims=True)
        return dot(keras.ops.matmul(raised, value), cotangent)

    def ours(*tensors):
        return dot(smyrf_attention(*tensors, lines, cluster_size=4), cotangent)

    for found, expected in zip(
        gradient(ours, *inputs), gradient(masked, *inputs), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    """Half inputs, and the reference of what they are rounded to."""
    inputs = [keras.ops.cast(x, dtype) for x in example(13, 10, 2, 2)[:3]]
    rounded = [to_numpy(keras.ops.cast(x, "float32")) for x in inputs]
    lines = random(6, 2, seed=4)
    output = smyrf_attention(*inputs, lines, 2, cluster_size=4)
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    expected, _ = reference(*rounded, lines, 4, 2)
    output = to_numpy(keras.ops.cast(output, "float32"))
    tolerance = 4e-3 if dtype == "float16" else 3e-2
    np.testing.assert_allclose(output, expected, atol=tolerance)


def test_errors():
    x, lines = random(2, 6, 8), random(10, 2)
    with pytest.raises(ValueError, match=r"size of a head \+ 2.*\(10, 2\).*=4"):
        smyrf_attention(x, x, x, lines, num_heads=2)
    with pytest.raises(ValueError, match="cluster_size=0"):
        smyrf_attention(x, x, x, lines, cluster_size=0)
    with pytest.raises(ValueError, match="num_heads=3"):
        smyrf_attention(x, x, x, lines, num_heads=3)
    with pytest.raises(ValueError, match="scale='none'"):
        smyrf_attention(x, x, x, lines, scale="none")
    for name in ("cluster_size", "num_rounds"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            attention.SMYRFAttention(**{name: 0})
