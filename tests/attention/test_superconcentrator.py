"""Superconcentrators: certificates, counted paths, steps of attention."""

import itertools
import json
import math

import numpy as np
import pytest

from ylg import superconcentrator
from ylg.information_flow import (
    Digraph,
    _num_vertices,
    is_superconcentrator,
)
from ylg.superconcentrator import Superconcentrator, _is_certified


def most_edges(n, base_size=34):
    """Edges of a superconcentrator before copies are dropped."""
    edges = 0
    while n > base_size:
        edges, n = edges + 13 * n, 3 * -(-n // 4)
    return edges + n * n


def test_at_most_53_edges_for_each_input():
    """Below 477 by trying; from there on by induction, as m <= (3 n + 9) / 4:

    most_edges(n) = 13 n + most_edges(m) <= 13 n + 53 (3 n + 9) / 4
    = 52.75 n + 119.25 <= 53 n.
    """
    assert max(most_edges(n) / n for n in range(1, 4097)) < 53
    for n in (1, 34, 35, 36, 37, 64, 150):
        graph = Superconcentrator(n)
        assert 0.9 * most_edges(n) <= graph.num_edges <= most_edges(n)
        assert graph.num_edges == len(graph.digraph.edges)
        assert graph.num_steps == 2 * len(graph.sizes) - 1


def test_the_default_base_size_has_the_fewest_edges():
    totals = {
        size: sum(most_edges(n, size) / n for n in range(1, 4097))
        for size in range(16, 64)
    }
    assert min(totals, key=totals.get) == 34
    assert len(Superconcentrator(34).sizes) == 1
    assert len(Superconcentrator(35).sizes) == 2


@pytest.mark.parametrize(
    ("n", "base_size"),
    [
        pytest.param(7, 6, marks=pytest.mark.thorough),
        (4, 3),
        (5, 5),
        (1, 34),
    ],
)
def test_small_ones_exhaustively(n, base_size):
    """Those of n > base_size have one level above a complete graph."""
    graph = Superconcentrator(n, base_size=base_size)
    assert len(graph.sizes) == 1 + (n > base_size)
    check = is_superconcentrator(graph)
    assert check and check.exhaustive
    assert check.pairs_checked == math.comb(2 * n, n) - 1


@pytest.mark.parametrize("n", [35, 37, 61, 128])
def test_larger_ones_by_samples(n):
    graph = Superconcentrator(n, seed=n)
    assert is_superconcentrator(graph, samples=60, seed=n)


def test_samples_find_what_is_missing(monkeypatch):
    graph = Superconcentrator(37).digraph
    direct = np.isin(graph.edges[:, 0], graph.inputs)
    direct &= np.isin(graph.edges[:, 1], graph.outputs)
    assert direct.sum() == 37
    broken = Digraph(graph.edges[~direct], graph.inputs, graph.outputs)
    check = is_superconcentrator(broken, samples=1)
    assert check.counterexample == (*[tuple(range(37))] * 2, 30)
    # A run of k inputs that sees 3/4 k middle vertices; random sets see more.
    middle = np.repeat(np.arange(30), 8).reshape(40, 6)
    monkeypatch.setattr(
        superconcentrator, "_concentrator", lambda *_: (middle, 1)
    )
    assert not is_superconcentrator(Superconcentrator(37), samples=50)


@pytest.mark.parametrize(("n", "seed"), [(12, 0), (16, 1), (15, 2)])
def test_concentrators_match_every_half(n, seed):
    """Hall's condition, set by set; also after inputs were left out."""
    graph = Superconcentrator(n, seed=seed, base_size=11)
    middle = graph.concentrators[0][:n]
    bits = np.bitwise_or.reduce(1 << middle.astype(np.int64), axis=1)
    for size in range(1, n // 2 + 1):
        sets = np.array(list(itertools.combinations(range(n), size)))
        seen = np.bitwise_or.reduce(bits[sets], axis=1)
        assert min(int(row).bit_count() for row in seen) >= size


@pytest.mark.parametrize("n", [37, 100, 256])
def test_certificates(n):
    graph = Superconcentrator(n)
    for size, m, middle in zip(
        graph.sizes, graph.sizes[1:], graph.concentrators, strict=False
    ):
        assert middle.shape == (4 * -(-size // 4), 6) and m < size
        matrix = np.zeros((len(middle), m))
        np.add.at(matrix, (np.arange(len(middle))[:, None], middle), 1)
        assert set(matrix.sum(axis=0)) == {8}
        values = np.linalg.svd(matrix, compute_uv=False) ** 2
        assert values[0] == pytest.approx(48) and values[1] < 24


def test_certificate_agrees_with_the_singular_values():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        middle = rng.permutation(np.repeat(np.arange(12), 8)).reshape(16, 6)
        matrix = np.zeros((16, 12))
        np.add.at(matrix, (np.arange(16)[:, None], middle), 1)
        value = np.linalg.svd(matrix, compute_uv=False)[1] ** 2
        found.append(_is_certified(middle, 12))
        assert found[-1] == (value < 24)
    assert set(found) == {True, False}


def test_certificate_refuses_bad_concentrators():
    """Two graphs side by side have s² = 48: a half sees a half of m."""
    half = Superconcentrator(64).concentrators[0]
    both = np.concatenate([half, half + 48])
    assert _is_certified(half, 48)
    assert not _is_certified(both, 96)
    lame = np.sort(half.ravel()).reshape(64, 6)  # neighbours share them all
    assert not _is_certified(lame, 48)


def test_no_seed_passes_is_an_error(monkeypatch):
    monkeypatch.setattr(superconcentrator, "_is_certified", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"None of 200 .* n=36, seed=3"):
        Superconcentrator(36, seed=3)


def test_a_failing_seed_is_followed_by_the_next(monkeypatch):
    answers = iter([False, False, True])
    monkeypatch.setattr(
        superconcentrator, "_is_certified", lambda *_: next(answers)
    )
    assert Superconcentrator(36).seeds_tried == [3]


def test_a_graph_is_certified_once(monkeypatch):
    passes, looked_at = superconcentrator._passes, []
    monkeypatch.setattr(superconcentrator, "_PASSED", {})
    monkeypatch.setattr(
        superconcentrator,
        "_passes",
        lambda *graph: looked_at.append(graph) or passes(*graph),
    )
    first = Superconcentrator(50, seed=5)
    assert len(looked_at) == sum(first.seeds_tried) >= 2
    looked_at.clear()
    superconcentrator._PASSED.clear()
    given = json.loads(json.dumps(first.certificate))
    copy = Superconcentrator(50, seed=5, certificate=given)
    assert not looked_at and copy.certificate == first.certificate
    np.testing.assert_array_equal(copy.digraph.edges, first.digraph.edges)
    assert copy.is_certified() and len(looked_at) == 2
    copy.concentrators[1] = np.sort(copy.concentrators[1], axis=None)
    copy.concentrators[1] = copy.concentrators[1].reshape(-1, 6)
    assert not copy.is_certified()
    # Nothing is taken over from a certificate: a new graph is looked at.
    looked_at.clear()
    Superconcentrator(50, seed=5)
    assert len(looked_at) == sum(first.seeds_tried)
    Superconcentrator(50, seed=5)
    assert len(looked_at) == sum(first.seeds_tried)


@pytest.mark.parametrize(
    "change, message",
    (
        ({"n": 51}, "that was drawn, .*'n': 50.* Received: .*'n': 51"),
        ({"seeds_tried": [199, 1]}, r"drawn, .*Received: .*\[199, 1\]"),
        ({"seeds_tried": [1]}, r"drawn, .*Received: .*\[1\]"),
        ({"seeds_tried": [0, 1]}, r"integers in 1..200. Received: .*\[0, 1\]"),
        ({"seeds_tried": None}, "Received: .*'seeds_tried': None"),
        ({"digest": "0"}, "drawn, .*Received: .*'digest': '0'"),
    ),
)
def test_a_certificate_of_another_graph_is_refused(change, message):
    certificate = {**Superconcentrator(50).certificate, **change}
    with pytest.raises(ValueError, match=message):
        Superconcentrator(50, certificate=certificate)


def test_equal_arguments_give_the_same_graph():
    first, same = Superconcentrator(37, seed=1), Superconcentrator(37, seed=1)
    other = Superconcentrator(37, seed=2)
    np.testing.assert_array_equal(first.digraph.edges, same.digraph.edges)
    assert first.digraph.edges.tolist() != other.digraph.edges.tolist()
    # On all versions of NumPy: weights were trained for these edges.
    row = [7, 10, 12, 13, 17, 21, 24, 34]
    assert first.down[0].neighbours[0].tolist() == row
    assert (
        repr(first)
        == f"<Superconcentrator 37: {first.num_edges} edges, 3 steps>"
    )


def test_steps_are_attention_patterns():
    """Along the patterns alone: down, base, up over [middle, own inputs]."""
    graph = Superconcentrator(50)
    assert graph.sizes == [50, 39, 30]
    shapes = [(p.num_queries, p.num_keys) for p in graph.steps]
    assert shapes == [(39, 50), (30, 39), (30, 30), (39, 69), (50, 89)]
    levels = [np.eye(50, dtype=int)]
    for pattern in graph.down:
        levels.append(pattern.mask() @ levels[-1])
    state = graph.base.mask() @ levels.pop()
    for pattern in graph.up:
        keys = np.concatenate([state, levels.pop()])
        state = pattern.mask() @ keys
    assert state.min() > 0  # full information
    # As many walks as in the graph of edges.
    digraph = graph.digraph
    walks = np.zeros((_num_vertices(digraph), 50))
    walks[digraph.inputs] = np.eye(50)
    for tail, head in sorted(digraph.edges.tolist(), key=lambda e: e[1]):
        walks[head] += walks[tail]
    np.testing.assert_array_equal(walks[digraph.outputs], state)
    assert [p.neighbours.shape[1] <= 8 for p in graph.down] == [True, True]
    for size, pattern in zip((39, 50), graph.up, strict=True):
        own = pattern.mask()[:, -size:]
        np.testing.assert_array_equal(own, np.eye(size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be an integer >= 1. Received: n=0"),
        ({"n": 2.0}, "n must be an integer >= 1. Received: n=2.0"),
        ({"n": 2, "seed": -1}, "seed must be an integer >= 0. .*seed=-1"),
        ({"n": 2, "base_size": 0}, "base_size must be .* >= 1. .*base_size=0"),
    ],
)
def test_superconcentrator_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Superconcentrator(**arguments)
