"""Information flow: against products of masks, brute force and max-flow."""

import itertools
import math
import sys

import numpy as np
import pytest

from ylg import information_flow
from ylg.information_flow import (
    Digraph,
    InformationFlowGraph,
    is_superconcentrator,
)
from ylg.patterns import (
    NeighbourPattern,
    esa_order,
    left_floor,
    left_repetitive,
    make_patterns,
    right_floor,
    right_repetitive,
    strided_repetitive,
    strided_window,
    ylg_heads,
)

LTR = left_floor, left_repetitive
RTL = right_floor, right_repetitive
SHAPES = (1, 2, 3, 4, 5, 7, 12, 13, 16, 29, 36, 53, 64)
GRIDS = (
    (1, 1),
    (1, 7),
    (7, 1),
    (2, 3),
    (4, 4),
    (3, 5),
    (5, 3),
    (4, 9),
    (7, 11),
)
ALL_SHAPES = SHAPES + GRIDS


def cells(shape):
    return math.prod(shape) if isinstance(shape, tuple) else shape


def incomplete_block(shape):
    """Cells of the last block, if it is shorter than the stride."""
    n = cells(shape)
    return esa_order(shape)[n - n % math.isqrt(n) :]


def two_steps(functions, shape, stride=None, partial_block=False):
    floor, repetitive = functions
    return InformationFlowGraph(
        [
            floor(shape, stride=stride),
            repetitive(shape, stride=stride, partial_block=partial_block),
        ]
    )


