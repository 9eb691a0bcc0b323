"""Hierarchical attention against loops in float64, and what it may be given."""

import itertools

import keras
import numpy as np
import pytest

from kanets import attention
from tests.backends import (
    BACKEND,
    compiled,
    dot,
    few_on_jax,
    gradient,
    needs_tensorflow,
    thorough_on_jax,
    to_numpy,
)
from tests.layer_checks import check_layer, fill_weights, random

WIDE = "float64" if BACKEND == "tensorflow" else "float32"
TOLERANCE = 1e-10 if BACKEND == "tensorflow" else 1e-4
# Shapes of inputs without batch, windows, and the sides of the levels.
CASES = [
    ((13, 6), [3, 2, 3], [(3,), (2,), (3,)]),
    ((27, 4), 3, [(3,)] * 3),
    ((1, 4), 5, [(5,)]),
    ((5, 7, 4), [2, [3, 4]], [(2, 2), (3, 4)]),
    ((3, 4, 5, 4), 2, [(1, 2, 2)] * 3 + [(2, 1, 1)] * 2),
]


def weights_of(layer):
    """Float64 arrays of each level, by name."""
    return [
        {
            name: to_numpy(variable).astype("float64")
            for name, variable in (
                ("query", level.query),
                ("positions", level.positions),
                ("kernel", level.key.kernel),
                ("bias", level.key.bias),
                ("value", level.value),
                ("gamma", level.norm.gamma),
                ("beta", level.norm.beta),
            )
        }
        for level in layer.levels
    ]


def by_loop(levels, sides, x, mask=None):
    """Block by block: the output, the summaries and weights of each level."""
    x = np.asarray(x, "float64")
    mask = np.ones(x.shape[:-1], bool) if mask is None else mask
    summaries, weights = [], []
    for w, side in zip(levels, sides, strict=True):
        batch, *grid = mask.shape
        heads, size = w["query"].shape
        counts = [-(-n // s) for n, s in zip(grid, side, strict=True)]
        found = np.zeros((batch, *counts, heads * size))
        there = np.zeros((batch, *counts), bool)
        shares = np.zeros((batch, heads, np.prod(counts), np.prod(side)))
        for b, *block in np.ndindex(batch, *counts):
            cells = {}
            for place, offset in enumerate(np.ndindex(*side)):
                at = tuple(np.multiply(block, side) + offset)
                inside = all(i < n for i, n in zip(at, grid, strict=True))
                if inside and mask[b][at]:
                    cells[place] = x[b][at] + w["positions"][place]
            if not cells:
                continue
            there[(b, *block)] = True
            summary = np.zeros((heads, size))
            for n in range(heads):
                own = slice(n * size, (n + 1) * size)
                logits = [
                    w["query"][n] @ np.tanh(c @ w["kernel"] + w["bias"])[own]
                    for c in cells.values()
                ]
                share = np.exp(logits) / np.sum(np.exp(logits))
                number = np.ravel_multi_index(block, counts)
                shares[b, n, number, list(cells)] = share
                for s, cell in zip(share, cells.values(), strict=True):
                    summary[n] += s * (cell @ w["value"])[own]
            summary = summary.ravel() - summary.mean()
            summary /= np.sqrt(np.mean(summary**2) + 1e-3)
            found[(b, *block)] = summary * w["gamma"] + w["beta"]
        x, mask = found, there
        summaries.append(found)
        weights.append(shares)
    return x.reshape(len(x), -1), summaries, weights


def filled(shape, windows, **arguments):
    layer = attention.HierarchicalAttention(
        windows, num_heads=2, dtype=WIDE, **arguments
    )
    layer.build((None, *shape))
    fill_weights(layer.weights, layer.name)
    return layer


def some_mask(shape, seed=1):
    """A third is padding, and the second sequence nothing else."""
    mask = np.random.default_rng(seed).uniform(size=(2, *shape[:-1])) < 0.67
    mask[0].flat[0] = True
    mask[1] = False
    return mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "windows", "sides"), few_on_jax(CASES))
def test_the_formula(shape, windows, sides, masked):
    layer = filled(shape, windows, units=6)
    assert [level.sides for level in layer.levels] == sides
    x = random(2, *shape).astype(WIDE)
    mask = some_mask(shape) if masked else None
    found = layer(
        x, mask=mask, return_summaries=True, return_attention_scores=True
    )
    expected = by_loop(weights_of(layer), sides, x, mask)
    for ours, theirs in zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(to_numpy(ours), theirs, atol=TOLERANCE)
    if masked:
        assert np.all(to_numpy(found[0])[1] == 0)


