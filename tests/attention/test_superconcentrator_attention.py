"""Attention along a superconcentrator: by the formula, and what reaches."""

import keras
import numpy as np
import pytest

from tests.backends import BACKEND, compiled, dot, gradient, to_numpy
from tests.layer_checks import (
    check_layer,
    check_symbolic,
    fill_weights,
    random,
)
from ylg import superconcentrator
from ylg.layers.superconcentrator_attention import SuperconcentratorAttention
from ylg.patterns import esa_order

OPT_OUT = {
    "other_grids": "the graph belongs to one number of tokens",
    "open_sizes": "the graph belongs to one number of tokens",
}
BLIND = {
    f"{step}_key/bias": "it adds the same to all logits of a query"
    for step in ("down", "base", "up")
}


def filled(shape, **arguments):
    layer = SuperconcentratorAttention(**arguments)
    layer.build(shape)
    fill_weights(layer.weights, layer.name)
    return layer


def fast(function):
    """JAX compiles each operation by itself unless it compiles them all."""
    return compiled(function) if BACKEND == "jax" else function


def run(layer, x):
    return to_numpy(fast(layer)(x))


def by_loop(layer, x, num_heads):
    """The layer on tokens (B, n, C) in float64, one query at a time.

    Returns what it gives, and the rollout of the weights (B, N, n, n).
    """
    weights = {
        v.path.removeprefix(layer.name + "/"): to_numpy(v).astype("float64")
        for v in layer.weights
    }

    def linear(name, t):
        return t @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0)

    def attend(step, queries, keys, pattern):
        (x, rolled), (keys, theirs) = queries, keys
        rolled = rolled / 2

        def norm(t):
            t = t - t.mean(-1, keepdims=True)
            t = t / np.sqrt((t**2).mean(-1, keepdims=True) + 1e-3)
            gamma, beta = (
                weights[f"{step}_norm/{name}"] for name in ("gamma", "beta")
            )
            return t * gamma + beta

        query = linear(f"{step}_query", norm(x))
        key = linear(f"{step}_key", norm(keys))
        value = linear(f"{step}_value", norm(keys))
        found = np.zeros_like(query)
        size = x.shape[-1] // num_heads
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            for b, i in np.ndindex(*query.shape[:2]):
                seen = np.flatnonzero(pattern.mask()[i])
                logits = key[b, seen, part] @ query[b, i, part] / size**0.5
                softmax = np.exp(logits - logits.max())
                softmax /= softmax.sum()
                found[b, i, part] = softmax @ value[b, seen, part]
                rolled[b, head, i] += softmax @ theirs[b, head, seen] / 2
        return x + linear(f"{step}_output", found), rolled

    def level(both, depth):
        graph = layer.graph
        if depth == len(graph.down):
            return attend("base", both, both, graph.base)
        down, up = graph.down[depth], graph.up[-1 - depth]
        n, m = graph.sizes[depth : depth + 2]
        stands = [j * n // m for j in range(m)]
        middle = [t[..., stands, :] for t in both]
        y = level(attend("down", middle, both, down), depth + 1)
        keys = [np.concatenate(t, axis=-2) for t in zip(y, both, strict=True)]
        return attend("up", both, keys, up)

    n = x.shape[1]
    itself = np.broadcast_to(np.eye(n), (len(x), num_heads, n, n))
    return level((x.astype("float64"), itself), 0)


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 37, 6), {}),  # one level
        ((1, 49, 6), {"num_heads": 3, "use_bias": True, "seed": 1}),  # two
        ((2, 5, 4), {"num_heads": 2}),  # complete at once
        ((2, 1, 3), {}),
    ],
)
def test_values_against_loops(shape, arguments):
    x, layer = random(*shape), filled(shape, **arguments)
    expected, rollout = by_loop(layer, x, layer.num_heads)
    np.testing.assert_allclose(run(layer, x), expected, atol=2e-5)
    _, scores = layer(x, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(scores), rollout, atol=1e-5)


def test_a_picture_is_a_sequence_in_esa_order():
    x, order = random(2, 4, 11, 4), esa_order((4, 11))
    tokens = filled((2, 44, 4))
    cells = filled((2, 4, 11, 4))
    actual = run(cells, x).reshape(2, 44, 4)[:, order]
    expected = run(tokens, x.reshape(2, 44, 4)[:, order])
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    _, scores = tokens(
        x.reshape(2, 44, 4)[:, order], return_attention_scores=True
    )
    maps = cells.attention_maps(x, (1, 7)).reshape(2, 44)
    rank = np.flatnonzero(order == 11 + 7)[0]
    np.testing.assert_allclose(
        maps[:, order], to_numpy(scores)[:, 0, rank], atol=1e-6
    )