def disjoint_steps(n, groups=2):
    """A pattern in which nothing leaves its group."""
    keys = np.arange(n).reshape(groups, -1)
    return NeighbourPattern(np.repeat(keys, n // groups, axis=0))


def complete_graph(n):
    return InformationFlowGraph([disjoint_steps(n, groups=1)])


# Reach


@pytest.mark.parametrize("seed", range(6))
def test_reach_is_the_product_of_the_masks(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, size=4)
    steps, expected = [], np.eye(sizes[0], dtype=int)
    for keys, queries in itertools.pairwise(map(int, sizes)):
        masks = [rng.random((queries, keys)) < 2 / keys for _ in range(2)]
        steps.append(
            [
                NeighbourPattern(
                    np.where(mask, np.arange(keys), -1), queries, keys
                )
                for mask in masks
            ]
        )
        expected = (masks[0] | masks[1]).astype(int) @ expected
        graph = InformationFlowGraph(steps)
        np.testing.assert_array_equal(graph.reach(), expected > 0)
    missing = graph.missing_pairs()
    assert {tuple(pair) for pair in missing.tolist()} == {
        (j, i) for i, j in np.argwhere(expected == 0).tolist()
    }
    np.testing.assert_array_equal(
        graph.reach(1), steps[0][0].mask() | steps[0][1].mask()
    )


def test_edges_that_heads_share_count_once():
    heads = [left_floor(9), right_floor(9), left_floor(9)]
    union = heads[0].mask() | heads[1].mask()
    graph = InformationFlowGraph([heads, left_floor(9)])
    assert graph.num_edges == union.sum() + left_floor(9).num_edges
    digraph = graph.digraph
    found = np.zeros((27, 27), bool)
    found[tuple(digraph.edges.T)] = True
    np.testing.assert_array_equal(found[:9, 9:18].T, union)
    np.testing.assert_array_equal(found[9:18, 18:].T, left_floor(9).mask())
    assert len(digraph.edges) == found.sum()
    assert digraph.inputs.tolist() == list(range(9))
    assert digraph.outputs.tolist() == list(range(18, 27))


def test_repr_names_the_steps():
    graph = InformationFlowGraph([[left_floor(4), right_floor(4)], LTR[1](4)])
    assert repr(graph) == (
        "<InformationFlowGraph [4, 4]: left_floor | right_floor, then "
        "left_repetitive>"
    )


def test_large_grids():
    graph = two_steps(LTR, (64, 64))
    assert graph.has_full_information() and graph.num_steps == 2


# The patterns of the paper


@pytest.mark.parametrize("functions", [LTR, RTL], ids=["LTR", "RTL"])
@pytest.mark.parametrize("shape", ALL_SHAPES, ids=str)
def test_full_in_two_steps_with_any_stride_that_divides(functions, shape):
    n = cells(shape)
    for stride in range(1, n + 1):
        graph = two_steps(functions, shape, stride)
        assert graph.has_full_information() == (n % stride == 0)
        assert two_steps(
            functions, shape, stride, partial_block=True
        ).has_full_information()


@pytest.mark.parametrize("shape", ALL_SHAPES, ids=str)
def test_an_incomplete_block_reaches_only_itself(shape):
    """With the official masks: exactly these inputs, exactly these outputs."""
    rest = incomplete_block(shape).tolist()
    for functions in (LTR, RTL):
        graph = two_steps(functions, shape)
        ordered = list(enumerate(rest))
        inside = {
            (j, i)
            for (rank_j, j), (rank_i, i) in itertools.product(ordered, ordered)
            if (rank_j <= rank_i if functions is LTR else rank_j >= rank_i)
        }
        expected = set(itertools.product(rest, range(cells(shape)))) - inside
        assert {tuple(p) for p in graph.missing_pairs().tolist()} == expected
        repaired = two_steps(functions, shape, partial_block=True)
        assert repaired.missing_pairs().shape == (0, 2)


def test_two_steps_are_needed():
    for functions in (LTR, RTL):
        for shape in (4, 16, (4, 4), (3, 12)):
            graph = two_steps(functions, shape)
            assert graph.steps_to_full_information() == 2
            backwards = InformationFlowGraph(graph.steps[::-1])
            assert backwards.steps_to_full_information() is None


@pytest.mark.parametrize("shape", ALL_SHAPES, ids=str)
def test_strided_steps(shape):
    """Neither order is full in two steps: n (s - 1) / 2 pairs are missing.

    Window first: the last ranks reach no output whose class ends before
    them. Repetitive first: the first outputs have no full window before
    them; one more repetitive step passes on what the others have.
    """
    n = cells(shape)
    s = math.isqrt(n)
    rank = np.argsort(esa_order(shape))
    window, repetitive = strided_window(shape), strided_repetitive(shape)
    window_first = InformationFlowGraph([window, repetitive])
    repetitive_first = InformationFlowGraph([repetitive, window])
    last = n - 1 - (n - 1 - rank) % s  # the last rank of the output's class
    expected = rank[None, :] > last[:, None]
    np.testing.assert_array_equal(~window_first.reach(), expected)
    expected = (rank[:, None] < s - 1) & (rank[None, :] % s > rank[:, None])
    np.testing.assert_array_equal(~repetitive_first.reach(), expected)
    if n % s == 0:
        for graph in (window_first, repetitive_first):
            assert len(graph.missing_pairs()) == n * (s - 1) // 2
    if s > 1:
        # The first output sees but itself in a window.
        needed = 3 if (n - 1) % s == 0 else 4
        assert window_first.steps_to_full_information(9) == needed
        assert repetitive_first.steps_to_full_information(9) == 3


@pytest.mark.parametrize("shape", ALL_SHAPES, ids=str)
def test_two_layers_of_ylg_are_full(shape):
    """One is not, but for blocks of two, all of whose cells are summaries."""
    n = cells(shape)
    layer = InformationFlowGraph([ylg_heads(shape, official=True)])
    whole = n % math.isqrt(n) == 0
    needed = 1 if math.isqrt(n) <= 2 else 2
    assert layer.has_full_information() == (whole and needed == 1)
    assert layer.steps_to_full_information(9) == (needed if whole else None)
    repaired = InformationFlowGraph([ylg_heads(shape, partial_block=True)])
    assert repaired.steps_to_full_information(9) == needed
    if not whole:  # nothing ever leaves the incomplete block
        rest = set(incomplete_block(shape).tolist())
        many = InformationFlowGraph([ylg_heads(shape, official=True)] * 4)
        assert set(many.missing_pairs()[:, 0].tolist()) == rest


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_limit_counts_all_steps_tried(limit):
    graph = two_steps(LTR, 16)
    expected = 2 if limit >= 2 else None
    assert graph.steps_to_full_information(limit) == expected
    never = InformationFlowGraph([disjoint_steps(6)])
    assert never.steps_to_full_information(50) is None


# Disjoint paths


def brute_force_paths(graph, some_inputs, some_outputs):
    """Most disjoint paths, by trying all of them."""
    following = {}
    for tail, head in graph.edges.tolist():
        following.setdefault(tail, []).append(head)
    ends = set(graph.outputs[list(some_outputs)].tolist())

    def paths(vertex, used):
        if vertex in ends:
            yield used | {vertex}
        for head in following.get(vertex, []):
            if head not in used:
                yield from paths(head, used | {vertex})

    def most(starts, used, ends_left):
        if not starts:
            return 0
        best = most(starts[1:], used, ends_left)
        if starts[0] not in used:
            for path in paths(starts[0], frozenset()):
                if not path & used:
                    rest = most(starts[1:], used | path, ends_left)
                    best = max(best, 1 + rest)
        return best

    return most(graph.inputs[list(some_inputs)].tolist(), frozenset(), ends)


@pytest.mark.parametrize("seed", range(8))
def test_flow_counts_disjoint_paths(seed):
    rng = np.random.default_rng(seed)
    tails, heads = rng.integers([[0], [3]], [[6], [9]], size=(2, 12))
    edges = np.stack([tails, heads], axis=1)[tails < heads]
    graph = Digraph(edges, np.arange(3), np.arange(6, 9))
    wrong = None
    for k in (1, 2, 3):
        subsets = list(itertools.combinations(range(3), k))
        for pair in itertools.product(subsets, subsets):
            paths = brute_force_paths(graph, *pair)
            if paths < k and wrong is None:
                wrong = (*pair, paths)
    check = is_superconcentrator(graph)
    assert check.counterexample == wrong and check.exhaustive
    assert bool(check) == check.passed == (wrong is None)
    assert check.pairs_checked == 19 or wrong


def benes(without=()):
    """The rearrangeable network of four inputs: three rows of switches."""
    rows = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 1), (2, 3))]
    edges = [
        (4 * step + tail, 4 * step + 4 + head)
        for step, pairs in enumerate(rows)
        for pair in pairs
        for tail, head in itertools.product(pair, pair)
    ]
    edges = [edge for edge in edges if edge not in without]
    return Digraph(edges, range(4), range(12, 16))


