"""Information flow graphs: what reaches what through steps of attention.

"Your Local GAN" (Daras et al., CVPR 2020, section 3) sees sparse attention as
a layered graph. The vertices V0 are the inputs, those of Vt the outputs of
step t; an edge leads from key j of V(t-1) to query i of Vt where the pattern
lets i see j. There is *full information* if every input reaches every output.

All inputs may still have to pass through one vertex. In a *superconcentrator*
any k inputs have k vertex-disjoint paths to any k outputs, and O(n) edges
suffice for that (Valiant, 1975): `is_superconcentrator` counts the paths of
any graph, `ylg.superconcentrator.Superconcentrator` builds one with a proof.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

from kanets.attention.digraph import Digraph, union_edges
from kanets.attention.pattern_kinds import Pattern
from kanets.checks import as_integer, is_positive

MOST_PAIRS = 20_000  # that are looked at one and all


class InformationFlowGraph:
    """The layered graph of a sequence of attention steps.

    Args:
        steps: list; each entry a `Pattern`, or a list of patterns: heads in
            parallel, whose edges are united. The keys of a step are the
            queries of the step before.

    Raises:
        ValueError: no steps, entries that are no patterns, sizes that do not
            chain.

    Cost: n²/8 bytes of memory, and degree passes over them for each step.

    Example:

    >>> from ylg.patterns import left_floor, left_repetitive
    >>> graph = InformationFlowGraph([left_floor(64), left_repetitive(64)])
    >>> graph.has_full_information(), graph.num_edges
    (True, 856)

    References: Daras et al., "Your Local GAN", CVPR 2020, section 3.1.
    """

    def __init__(self, steps):
        self.steps = [_heads(step) for step in steps]
        if not self.steps:
            raise ValueError(f"There must be a step. Received: steps={steps!r}")
        for before, after in itertools.pairwise(self.steps):
            _check_chain(before, after)

    @property
    def num_steps(self):
        return len(self.steps)

    @property
    def num_edges(self):
        """Edges of all steps; one that several heads have counts once."""
        return len(self.digraph.edges)

    @functools.cached_property
    def digraph(self):
        """The graph as a `Digraph`, one layer of vertices after the other."""
        edges, start, end = [], 0, self.steps[0][0].num_keys
        inputs = np.arange(end)
        for heads in self.steps:
            edges.append(union_edges(heads) + [start, end])
            start, end = end, end + heads[0].num_queries
        return Digraph(np.concatenate(edges), inputs, np.arange(start, end))

    def reach(self, steps=None):
        """bool [outputs, inputs]: what the first steps (or all) connect."""
        steps = self.num_steps if steps is None else steps
        if as_integer(steps) not in range(1, self.num_steps + 1):
            raise ValueError(
                f"steps must be in 1..{self.num_steps}. Received: {steps=}"
            )
        state = next(itertools.islice(self._states(), steps - 1, None))
        num_inputs = self.steps[0][0].num_keys
        return np.unpackbits(state, axis=1, count=num_inputs).view(bool)

    def has_full_information(self):
        """Whether every input reaches every output."""
        return bool(self.reach().all())

    def missing_pairs(self):
        """int64 [M, 2]: the (input, output) that are not connected."""
        return np.argwhere(~self.reach().T)

    def steps_to_full_information(self, limit=None):
        """How many steps, from the first on, are needed; None if no number is.

        `limit` is how many to try, over and over from the first one; the
        default is each step once.
        """
        limit = self.num_steps if limit is None else limit
        if limit > self.num_steps:
            _check_chain(self.steps[-1], self.steps[0])
        full = np.packbits(np.ones(self.steps[0][0].num_keys, bool))
        states = itertools.islice(self._states(), limit)
        counts = (
            t for t, state in enumerate(states, 1) if np.all(state == full)
        )
        return next(counts, None)

    def _states(self):
        """The inputs that arrived, in packed bits, after each step; endless."""
        state = np.packbits(np.eye(self.steps[0][0].num_keys, dtype=bool), 1)
        for heads in itertools.cycle(self.steps):
            keys = np.pad(state, ((0, 1), (0, 0)))  # row -1 is empty
            state = np.zeros((heads[0].num_queries, keys.shape[1]), np.uint8)
            for column in itertools.chain(*(p.neighbours.T for p in heads)):
                state |= keys[column]
            yield state

    def __repr__(self):
        steps = [" | ".join(p.name for p in heads) for heads in self.steps]
        sizes = [self.steps[0][0].num_keys, self.steps[-1][0].num_queries]
        return f"<InformationFlowGraph {sizes}: {', then '.join(steps)}>"


@dataclasses.dataclass(frozen=True)
class FlowCheck:
    """What `is_superconcentrator` found; true if every pair passed.

    A counterexample is (A, B, paths): indices of k inputs and of k outputs,
    and the number of their disjoint paths, less than k.
    """

    passed: bool
    pairs_checked: int
    exhaustive: bool
    counterexample: tuple | None = None

    def __bool__(self):
        return self.passed


def is_superconcentrator(graph, samples=None, seed=0):
    """Whether any k inputs have k vertex-disjoint paths to any k outputs.

    The paths are a maximum flow of which each vertex passes one unit (Menger).

    Args:
        graph: `Digraph`, or what has one as its `digraph`.
        samples: None looks at all pairs of k inputs and k outputs, and proves
            the answer. A number looks at so many, with k around n/2, n - 1, n
            and in between: disjoint ends, random ones, runs, and ends that
            are close in the graph. That can refute, not prove.
        seed: of the samples.

    Returns:
        `FlowCheck`, with the first counterexample that was met.

    Raises:
        ValueError: too many pairs to look at all, or `samples` below 1.
        ImportError: SciPy is missing.

    Cost: one maximum flow each, some milliseconds for 10,000 edges.

    Example:

    >>> from ylg.patterns import left_floor, left_repetitive
    >>> steps = [left_floor(4), left_repetitive(4)]
    >>> is_superconcentrator(InformationFlowGraph(steps)).counterexample
    ((0, 1), (1, 2), 1)
    """
    graph = getattr(graph, "digraph", graph)
    n = len(graph.inputs)
    total = math.comb(2 * n, n) - 1  # the sum of comb(n, k)² over k >= 1
    if samples is None and total > MOST_PAIRS:
        raise ValueError(
            f"More than {MOST_PAIRS} pairs need a number of samples. "
            f"Received: samples=None, n={n} with {total} pairs"
        )
    if samples is not None and not is_positive(samples):
        raise ValueError(
            f"samples must be None or an integer >= 1. Received: {samples=}"
        )
    exhaustive, checked = samples is None, 0
    pairs = _all_pairs(n) if exhaustive else _sampled_pairs(graph, seed)
    for checked, pair in enumerate(itertools.islice(pairs, samples), 1):
        paths = _count_paths(graph, *pair)
        if paths < len(pair[0]):
            found = (*(tuple(map(int, ends)) for ends in pair), paths)
            return FlowCheck(False, checked, exhaustive, found)
    return FlowCheck(True, checked, exhaustive)


def _count_paths(graph, some_inputs, some_outputs):
    """Disjoint paths; vertex v is the edge 2v -> 2v + 1 of capacity 1."""
    sparse = _scipy_sparse()
    starts = graph.inputs[np.asarray(some_inputs)]
    ends = graph.outputs[np.asarray(some_outputs)]
    (tails, heads), v = graph.edges.T, _num_vertices(graph)
    source, sink = np.full(len(starts), 2 * v), np.full(len(ends), 2 * v + 1)
    vertices = np.arange(v)
    rows = [source, 2 * vertices, 2 * tails + 1, 2 * ends + 1]
    columns = [2 * starts, 2 * vertices + 1, 2 * heads, sink]
    places = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(places[0]), np.int32)
    network = sparse.csr_matrix((ones, places), shape=(2 * v + 2, 2 * v + 2))
    return int(
        sparse.csgraph.maximum_flow(network, 2 * v, 2 * v + 1).flow_value
    )


def _all_pairs(n):
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        yield from itertools.product(subsets, subsets)


def _sampled_pairs(graph, seed):
    """Endless pairs of index arrays, the hard sizes first."""
    n, rng = len(graph.inputs), np.random.default_rng(seed)
    yield np.arange(n), np.arange(n)
    while n > 1:
        for hard in (n // 2, min(n // 2 + 1, n - 1), n - 1):
            for k in (hard, int(rng.integers(1, n))):
                shuffled = rng.permutation(n)
                yield shuffled[:k], shuffled[-k:]  # as disjoint as k allows
                yield shuffled[:k], rng.permutation(n)[:k]
                yield tuple((rng.integers(n, size=(2, 1)) + np.arange(k)) % n)
                ends = graph.inputs, graph.outputs
                yield tuple(_close(graph, some, rng)[:k] for some in ends)


def _close(graph, ends, rng):
    """Indices of inputs or outputs, those near to some vertex first."""
    sparse, v = _scipy_sparse(), _num_vertices(graph)
    ones = np.ones(len(graph.edges), np.int8)
    order = sparse.csgraph.breadth_first_order(
        sparse.csr_matrix((ones, graph.edges.T), shape=(v, v)),
        rng.integers(v),
        directed=False,
        return_predecessors=False,
    )
    rank = np.full(v, v)
    rank[order] = np.arange(len(order))
    return np.argsort(rank[ends], kind="stable")


def _num_vertices(graph):
    ends = max(graph.inputs.max(), graph.outputs.max())
    return 1 + int(graph.edges.max(initial=ends))


def _scipy_sparse():
    try:
        import scipy.sparse.csgraph
    except ImportError as error:
        raise ImportError(
            "is_superconcentrator needs SciPy: pip install scipy"
        ) from error
    return scipy.sparse


def _heads(step):
    heads = [step] if isinstance(step, Pattern) else step
    is_list = isinstance(heads, list | tuple) and len(heads)
    if not is_list or not all(isinstance(head, Pattern) for head in heads):
        raise ValueError(
            "A step must be a Pattern or a list of Patterns. "
            f"Received: step={step!r}"
        )
    if len({(head.num_queries, head.num_keys) for head in heads}) > 1:
        raise ValueError(
            "The heads of a step must have equal sizes. Received: "
            f"step={step!r}"
        )
    return list(heads)


def _check_chain(before, after):
    if before[0].num_queries != after[0].num_keys:
        raise ValueError(
            "The keys of a step must be the queries of the step before. "
            f"Received: {before[0]!r}, then {after[0]!r}"
        )