def test_every_output_depends_on_every_input():
    grid, tokens = (5, 10), 50  # two levels
    layer = filled((None, *grid, 4))
    assert len(layer.graph.down) == 2
    own = np.eye(tokens, dtype="float32")[..., None]  # example i: output i
    direction = own * np.float32([1, 2, -1, 3])

    def outputs(x):
        flat = keras.ops.reshape(layer(x), (tokens, tokens, 4))
        return dot(flat, direction)

    x = np.repeat(random(1, *grid, 4), tokens, axis=0)
    (slopes,) = gradient(fast(outputs), x)
    slopes = np.abs(slopes.reshape(tokens, tokens, 4)).max(axis=2)
    assert slopes.min() > 1e-6


def test_memory_is_linear():
    """The keys that all queries of all steps see, padding included."""
    for tokens in (64, 256, 900):
        layer = SuperconcentratorAttention()
        layer.build((None, tokens, 2))
        sizes = [pattern.neighbours.size for pattern in layer.graph.steps]
        assert sum(sizes) < 60 * tokens


def test_weights_do_not_depend_on_the_number_of_tokens():
    shapes = []
    for tokens in (40, 100):
        layer = SuperconcentratorAttention(use_bias=True)
        layer.build((None, tokens, 8))
        shapes.append([(v.path, v.shape) for v in layer.weights])
    strip = [[(p.split("/", 1)[1], s) for p, s in found] for found in shapes]
    assert strip[0] == strip[1] and len(strip[0]) == 3 * (2 + 4 * 2)


@pytest.mark.slow
def test_layer():
    check_layer(
        lambda **kwargs: SuperconcentratorAttention(
            num_heads=2, use_bias=True, seed=3, **kwargs
        ),
        (2, 5, 7, 8),
        no_gradient=BLIND,
        opt_out=OPT_OUT,
    )


def test_loading_and_copying_do_not_certify_again(tmp_path, monkeypatch):
    inputs = keras.Input((37, 4))
    model = keras.Model(inputs, SuperconcentratorAttention(2)(inputs))
    fill_weights(model.weights)
    model.save(tmp_path / "model.keras")

    def refuse(*_):
        raise AssertionError("certified again")

    monkeypatch.setattr(superconcentrator, "_is_certified", refuse)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    copy = keras.models.clone_model(loaded)
    for other in (loaded, copy):
        other.set_weights(model.get_weights())
        config = other.layers[-1].get_config()
        assert config == model.layers[-1].get_config()
        assert other.layers[-1].graph.digraph.edges.tolist() == (
            model.layers[-1].graph.digraph.edges.tolist()
        )
    config = model.layers[-1].get_config()
    # Of a file from before there were certificates, of other tokens: proved.
    for change, shape in (({"certificate": None}, 37), ({}, 38)):
        layer = SuperconcentratorAttention.from_config({**config, **change})
        with pytest.raises(AssertionError, match="certified again"):
            layer.build((None, shape, 4))
    layer = SuperconcentratorAttention.from_config({**config, "seed": 1})
    with pytest.raises(ValueError, match="certificate must be that of"):
        layer.build((None, 37, 4))


def test_shape_and_dtype_of_a_sequence():
    check_symbolic(SuperconcentratorAttention, (2, 5, 4))


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"num_heads": 0}, None, "num_heads must be a positive integer. .*=0"),
        ({"seed": -1}, None, "seed must be an integer >= 0. .*seed=-1"),
        ({"num_heads": 3}, (None, 5, 4), "num_heads=3, channels=4"),
        ({}, (None, None, 4), r"known sizes. .*=\(None, None, 4\)"),
        ({}, (None, 3, None, 4), "known sizes"),
        ({}, (None, 4), "known sizes"),
    ],
)
def test_errors(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        SuperconcentratorAttention(**arguments).build(shape)


def test_another_number_of_tokens_is_an_error():
    layer = filled((1, 5, 4))
    with pytest.raises(ValueError, match=r"one number of tokens. .* 5 tokens"):
        layer(random(1, 6, 4))