@pytest.mark.parametrize(
    ("shape", "windows", "sides"), few_on_jax([CASES[0], CASES[3]])
)
def test_gradients(shape, windows, sides):
    """Of all weights and the input, along a direction, by differences."""
    layer = filled(shape, windows)
    x, mask = random(2, *shape).astype(WIDE), some_mask(shape)
    output = random(2, shape[-1], seed=3)
    variables = layer.trainable_variables

    def function(x, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return dot(layer(x, mask=mask), output)

    values = [to_numpy(variable) for variable in variables]
    found = gradient(function, x, *values)
    rng = np.random.default_rng(4)
    ways = [rng.normal(size=g.shape) for g in found]
    step, differences = 1e-4, []
    for sign in (1, -1):
        for variable, value, way in zip(
            variables, values, ways[1:], strict=True
        ):
            variable.assign(value + sign * step * way)
        moved = x + sign * step * ways[0]
        expected, *_ = by_loop(weights_of(layer), sides, moved, mask)
        differences.append(sign * np.sum(expected * output))
    slope = sum(differences) / (2 * step)
    total = sum(np.sum(g * w) for g, w in zip(found, ways, strict=True))
    assert np.all(found[0][~mask] == 0)
    np.testing.assert_allclose(
        total, slope, rtol=1e-5 if WIDE == "float64" else 2e-2
    )


@pytest.mark.thorough
@thorough_on_jax
def test_layer():
    check_layer(
        lambda **arguments: attention.HierarchicalAttention(
            [4, 6], units=6, num_heads=2, **arguments
        ),
        (2, 11, 4),
        grids=((1,), (7,), (24,)),
        opt_out={"open_sizes": "its output has none: see below"},
    )


@pytest.mark.thorough
def test_video_layer():
    check_layer(
        lambda **arguments: attention.HierarchicalAttention(
            [[1, 2, 2], [1, 2, 3], [4, 1, 1]], **arguments
        ),
        (2, 3, 4, 5, 6),
        grids=((1, 1, 1), (4, 4, 6)),
        opt_out={"open_sizes": "its output has none: see below"},
        fresh_process=True,
    )


def test_open_sizes_and_requests():
    layer = attention.HierarchicalAttention([4, 2, 3], num_heads=2)
    inputs = keras.Input((None, 6))
    outputs = layer(inputs, return_summaries=True, return_attention_scores=True)
    output, summaries, scores = outputs
    assert output.shape == (None, 6)
    assert [t.shape for t in summaries] == [(None, None, 6)] * 3
    sizes = [(None, 2, None, n) for n in (4, 2, 3)]
    assert [t.shape for t in scores] == sizes
    model = keras.Model(inputs, outputs)
    fill_weights(model.weights)
    for length in (24, 5):
        x = random(2, length, 6)
        found = model(x)
        symbolic = layer(
            keras.Input(x.shape[1:], batch_size=2),
            return_summaries=True,
            return_attention_scores=True,
        )
        for ours, form in zip(
            keras.tree.flatten(found), keras.tree.flatten(symbolic), strict=True
        ):
            assert tuple(ours.shape) == form.shape
        alone = layer(x)
        np.testing.assert_allclose(
            to_numpy(found[0]), to_numpy(alone), atol=1e-5
        )
    pair = layer(x, return_attention_scores=True)
    assert len(pair) == 2 and len(pair[1]) == 3
    for level in pair[1]:
        np.testing.assert_allclose(to_numpy(level).sum(-1), 1, atol=1e-5)


@needs_tensorflow
def test_a_graph_of_open_sizes():
    import tensorflow as tf

    layer = attention.HierarchicalAttention([[2, 3], [2, 2]])
    layer.build((None, None, None, 4))
    fill_weights(layer.weights, layer.name)
    shapes = [
        tf.TensorSpec((None, None, None, 4)),
        tf.TensorSpec((None, None, None), tf.bool),
    ]

    @tf.function(input_signature=shapes)
    def graph(x, mask):
        return layer(x, mask=mask)

    for grid in ((4, 6), (1, 1), (3, 5)):
        x = random(2, *grid, 4)
        mask = some_mask(x.shape[1:])
        np.testing.assert_allclose(
            graph(x, mask), layer(x, mask=mask), atol=1e-5
        )
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(random(2, 4, 7, 4), np.ones((2, 4, 7), bool))


def test_padding_is_not_there():
    layer = filled((24, 4), [4, 2, 3])
    x = random(2, 24, 4).astype(WIDE)
    mask = np.arange(24) < np.array([[10], [24]])
    found = to_numpy(layer(x, mask=mask))
    short = to_numpy(layer(x[:1, :10]))
    np.testing.assert_allclose(found[:1], short, atol=1e-6)
    x[0, 10:] = 1e4
    np.testing.assert_allclose(to_numpy(layer(x, mask=mask)), found, atol=1e-6)


def test_the_mask_of_an_embedding(tmp_path):
    inputs = keras.Input((12,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    outputs = attention.HierarchicalAttention(3, name="whole")(embedded)
    model = keras.Model(inputs, keras.layers.Dense(2)(outputs))
    fill_weights(model.weights)
    x = np.random.default_rng(0).integers(0, 5, (3, 12)).astype("int32")
    x[0] = 0
    expected = to_numpy(model(x))
    layer = model.get_layer("whole")
    whole = to_numpy(layer(model.layers[1](x), mask=x != 0))
    assert np.all(whole[0] == 0) and np.abs(whole[1]).min() > 1e-4
    by_hand = to_numpy(model.layers[-1](whole))
    np.testing.assert_allclose(by_hand, expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), expected, atol=1e-6)


def test_order_counts():
    """Of steps within a block, of blocks, and of blocks of blocks."""
    layer = filled((27, 4), 3)
    x = random(1, 27, 4).astype(WIDE)
    outputs = [to_numpy(layer(x))]
    for size in (1, 3, 9):
        swapped = x.reshape(1, 27 // size, size, 4)[
            :, [1, 0, *range(2, 27 // size)]
        ]
        outputs.append(to_numpy(layer(swapped.reshape(x.shape))))
    for one, other in itertools.combinations(outputs, 2):
        assert np.abs(one - other).max() > 1e-2


def test_compiled_with_a_mask():
    layer = filled((13, 4), [4, 4])
    x, mask = random(2, 13, 4).astype(WIDE), some_mask((13, 4))
    found = compiled(lambda x, mask: layer(x, mask=mask))(x, mask)
    expected = to_numpy(layer(x, mask=mask))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-6)


@thorough_on_jax
def test_the_first_of_many_steps_counts_as_any():
    """At the start, and in a memory that no (T, T) would leave.

    Some step's block is preferred to another's by what the weights happen to
    be, a factor of e either way: it is the mean of several starts that counts.
    """
    x, factors = random(1, 30_000, 8), []
    for seed in range(8):
        keras.utils.set_random_seed(seed)
        layer = attention.HierarchicalAttention(16, num_heads=2)
        layer.build(x.shape)
        assert len(layer.levels) == 4

        def output(x, layer=layer):
            return dot(layer(x), random(1, 8, seed=2))

        norms = np.linalg.norm(gradient(output, x)[0][0], axis=-1)
        factors.append(norms[0] / np.median(norms))
        assert norms.min() > 1e-3 * np.median(norms)
    assert 1 / 4 < np.exp(np.mean(np.log(factors))) < 4


def test_levels():
    for windows, grid, expected in (
        (16, (10_000,), [(16,)] * 4),
        (10, (10_000,), [(10,)] * 4),
        (10, (10_001,), [(10,)] * 5),
        (8, (30, 48, 64), [(1, 8, 8)] * 2 + [(8, 1, 1)] * 2),
        (4, (1, 1), [(4, 4)]),
        (4, (9, 1, 1), [(4, 1, 1)] * 2),
        ([8, (3, 2)], (None, 5), [(8, 8), (3, 2)]),
    ):
        assert attention.block_levels(windows, grid) == expected


def test_errors():
    make, x = attention.HierarchicalAttention, random(2, 9, 4)
    for arguments, text in (
        ({"windows": 1}, "windows must be an integer >= 2.*windows=1"),
        ({"windows": [2, 0]}, "windows must be a positive.*windows=0"),
        ({"windows": []}, "number of levels=0"),
        ({"units": 0}, "units=0"),
        ({"units": 4, "num_heads": 3}, "divide.*num_heads=3, channels=4"),
    ):
        with pytest.raises(ValueError, match=text):
            make(**arguments)
    for layer, given, text in (
        (make([2, 4]), {}, r"hold \(8,\).*windows=.*grid=\(9,\)"),
        (make([[2, 2]]), {}, "each of 1 axes"),
        (make(num_heads=3), {}, "num_heads=3, channels=4"),
        (make(), {"key": x}, "Received: key"),
        (make(), {"key_mask": x[..., 0]}, "Received: key_mask"),
        (make(), {"mask": np.ones((2, 8), bool)}, r"mask.shape=\(2, 8\)"),
    ):
        for query in (x, keras.Input(x.shape[1:])):
            with pytest.raises(ValueError, match=text):
                layer(query, **given)
    with pytest.raises(ValueError, match="unknown size.*windows=16"):
        make()(keras.Input((None, 4)))
    with pytest.raises(ValueError, match=r"query must be.*\(2, 4\)"):
        make()(x[:, 0])
    assert "hierarchical" not in attention.names()
