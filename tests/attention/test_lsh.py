"""LSH attention against the Reformer's numbers, and against loops."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention.lsh import chunks, lsh_attention, lsh_buckets
from tests.attention.references import cases, from_golden
from tests.attention.test_operators import softmax
from tests.backends import (
    dot,
    few_on_jax,
    gradient,
    to_numpy,
    weight_gradients,
)
from tests.layer_checks import random

GOLDEN = Path(__file__).parent.parent / "golden" / "reformer_hf.npz"
CASES = cases(GOLDEN)
HASHED = [name for name in CASES if "rotations" in CASES[name]]
# Tokens, and what differs from the defaults.
SIZES = [
    (13, {}),
    (13, {"causal": True}),
    (12, {"chunks_before": 2, "chunks_after": 1}),
    (10, {"chunks_before": 0, "causal": True}),
    (5, {"chunks_before": 3}),
    (9, {"num_buckets": [2, 4]}),
    (9, {"chunk_length": 1}),
    (4, {}),
    (1, {}),
    (1, {"causal": True}),
]


def reference(
    x,
    value,
    rotations,
    mask,
    num_buckets=None,
    chunk_length=4,
    chunks_before=1,
    chunks_after=0,
    causal=False,
):
    """Output and weights (B, N, T, T) in float64, token by token."""
    x, value, rotations = (t.astype("float64") for t in (x, value, rotations))
    num_heads, _, rounds, columns = rotations.shape
    factors = num_buckets or [2 * columns]
    batch, length = x.shape[:2]
    output = np.zeros((batch, length, value.shape[-1]))
    scores = np.zeros((batch, num_heads, length, length))
    for b, head in np.ndindex(batch, num_heads):
        queries, values = (
            np.split(t[b], num_heads, axis=-1)[head] for t in (x, value)
        )
        norms = (queries**2).mean(-1, keepdims=True) + 1e-6
        logits = queries @ (queries / np.sqrt(norms * queries.shape[1])).T
        kept = mask[b]
        slots = -(-length // chunk_length) * chunk_length
        line = []
        for r in range(rounds):
            buckets = np.full(slots, np.prod(factors))
            for i in np.flatnonzero(kept):
                buckets[i] = bucket(queries[i] @ rotations[head, :, r], factors)
            line += np.argsort(buckets, kind="stable").tolist()
        cut = np.reshape(line, (-1, chunk_length))
        seen = [[] for _ in range(slots)]
        for g, members in enumerate(cut):
            beside = range(g - chunks_before, g + chunks_after + 1)
            for i in members:
                seen[i] += [j for h in beside for j in cut[h % len(cut)]]
        for i in range(length):
            visible = [
                j
                for j in seen[i]
                if j < length and kept[j] and j != i and not (causal and j > i)
            ] or [i]
            weights = softmax(logits[i, visible])
            np.add.at(scores[b, head, i], visible, weights)
        part = slice(*(np.array([head, head + 1]) * values.shape[-1]))
        output[b, :, part] = scores[b, head] @ values
    return output, scores


def bucket(turned, factors):
    found, step, start = 0, 1, 0
    for factor in factors:
        part = turned[start : start + factor // 2]
        found += step * np.argmax([*part, *-part])
        step, start = step * factor, start + factor // 2
    return found


def example(length, heads=2, rounds=2, columns=3):
    return (
        random(2, length, 4 * heads, seed=1),
        random(2, length, 3 * heads, seed=2),
        random(heads, 4, rounds, columns, seed=3),
    )


@functools.cache
def golden(case):
    return CASES[case], *from_golden(GOLDEN.name, case, CASES[case])


def inputs_of(arrays):
    names = [n for n in ("hidden_states", "mask") if n in arrays]
    return [arrays[name] for name in names]


@pytest.mark.parametrize("case", few_on_jax(CASES))
def test_golden_output_and_gradients(case):
    arrays, layer, call = golden(case)
    x, *mask = inputs_of(arrays)
    expected = arrays.get("output_double", arrays.get("output"))
    # Where the original is in float32, that is the limit.
    found = to_numpy(call(x, *mask))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    [found] = gradient(lambda t: dot(call(t, *mask), arrays["cotangent"]), x)
    expected = arrays["grad_hidden_states"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_golden_gradients_of_weights():
    arrays, layer, call = golden("lsh_r2")
    x, cotangent = arrays["hidden_states"], arrays["cotangent"]
    kernels = [arrays[f"{n}.weight"].T for n in ("query_key", "value")]

    def loss(*kernels):
        query, value = (keras.ops.matmul(x, kernel) for kernel in kernels)
        hashes = arrays["rotations"]
        found = lsh_attention(query, value, hashes, 2, chunk_length=8)
        return dot(found, cotangent)

    found = gradient(loss, *kernels)
    for ours, name in zip(found, ("query_key", "value"), strict=True):
        expected = arrays[f"grad_{name}.weight"].T
        np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("case", few_on_jax(HASHED))
def test_golden_buckets_and_order(case):
    arrays, layer, _ = golden(case)
    x, *mask = inputs_of(arrays)
    heads, size = layer.num_heads, layer.key_dim
    query = x @ arrays["query_key.weight"].T
    query = query.reshape(*x.shape[:2], heads, size).swapaxes(1, 2)
    factors = arrays["num_buckets"].tolist()
    buckets = lsh_buckets(
        keras.ops.convert_to_tensor(query), arrays["rotations"], factors
    )
    last = int(np.prod(factors))
    theirs = arrays["buckets"].copy()
    for r in range(theirs.shape[2]):
        theirs[:, :, r] -= r * (last + len(mask))
    valid = theirs < last if mask else np.ones(theirs.shape, bool)
    np.testing.assert_array_equal(to_numpy(buckets)[valid], theirs[valid])
    found = chunks(buckets, layer.chunk_length, last, *mask)
    np.testing.assert_array_equal(
        to_numpy(found.tokens), arrays["sorted_idx"] % x.shape[1]
    )


def test_a_number_of_buckets_of_numpy():
    layer = attention.make({"name": "lsh", "num_buckets": np.int64(4)})
    assert layer.get_config()["num_buckets"] == 4


def test_golden_through_the_layer():
    """As users call it: padding is zero, and what is not is as it was."""
    arrays, _, _ = golden("lsh_r2_mask")
    x, mask = inputs_of(arrays)
    layer = attention.LSHAttention(
        2 * arrays["rotations"].shape[-1], 8, num_heads=2, projections="qv"
    )
    layer.build(x.shape)
    kernels = (arrays[f"{n}.weight"].T for n in ("query_key", "value"))
    layer.set_weights([arrays["rotations"], *kernels])
    mask = mask.astype(bool)
    found = to_numpy(layer(x, mask=mask))
    expected = arrays["output_double"] * mask[..., None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("length", "changes"), few_on_jax(SIZES), ids=str)
def test_loops(length, changes, padded):
    if padded and length < 9:
        pytest.skip("padding is tested at other sizes")
    inputs = example(length)
    mask = np.ones((2, length), bool)
    if padded:
        mask = np.random.default_rng(0).uniform(size=mask.shape) > 0.3
    arguments = {"chunk_length": 4, **changes}
    output, scores = lsh_attention(
        *inputs,
        num_heads=2,
        key_mask=mask if padded else None,
        return_attention_scores=True,
        **arguments,
    )
    expected, weights = reference(*inputs, mask, **arguments)
    np.testing.assert_allclose(to_numpy(output), expected, atol=2e-6)
    weights = weights * mask[:, None, :, None]
    np.testing.assert_allclose(to_numpy(scores), weights, atol=2e-6)


def test_one_chunk_is_dense_but_for_the_token_itself():
    x, value, rotations = example(7, 1)
    found = lsh_attention(x, value, rotations)
    unit = x / np.sqrt((x**2).sum(-1, keepdims=True) + 4e-6)
    logits = x @ unit.swapaxes(1, 2)
    logits[:, np.arange(7), np.arange(7)] = -1e5
    expected = softmax(logits) @ value
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-6)


def test_gradients_of_odd_sizes():
    """Those of dense attention over the pairs, as often as they are seen."""
    x, value, rotations = example(13, 1)
    cotangent = random(2, 13, 3, seed=9)
    _, weights = reference(x, value, rotations, np.ones((2, 13), bool))

    def logits(x):
        x = keras.ops.convert_to_tensor(x)
        mean = keras.ops.mean(x * x, axis=-1, keepdims=True)
        unit = x * keras.ops.rsqrt(mean + 1e-6) / 2
        return keras.ops.matmul(x, keras.ops.swapaxes(unit, 1, 2))

    times = weights[:, 0] / np.exp(to_numpy(logits(x)))
    times = (times / times.max(-1, keepdims=True)).astype("float32")
    times = keras.ops.convert_to_tensor(times)

    def dense(x, value):
        raised = keras.ops.exp(logits(x)) * times
        raised = raised / keras.ops.sum(raised, axis=-1, keepdims=True)
        return dot(keras.ops.matmul(raised, value), cotangent)

    def ours(x, value):
        found = lsh_attention(x, value, rotations, chunk_length=4)
        return dot(found, cotangent)

    for found, expected in zip(
        gradient(ours, x, value), gradient(dense, x, value), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_causal_layer_sees_nothing_that_comes_later():
    layer = attention.LSHAttention(4, 2, causal=True, projections="qvo", seed=0)
    x = random(1, 3, 4, 8)
    _, scores = layer(x, return_attention_scores=True)
    scores = to_numpy(scores)
    assert np.all(np.triu(scores, 1) == 0) and np.ptp(np.tril(scores)) > 0.1
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    layer.fresh_hashes = False
    gradients = weight_gradients(layer, x, training=True)
    assert len(gradients) == 3
    assert all(np.all(np.isfinite(g)) for g in gradients.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    """Half inputs, and the reference of what they are rounded to."""
    *inputs, rotations = example(13)
    inputs = [keras.ops.cast(x, dtype) for x in inputs]
    rounded = [to_numpy(keras.ops.cast(x, "float32")) for x in inputs]
    output = lsh_attention(*inputs, rotations, 2, chunk_length=4)
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    expected, _ = reference(*rounded, rotations, np.ones((2, 13), bool))
    output = to_numpy(keras.ops.cast(output, "float32"))
    tolerance = 4e-3 if dtype == "float16" else 3e-2
    np.testing.assert_allclose(output, expected, atol=tolerance)


def test_a_zero_vector_has_no_direction():
    x, value, rotations = example(6)
    x[:, 2] = 0
    [found] = gradient(
        lambda t: dot(
            lsh_attention(t, value, rotations, 2, chunk_length=2), value
        ),
        x,
    )
    assert np.all(np.isfinite(found))


def test_errors():
    x, value, rotations = example(6)
    for buckets in (3, 0, [2, 5], [], 2.0, True):
        with pytest.raises(ValueError, match="even integer.*num_buckets="):
            lsh_attention(x, value, rotations, 2, num_buckets=buckets)
        with pytest.raises(ValueError, match="even integer.*num_buckets="):
            attention.LSHAttention(buckets)
    with pytest.raises(ValueError, match=r"\(2, 4, 2, 3\).*num_buckets=\[8\]"):
        lsh_attention(x, value, rotations, 2, num_buckets=8)
    with pytest.raises(ValueError, match="heads=1, size of a head=8"):
        lsh_attention(x, value, rotations)
    with pytest.raises(ValueError, match="chunk_length=0"):
        lsh_attention(x, value, rotations, 2, chunk_length=0)
    for name in ("chunks_before", "chunks_after"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            lsh_attention(x, value, rotations, 2, **{name: -1})
        with pytest.raises(ValueError, match=f"{name}=-1"):
            attention.LSHAttention(**{name: -1})
    with pytest.raises(ValueError, match='letters of "qvo".*"qkvo"|qvo.*qkvo'):
        attention.LSHAttention(projections="qkvo")
    with pytest.raises(ValueError, match='projections="qvo".*key_dim=4'):
        attention.LSHAttention(key_dim=4)


def test_more_than_int32_can_sort_is_refused():
    buckets = keras.ops.zeros((1, 1, 1, 2**17), "int32")
    with pytest.raises(ValueError, match="below .* Received: 16385 of 131072"):
        chunks(buckets, 16, 2**14)
