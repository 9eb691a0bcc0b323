"""Kronecker operators against the formula, the paper's and others' code."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import ops
from tests.backends import BACKEND, compiled, dot, gradient, to_numpy

GOLDEN = Path(__file__).parent.parent / "golden"
GRIDS = [(5, 7), (1, 11), (7, 1), (1, 1), (13,), (3, 5, 2)]
OPERATORS = {"kv": ops.kao_kv, "qkv": ops.kao_qkv, "dense": ops.dense_attention}


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def means_by_loop(x):
    """Tokens (B, T, C) axis by axis, one slice at a time."""
    tokens = []
    for axis in range(1, x.ndim - 1):
        for index in range(x.shape[axis]):
            piece = np.take(x, index, axis=axis)
            piece = piece.reshape(len(x), -1, x.shape[-1])
            tokens.append(piece.mean(1))
    return np.stack(tokens, axis=1)


def attend_by_loop(query, key, value, num_heads, scale):
    output = np.zeros((*query.shape[:2], value.shape[-1]))
    size, value_size = (t.shape[-1] // num_heads for t in (query, value))
    for b in range(len(query)):
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            value_part = slice(head * value_size, (head + 1) * value_size)
            weights = softmax(scale * query[b, :, part] @ key[b, :, part].T)
            output[b, :, value_part] = weights @ value[b, :, value_part]
    return output


def reference(kind, x, num_heads=1, scale=1.0):
    """The operators in float64, written as the paper writes them."""
    x = x.astype("float64")
    flat = x.reshape(len(x), -1, x.shape[-1])
    if kind == "dense":
        return attend_by_loop(flat, flat, flat, num_heads, scale).reshape(
            x.shape
        )
    tokens = means_by_loop(x)
    if kind == "kv":
        output = attend_by_loop(flat, tokens, tokens, num_heads, scale)
        return output.reshape(x.shape)
    found = attend_by_loop(tokens, tokens, tokens, num_heads, scale)
    output = np.zeros_like(x)
    for cell in np.ndindex(x.shape[1:-1]):
        start = 0
        for axis, index in enumerate(cell):
            output[(slice(None), *cell)] += found[:, start + index]
            start += x.shape[1 + axis]
    return output


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("kind", OPERATORS)
def test_equals_the_formula_written_as_loops(kind, num_heads, grid):
    x = random(2, *grid, 6)
    actual = OPERATORS[kind](x, num_heads=num_heads, scale=0.5)
    expected = reference(kind, x, num_heads, 0.5)
    np.testing.assert_allclose(to_numpy(actual), expected, atol=1e-5)


@pytest.mark.parametrize("case", ["2x12x20x8", "1x5x5x4", "2x3x9x6", "1x1x7x3"])
def test_equals_the_papers_formula_in_numpy(case):
    golden = np.load(GOLDEN / "kao_numpy_2d.npz")
    x = golden[f"{case}_input"].astype("float32")
    kv = ops.kao_kv(x)
    qkv, weights = ops.kao_qkv(x, return_attention_scores=True)
    rows, columns = ops.axis_means(x)
    for actual, name in (
        (kv, "kao_kv"),
        (qkv, "kao_qkv"),
        (weights[:, 0], "attn_qkv"),
        (rows, "marginal_axis0"),
        (columns, "marginal_axis1"),
    ):
        np.testing.assert_allclose(
            to_numpy(actual), golden[f"{case}_{name}"], atol=1e-5
        )


def lucidrains_operator(golden):
    """Our operator with the weights of the independent PyTorch port."""
    heads = int(golden["case0_heads"])
    # Torch keeps (out, in, 1); ours are (in, out).
    maps = golden["case0_param:to_qkv.weight"][:, :, 0].T
    query, key, value = np.split(maps, 3, axis=1)
    out = golden["case0_param:to_out.weight"][:, :, 0].T
    bias = golden["case0_param:to_out.bias"]

    def operator(x):
        return ops.kao_qkv(
            x,
            num_heads=heads,
            query=lambda t: keras.ops.matmul(t, query),
            key=lambda t: keras.ops.matmul(t, key),
            value=lambda t: keras.ops.matmul(t, value),
            output=lambda t: keras.ops.add(keras.ops.matmul(t, out), bias),
        )

    return operator


def test_equals_the_independent_pytorch_port():
    golden = np.load(GOLDEN / "kronecker_lucidrains.npz")
    operator = lucidrains_operator(golden)
    x = golden["case0_input"].transpose(0, 2, 3, 1)
    expected = golden["case0_output"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(to_numpy(operator(x)), expected, atol=1e-5)

    cotangent = golden["case0_cotangent"].transpose(0, 2, 3, 1)
    (actual,) = gradient(lambda t: dot(operator(t), cotangent), x)
    expected = golden["case0_input_grad"].transpose(0, 2, 3, 1)
    # Logits reach 119 here, unscaled, so float32 itself is near 1e-5 away.
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_a_constant_picture_by_hand():
    x = np.full((1, 3, 4, 2), 0.5, "float32")
    np.testing.assert_allclose(to_numpy(ops.kao_kv(x)), x, atol=1e-6)
    # A row's token and a column's token, both 0.5.
    np.testing.assert_allclose(to_numpy(ops.kao_qkv(x)), 2 * x, atol=1e-6)


def test_two_cells_by_hand():
    x = np.array([0.0, 1.0], "float32").reshape(1, 1, 2, 1)
    # Tokens: row 0.5; columns 0 and 1.
    half, one = np.exp(0.5), np.exp(1.0)
    at_one = (0.5 * half + one) / (half + 1 + one)
    expected = np.array([0.5, at_one]).reshape(x.shape)
    np.testing.assert_allclose(to_numpy(ops.kao_kv(x)), expected, atol=1e-6)

    quarter, root = np.exp(0.25), np.exp(0.5)
    row = (0.5 * quarter + root) / (quarter + 1 + root)
    expected = (row + np.array([0.5, at_one])).reshape(x.shape)
    np.testing.assert_allclose(to_numpy(ops.kao_qkv(x)), expected, atol=1e-6)


def naive(kind, x, num_heads):
    """The formula as one dense graph, to differentiate automatically."""
    batch, height, width, channels = x.shape
    rows = keras.ops.mean(x, axis=2)
    columns = keras.ops.mean(x, axis=1)
    tokens = keras.ops.concatenate([rows, columns], axis=1)
    query = keras.ops.reshape(x, (batch, -1, channels))
    query = query if kind == "kv" else tokens
    size = channels // num_heads
    parts = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        logits = keras.ops.einsum(
            "bqd,bkd->bqk", query[..., part], tokens[..., part]
        )
        weights = keras.ops.softmax(logits)
        parts.append(
            keras.ops.einsum("bqk,bkd->bqd", weights, tokens[..., part])
        )
    output = keras.ops.concatenate(parts, axis=-1)
    if kind == "kv":
        return keras.ops.reshape(output, x.shape)
    return output[:, :height, None] + output[:, None, height:]


@pytest.mark.parametrize("kind", ["kv", "qkv"])
def test_gradient_equals_autodiff_of_the_formula(kind):
    x, cotangent = random(2, 5, 7, 6), random(2, 5, 7, 6, seed=1)
    (actual,) = gradient(
        lambda t: dot(OPERATORS[kind](t, num_heads=2), cotangent), x
    )
    (expected,) = gradient(lambda t: dot(naive(kind, t, 2), cotangent), x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("kind", OPERATORS)
def test_padding_changes_nothing(kind):
    x = random(2, 5, 7, 4)
    padded = np.concatenate([x, 9 * random(2, 5, 4, 4, seed=1)], axis=2)
    padded = np.concatenate([padded, 9 * random(2, 6, 11, 4, seed=2)], axis=1)
    mask = np.zeros(padded.shape[:-1], bool)
    mask[:, :5, :7] = True
    actual = to_numpy(OPERATORS[kind](padded, mask=mask))
    expected = to_numpy(OPERATORS[kind](x))
    np.testing.assert_allclose(actual[:, :5, :7], expected, atol=1e-5)
    assert np.all(actual[~mask] == 0)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_picture_of_padding_alone_gives_zero(kind):
    x = random(2, 3, 5, 4)
    mask = np.ones((2, 3, 5), bool)
    mask[1] = False
    actual = to_numpy(OPERATORS[kind](x, mask=mask))
    np.testing.assert_allclose(
        actual[0], to_numpy(OPERATORS[kind](x))[0], atol=1e-6
    )
    assert np.all(actual[1] == 0)


def test_padding_with_nan_does_not_spread():
    x = random(1, 3, 5, 4)
    mask = np.ones((1, 3, 5), bool)
    mask[:, :, 3:] = False
    rows, columns = ops.axis_means(np.where(mask[..., None], x, np.nan), mask)
    assert np.all(np.isfinite(to_numpy(rows)))
    assert np.all(to_numpy(columns)[:, 3:] == 0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 5e-3), ("bfloat16", 5e-2)]
)
@pytest.mark.parametrize("kind", OPERATORS)
def test_half_precision(kind, dtype, tolerance):
    x = random(2, 5, 7, 8)
    half = keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)
    output, weights = OPERATORS[kind](
        half, scale="rsqrt", return_attention_scores=True
    )
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    expected = OPERATORS[kind](x, scale="rsqrt")
    np.testing.assert_allclose(
        to_numpy(keras.ops.cast(output, "float32")),
        to_numpy(expected),
        atol=tolerance,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("kind", OPERATORS)
def test_logits_and_softmax_of_half_precision_are_exact(kind, num_heads, dtype):
    def rounded(x):
        half = keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)
        return keras.ops.cast(half, "float32")

    def run(x):  # the inputs of the product rounded, and nothing after it
        return OPERATORS[kind](
            x,
            num_heads=num_heads,
            query=rounded,
            key=rounded,
            value=rounded,
            return_attention_scores=True,
        )

    x, cotangent = to_numpy(rounded(2 * random(2, 13, 8))), random(2, 13, 8)
    half = keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)
    output, weights = OPERATORS[kind](
        half, num_heads=num_heads, return_attention_scores=True
    )
    wide, expected = run(x)
    assert np.abs(to_numpy(expected) - 0.5).max() > 0.4  # some are sharp
    np.testing.assert_allclose(to_numpy(weights), to_numpy(expected), atol=1e-5)
    step = {"float16": 2**-10, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(
        to_numpy(keras.ops.cast(output, "float32")),
        to_numpy(wide),
        atol=step * np.abs(to_numpy(wide)).max(),
    )

    def loss(function):
        return lambda t: dot(keras.ops.cast(function(t), "float32"), cotangent)

    (found,) = gradient(
        loss(lambda t: OPERATORS[kind](t, num_heads=num_heads)), half
    )
    (slopes,) = gradient(loss(lambda t: run(t)[0]), x)
    np.testing.assert_allclose(
        found.astype("float32"), slopes, atol=2 * step * np.abs(slopes).max()
    )


@pytest.mark.parametrize("kind", OPERATORS)
def test_large_values_do_not_overflow_float16(kind):
    # Unscaled, one product is 64 * 60² and passes float16's 65504.
    x = keras.ops.cast(60 + random(1, 5, 7, 64), "float16")
    output = to_numpy(keras.ops.cast(OPERATORS[kind](x), "float32"))
    assert np.all(np.isfinite(output))


@pytest.mark.parametrize("kind", OPERATORS)
def test_one_xla_program_gives_the_same(kind):
    x = random(2, 5, 7, 6)
    actual = compiled(lambda t: OPERATORS[kind](t, num_heads=3))(x)
    expected = OPERATORS[kind](x, num_heads=3)
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX has static shapes")
@pytest.mark.parametrize("kind", OPERATORS)
def test_open_sizes_in_a_graph(kind):
    import tensorflow as tf

    open_shape = tf.TensorSpec((None, None, None, 6), tf.float32)
    function = tf.function(
        lambda t: OPERATORS[kind](t, num_heads=2), input_signature=[open_shape]
    )
    for shape in ((2, 5, 7, 6), (1, 8, 3, 6)):
        x = random(*shape)
        np.testing.assert_allclose(
            to_numpy(function(x)), reference(kind, x, 2), atol=1e-5
        )


def test_pooled_keys_are_averages():
    x = random(1, 3, 4, 2)
    pooled = np.stack(
        [
            x[0, 0:2, 0:2].mean((0, 1)),
            x[0, 0:2, 2:4].mean((0, 1)),
            x[0, 2:3, 0:2].mean((0, 1)),
            x[0, 2:3, 2:4].mean((0, 1)),
        ]
    )[None]
    expected = attend_by_loop(x.reshape(1, 12, 2), pooled, pooled, 1, 1.0)
    actual = ops.dense_attention(x, pool_size=2)
    np.testing.assert_allclose(
        to_numpy(actual).reshape(1, 12, 2), expected, atol=1e-5
    )


def test_weights_sum_to_one_and_have_the_stated_shape():
    x = random(2, 5, 7, 6)
    for kind, shape in (
        ("kv", (2, 3, 35, 12)),
        ("qkv", (2, 3, 12, 12)),
        ("dense", (2, 3, 35, 35)),
    ):
        _, weights = OPERATORS[kind](
            x, num_heads=3, return_attention_scores=True
        )
        assert weights.shape == shape
        np.testing.assert_allclose(to_numpy(weights).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: ops.kao_kv(random(2, 3)),
            r"one grid axis or more. Received: x.shape=\(2, 3\)",
        ),
        (
            lambda: ops.kao_qkv(random(2, 3, 5, 4), num_heads=3),
            "Received: num_heads=3, channels=4",
        ),
        (
            lambda: ops.kao_kv(random(2, 3, 5, 4), scale="sqrt"),
            "Received: scale='sqrt'",
        ),
        (
            lambda: ops.kao_kv(random(2, 3, 5, 4), mask=np.ones((2, 3), bool)),
            r"Received: mask.shape=\(2, 3\), x.shape=\(2, 3, 5, 4\)",
        ),
        (
            lambda: ops.kao_kv(
                random(2, 3, 5, 4), mask=np.ones((2, 5, 3), bool)
            ),
            r"Received: mask.shape=\(2, 5, 3\)",
        ),
        (
            lambda: ops.dense_attention(random(2, 5, 4), pool_size=2),
            r"Received: x.shape=\(2, 5, 4\), mask=None, pool_size=2",
        ),
        (lambda: ops.outer_sum([]), r"Received: parts=\[\]"),
        (
            lambda: ops.outer_sum([random(2, 3)]),
            r"Received: parts\[0\].shape=\(2, 3\)",
        ),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()
