"""The sparse operator, against masked dense attention and loops."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import (
    BACKEND,
    compiled,
    dot,
    gradient,
    thorough_on_jax,
    to_numpy,
)
from ylg import patterns
from ylg.ops import dense_weights, pattern_attention
from ylg.patterns import NeighbourPattern, make_patterns, ylg_heads

# Square, rectangular, prime, tiny, and finer queries: (queries, keys).
GRIDS = (
    ((8, 8), None),
    ((5, 7), None),
    ((13, 1), None),
    ((1, 1), None),
    ((6, 10), (3, 5)),
    ((9, 9), (4, 4)),
    (23, None),
)
IDS = [f"{queries}-{keys}" for queries, keys in GRIDS]


def heads_of(queries, keys, alignment="tiled"):
    """Every kind of pattern there is."""
    found = make_patterns(
        patterns.PATTERNS, queries, keys, alignment=alignment, official=True
    )
    repaired = ylg_heads(queries, keys, partial_block=True, official=True)
    given = NeighbourPattern(found[1].neighbours, queries, keys)
    return [*found, repaired[1], given, found[2]]


def tensors(heads, size=5, value_size=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    count = len(heads)
    queries, keys = heads[0].num_queries, heads[0].num_keys
    return [
        rng.normal(size=shape).astype("float32")
        for shape in (
            (batch, queries, count, size),
            (batch, keys, count, size),
            (batch, keys, count, value_size),
        )
    ]


def quickly(function):
    """Eager JAX would compile every operation of every shape by itself."""
    return compiled(function) if BACKEND == "jax" else function


def by_loops(query, key, value, heads, scale):
    """The definition, a query at a time, in float64."""
    query, key, value = (x.astype("float64") for x in (query, key, value))
    output = np.zeros((*query.shape[:3], value.shape[3]))
    for head, pattern in enumerate(heads):
        mask = pattern.mask()
        for b in range(len(query)):
            for i in range(query.shape[1]):
                keys = np.flatnonzero(mask[i])
                if not len(keys):
                    continue
                logits = scale * key[b, keys, head] @ query[b, i, head]
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                output[b, i, head] = weights @ value[b, keys, head]
    return output


@pytest.mark.parametrize("alignment", patterns.ALIGNMENTS)
@pytest.mark.parametrize("grids", GRIDS, ids=IDS)
def test_equal_to_loops_and_reference(grids, alignment):
    heads = heads_of(*grids, alignment)
    inputs = tensors(heads)
    expected = by_loops(*inputs, heads, 0.7)
    for implementation in ("xla", "reference"):
        actual = quickly(
            lambda *x, how=implementation: pattern_attention(
                *x, heads, scale=0.7, implementation=how
            )
        )(*inputs)
        np.testing.assert_allclose(to_numpy(actual), expected, atol=1e-5)


@thorough_on_jax
@pytest.mark.parametrize(
    "grids", (((4, 4), None), ((5, 7), None), ((6, 10), (3, 5)), (23, None))
)
def test_gradients_equal_the_reference(grids):
    heads = heads_of(*grids)
    inputs = tensors(heads)
    shape = (*inputs[0].shape[:3], inputs[2].shape[3])
    direction = np.random.default_rng(1).normal(size=shape).astype("float32")

    def gradients(implementation):
        return gradient(
            lambda *x: dot(
                pattern_attention(*x, heads, implementation=implementation),
                direction,
            ),
            *inputs,
        )

    for actual, expected in zip(
        gradients("xla"), gradients("reference"), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-2


def test_by_hand():
    """Two blocks of two: the first query of each sees itself alone."""
    pattern = patterns.left_floor(4)
    query = np.zeros((1, 4, 1, 1), "float32")
    value = np.array([1, 2, 3, 5], "float32").reshape(1, 4, 1, 1)
    output = pattern_attention(query, query, value, pattern)
    np.testing.assert_allclose(to_numpy(output).ravel(), [1, 1.5, 3, 4])
    # Summaries are ranks 1 and 3; the others see themselves, too.
    output = pattern_attention(query, query, value, patterns.left_repetitive(4))
    np.testing.assert_allclose(
        to_numpy(output).ravel(), [8 / 3, 3.5, 10 / 3, 3.5], rtol=1e-6
    )


@pytest.mark.parametrize(
    "dtype, tolerance", (("float16", 3e-3), ("bfloat16", 3e-2))
)
def test_half_precision(dtype, tolerance):
    heads = heads_of((6, 10), (3, 5))
    inputs = tensors(heads)
    half = [ops.cast(x, dtype) for x in inputs]
    exact = [to_numpy(ops.cast(x, "float32")) for x in half]
    attend = quickly(lambda *x: pattern_attention(*x, heads))
    output = attend(*half)
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    expected = by_loops(*exact, heads, 1.0)
    np.testing.assert_allclose(
        to_numpy(ops.cast(output, "float32")), expected, atol=tolerance
    )


def test_what_would_overflow_float16():
    """Products beyond 65504, and sums of values that are within it."""
    heads = [patterns.left_floor(1024), patterns.left_repetitive(1024)]
    heads.append(NeighbourPattern(heads[0].neighbours))
    large = ops.full((1, 1024, 3, 64), 40.0, "float16")
    for implementation in ("xla", "reference"):
        attend = quickly(
            lambda *x, how=implementation: pattern_attention(
                *x, heads, scale=0.125, implementation=how
            )
        )
        output = to_numpy(attend(large, large, large * 50))  # 64 x 1600
        np.testing.assert_allclose(output, 2000.0, rtol=1e-2)


def test_large_logits_do_not_leak_through_the_mask():
    """-1000 added to a score of 3000 hides nothing; a real mask does."""
    pattern = patterns.left_floor(4)
    query = np.full((1, 4, 1, 1), 60.0, "float32")
    key = np.array([1, 1, 50, 1], "float32").reshape(1, 4, 1, 1)
    value = np.array([1, 2, 3, 5], "float32").reshape(1, 4, 1, 1)
    for implementation in ("xla", "reference"):
        output = pattern_attention(
            query, key, value, pattern, implementation=implementation
        )
        np.testing.assert_allclose(to_numpy(output).ravel(), [1, 1.5, 3, 3])


@pytest.mark.thorough
def test_one_xla_program():
    heads = ylg_heads((6, 10), (3, 5), official=True)[1:5:3]  # one of each kind
    inputs = tensors(heads)
    eager = to_numpy(pattern_attention(*inputs, heads))
    function = compiled(lambda q, k, v: pattern_attention(q, k, v, heads))
    np.testing.assert_allclose(to_numpy(function(*inputs)), eager, atol=1e-6)

    def loss(q, k, v):
        return ops.sum(pattern_attention(q, k, v, heads) ** 2)

    expected = gradient(loss, *inputs)
    if BACKEND == "tensorflow":  # on JAX, `gradient` compiles already
        actual = compiled(lambda *x: _tape_gradient(loss, x))(*inputs)
        for found, wanted in zip(actual, expected, strict=True):
            np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-5)


@pytest.mark.thorough
def test_never_forms_the_full_product():
    """At 64 x 64 a score for every pair would be 2^24 numbers a head."""
    heads = ylg_heads((64, 64))
    shapes = [(1, 64 * 64, 8, 4)] * 3
    n = 64 * 64
    sizes = _intermediate_sizes(heads, shapes)
    assert n < max(sizes) <= 8 * n * 2 * (64 + 1)


def test_weights():
    heads = heads_of((6, 10), (3, 5))
    inputs = tensors(heads)
    plain, (output, weights), (_, expected) = (
        quickly(lambda *x, o=options: pattern_attention(*x, heads, **o))(
            *inputs
        )
        for options in (
            {},
            {"return_weights": True},
            {"return_weights": True, "implementation": "reference"},
        )
    )
    np.testing.assert_allclose(to_numpy(output), to_numpy(plain), atol=1e-6)
    assert len(weights) == len(heads)
    for weight, wanted, pattern in zip(weights, expected, heads, strict=True):
        assert weight.shape == (2, *pattern.neighbours.shape)
        np.testing.assert_allclose(
            to_numpy(weight), to_numpy(wanted), atol=1e-6
        )
        sums = to_numpy(weight).sum(axis=-1)
        np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    dense = to_numpy(dense_weights(weights, heads))
    assert dense.shape == (2, len(heads), 60, 15)
    for head, pattern in enumerate(heads):
        assert np.all(dense[:, head][:, ~pattern.mask()] == 0)
    again = np.einsum("bnqk,bkne->bqne", dense, inputs[2])
    np.testing.assert_allclose(again, to_numpy(output), atol=1e-5)


def test_one_pattern_for_all_heads():
    pattern = patterns.right_floor((4, 4))
    inputs = tensors([pattern] * 3)
    output, weights = pattern_attention(*inputs, pattern, return_weights=True)
    listed = pattern_attention(*inputs, [pattern] * 3)
    np.testing.assert_array_equal(to_numpy(output), to_numpy(listed))
    assert dense_weights(weights, pattern).shape == (2, 3, 16, 16)


def test_a_query_that_sees_nothing_gets_zeros():
    pattern = NeighbourPattern([[0, 1], [-1, -1]])
    inputs = tensors([pattern])
    for implementation in ("xla", "reference"):
        output = to_numpy(
            pattern_attention(*inputs, pattern, implementation=implementation)
        )
        assert np.all(output[:, 1] == 0) and np.all(output[:, 0] != 0)


def test_batch_size_may_be_open():
    pattern = patterns.left_floor((4, 4))
    inputs = keras.Input((16, 2, 3))
    output = keras.layers.Lambda(lambda x: pattern_attention(x, x, x, pattern))(
        inputs
    )
    model = keras.Model(inputs, output)
    assert model.output_shape == (None, 16, 2, 3)
    x = np.ones((5, 16, 2, 3), "float32")
    np.testing.assert_allclose(to_numpy(model(x)), x, atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    (
        ({"query": (2, 16, 3)}, r"query=\(2, 16, 3\)"),
        ({"key": (2, 16, 2, 4)}, r"key=\(2, 16, 2, 4\)"),
        ({"value": (2, 15, 2, 3)}, r"value=\(2, 15, 2, 3\)"),
        ({"query": (2, 15, 2, 3)}, "15 queries"),
        ({"patterns": [patterns.left_floor((4, 4))]}, "1 patterns, 2 heads"),
        ({"implementation": "fast"}, "implementation='fast'"),
    ),
)
def test_errors_name_the_value(change, message):
    shapes = {name: (2, 16, 2, 3) for name in ("query", "key", "value")}
    options = {"patterns": patterns.left_floor((4, 4))}
    for name, value in change.items():
        (shapes if name in shapes else options)[name] = value
    given = {name: np.ones(shape, "float32") for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        pattern_attention(**given, **options)


def _tape_gradient(loss, inputs):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(*inputs)
    return tape.gradient(value, inputs)


def _intermediate_sizes(heads, shapes):
    """Elements of every tensor the forward and backward pass makes."""

    def loss(q, k, v):
        return ops.sum(pattern_attention(q, k, v, heads) ** 2)

    if BACKEND == "torch":
        return _sizes_on_torch(loss, shapes)
    if BACKEND == "jax":
        import jax

        zeros = [np.zeros(shape, "float32") for shape in shapes]
        program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*zeros)
        equations = _all_equations(program.jaxpr)
        return [
            int(np.prod(variable.aval.shape))
            for equation in equations
            for variable in equation.outvars
        ]
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    function = tf.function(lambda *x: _tape_gradient(loss, x))
    graph = function.get_concrete_function(*specs).graph
    return [
        output.shape.num_elements() or 0
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank is not None
    ]


def _sizes_on_torch(loss, shapes):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            results = function(*args, **(kwargs or {}))
            sizes.extend(
                result.numel()
                for result in keras.tree.flatten(results)
                if isinstance(result, torch.Tensor)
            )
            return results

    with Recorded():
        gradient(loss, *(np.zeros(shape, "float32") for shape in shapes))
    return sizes


def _all_equations(jaxpr):
    from jax.extend.core import jaxprs_in_params

    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _all_equations(inner)