def test_known_graphs():
    complete = complete_graph(5)
    assert is_superconcentrator(complete).pairs_checked == 251
    assert is_superconcentrator(benes())
    # A butterfly has full information, but one path only from 0 to 0.
    butterfly = Digraph(
        [edge for edge in benes().edges if edge[0] < 8], range(4), range(8, 12)
    )
    assert is_superconcentrator(butterfly).counterexample == (
        (0, 1),
        (0, 2),
        1,
    )
    # Inputs that are outputs, too, are paths without an edge.
    assert is_superconcentrator(Digraph([], [3, 1], [1, 3])).counterexample
    assert is_superconcentrator(Digraph([(3, 1), (1, 3)], [1, 3], [3, 1]))
    assert not is_superconcentrator(Digraph([], [0], [1]))


def test_networks_with_a_missing_edge():
    """Some edges are needed, some not: as brute force says."""
    found = []
    for edge in benes().edges.tolist():
        graph = benes(without=[tuple(edge)])
        wrong = (
            pair
            for pair in information_flow._all_pairs(4)
            if brute_force_paths(graph, *pair) < len(pair[0])
        )
        first = next(wrong, [None])
        check = is_superconcentrator(graph)
        assert (check.counterexample or [None])[0] == first[0]
        found.append(check.passed)
    assert set(found) == {True, False}


def test_summaries_are_a_bottleneck():
    """Full information, but a block leaves through its one summary."""
    for shape in (16, (4, 4)):
        graph = two_steps(LTR, shape)
        assert graph.has_full_information()
        for samples in (20, 60):
            check = is_superconcentrator(graph, samples=samples)
            assert not check and not check.exhaustive
            some_inputs, some_outputs, paths = check.counterexample
            assert paths < len(some_inputs) == len(some_outputs)


def test_sampled_pairs_include_the_hard_ones():
    graph = complete_graph(40).digraph
    pairs = information_flow._sampled_pairs(graph, seed=0)
    pairs = [tuple(map(set, p)) for p in itertools.islice(pairs, 100)]
    for some_inputs, some_outputs in pairs:
        assert 1 <= len(some_inputs) == len(some_outputs) <= 40
        assert (some_inputs | some_outputs) <= set(range(40))
    sizes = {len(some_inputs) for some_inputs, _ in pairs}
    assert sizes >= {20, 21, 39, 40}
    for a, b in pairs[1::4]:  # as disjoint as can be
        assert len(a & b) == max(0, 2 * len(a) - 40)
    for ends in itertools.chain(*pairs[3::4]):  # runs, around the end
        assert len(ends - {(i + 1) % 40 for i in ends}) <= 1


# Errors


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], r"There must be a step. Received: steps=\[\]"),
        ([3], "a Pattern or a list of Patterns. Received: step=3"),
        ([[]], r"a Pattern or a list of Patterns. Received: step=\[\]"),
        ([[left_floor(4), "x"]], "a Pattern or a list of Patterns"),
        ([[left_floor(4), left_floor(5)]], r"equal sizes. .*\(5,\)"),
        ([left_floor(4), left_floor(5)], r"step before. .*\(4,\).*then.*\(5,"),
    ],
)
def test_step_errors(steps, message):
    with pytest.raises(ValueError, match=message):
        InformationFlowGraph(steps)


def test_number_of_steps_errors():
    graph = two_steps(LTR, 16)
    for steps in (0, 3, 1.0):
        with pytest.raises(ValueError, match=f"in 1..2. .*steps={steps}"):
            graph.reach(steps)
    wide = InformationFlowGraph([left_floor(8, 4, alignment="tiled")])
    with pytest.raises(ValueError, match="queries of the step before"):
        wide.steps_to_full_information(2)


@pytest.mark.parametrize(
    ("inputs", "outputs", "received"),
    [
        ([0, 1], [2], r"\[2, 1\] inputs and outputs"),
        ([0, 0], [1, 2], r"\[1, 2\] distinct"),
        ([], [], r"\[0, 0\] inputs"),
    ],
)
def test_digraph_errors(inputs, outputs, received):
    with pytest.raises(ValueError, match=f"as many distinct.*{received}"):
        Digraph([(0, 1)], inputs, outputs)


def test_sample_errors():
    graph = complete_graph(9)
    with pytest.raises(ValueError, match="20000 pairs .* n=9 with 48619 pairs"):
        is_superconcentrator(graph)
    with pytest.raises(ValueError, match="integer >= 1. Received: samples=0"):
        is_superconcentrator(graph, samples=0)


def test_scipy_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse.csgraph", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        is_superconcentrator(complete_graph(2))


def test_all_patterns_have_a_graph():
    for name in ("left_floor", "strided_window"):
        (pattern,) = make_patterns([name], (3, 4))
        assert InformationFlowGraph([pattern]).num_edges == pattern.num_edges
