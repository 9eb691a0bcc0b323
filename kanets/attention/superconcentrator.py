"""Superconcentrators of O(n) edges, each with a proof that it is one.

Any k inputs have k vertex-disjoint paths to any k outputs. The random graphs
of Pippenger's construction (1977) are certified by Tanner's bound (1984);
`ylg.information_flow.is_superconcentrator` checks the whole by counting paths.
"""

import functools
import hashlib

import numpy as np

from kanets.attention.checks import check_at_least
from kanets.attention.digraph import Digraph, union_edges
from kanets.attention.pattern_kinds import NeighbourPattern

# Of the degrees that Tanner's bound can certify, those with the fewest edges.
INPUT_DEGREE, MIDDLE_DEGREE = 6, 8
EIGENVALUE_BOUND = 24  # 2 * 6**2 - 6 * 8
MARGIN = 1e-6  # thousands of times what rounding does to the eigenvalues
ATTEMPTS = 200
_PASSED = {}  # from the digest of a multigraph to whether it passes


class Superconcentrator:
    """A superconcentrator with n inputs, n outputs and at most 53 n edges.

    The graph of size n is built of a smaller one (Pippenger, 1977):

        input i -> output i
        input i -> up to 6 of m = 3 ceil(n / 4) middle vertices
        middle vertices -> graph of size m -> middle vertices
        up to 6 middle vertices -> output i, the mirror image of the inputs

    Small ones are complete bipartite.

    *It is one if* any X of at most n/2 inputs has a matching into the middle.
    Given k inputs and k outputs, the indices in both, at least 2k - n, take
    the direct edges; at most n/2 are left on each side, are matched into the
    middle, and are joined by the graph of size m.

    *The matching exists* (Hall) if |N(X)| >= |X|. Let A be the n' x m matrix
    of a bipartite multigraph, n' = 4 ceil(n / 4), with row sums d = 6, column
    sums D = 8 and second singular value s. Then |AᵀX|² is at most |X| (s² +
    (dD - s²) |X|/n'), and by Cauchy-Schwarz (Tanner, 1984)

        |N(X)| >= d² |X| / (s² + (dD - s²) |X|/n')

    which is at least |X| for |X| <= n'/2 if s² <= 2d² - dD = 24. Random graphs
    have s² near (√5 + √7)² = 23.83: seeds are tried until a Cholesky
    factorisation shows that s² < 24. Leaving out n' - n inputs, or the copies
    of an edge, takes nothing from N(X).

    Args:
        n: number of inputs and of outputs.
        seed: of the random graphs. Equal arguments make equal graphs, on any
            version of NumPy.
        base_size: the largest size that is made complete bipartite. With 34
            there are fewest edges.
        certificate: None to certify the graph, or `certificate` of an equal
            one that was: the graph is drawn and compared with it, and not
            certified again. `is_certified()` does not rely on it.

    Attributes:
        sizes: list of int: n, m, ...; each has one level of the following.
        down: list of `NeighbourPattern`, middle [m] sees inputs [n].
        base: `NeighbourPattern`, complete, of the last of `sizes`.
        up: list of `NeighbourPattern`, innermost first: outputs [n] see m + n
            keys, the outputs of the smaller graph and then the inputs [n].
        concentrators: list of int [n', 6], the multigraphs that were
            certified: the middle vertices of each input.
        seeds_tried: list of int, how many it took.
        certificate: dict of what JSON holds: `n`, `seeds_tried`, and a
            `digest` of `n` and the concentrators, of which all edges follow.

    Raises:
        ValueError: `n`, `seed` or `base_size` out of range; a certificate of
            another graph than the one that was drawn.
        RuntimeError: no seed passes, which no n up to 4096 has been seen to do.

    Cost: O(n) edges, O(log n) steps. To certify takes O(n²) memory and O(n³)
    time, seconds for n = 4096, once for a process and not with a certificate.

    References: Pippenger, "Superconcentrators", SIAM J. Comput. 6, 1977;
    Tanner, "Explicit concentrators from generalized N-gons", SIAM J. Algebraic
    Discrete Methods 5, 1984.
    """

    def __init__(self, n, seed=0, base_size=34, certificate=None):
        check_at_least(1, n=n, base_size=base_size)
        check_at_least(0, seed=seed)
        tries = None if certificate is None else iter(_tries(certificate))
        self.n = n
        self.sizes, self.concentrators, self.seeds_tried = [n], [], []
        self.down, self.up = [], []
        while n > base_size and (m := 3 * -(-n // 4)) < n:
            if tries is None:
                concentrator, tried = _concentrator(m // 3, seed)
            else:  # a level too many or too few is another graph, see below
                tried = next(tries, 1)
                concentrator = _draw(m // 3, seed, tried)
            inputs, edge = np.divmod(np.arange(INPUT_DEGREE * n), INPUT_DEGREE)
            pairs = np.stack([inputs, concentrator[inputs, edge]], axis=1)
            pairs = np.unique(pairs, axis=0)
            own = np.stack([np.arange(n), m + np.arange(n)], axis=1)
            both = np.concatenate([pairs, own])
            self.down.append(_pattern("down", pairs[:, ::-1], m, n))
            self.up.insert(0, _pattern("up", both, n, m + n))
            self.sizes.append(m)
            self.concentrators.append(concentrator)
            self.seeds_tried.append(tried)
            n = m
        self.base = _pattern("base", np.argwhere(np.ones((n, n))), n, n)
        if tries is not None and certificate != self.certificate:
            raise ValueError(
                "The certificate must be that of the graph that was drawn, "
                f"{self.certificate}. Received: certificate={certificate!r}"
            )

    @property
    def certificate(self):
        digest = _digest(np.array([self.n]), *self.concentrators)
        tried = list(self.seeds_tried)
        return {"n": self.n, "seeds_tried": tried, "digest": digest}

    def is_certified(self):
        """Whether all concentrators pass Tanner's bound, computed anew."""
        return all(
            _passes(concentrator, m)
            for concentrator, m in zip(
                self.concentrators, self.sizes[1:], strict=True
            )
        )

    @property
    def steps(self):
        """All patterns in the order in which information passes them."""
        return [*self.down, self.base, *self.up]

    @property
    def num_steps(self):
        return len(self.steps)

    @property
    def num_edges(self):
        return sum(pattern.num_edges for pattern in self.steps)

    @functools.cached_property
    def digraph(self):
        """The graph as a `Digraph`, one layer of vertices after the other."""
        sizes = np.array([*self.sizes, *self.sizes[::-1]])
        layers = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
        edges = []
        for step, pattern in enumerate(self.steps):
            vertices = layers[step]
            if step > len(self.down):  # the inputs of its level, too
                vertices = np.concatenate([vertices, layers[-2 - step]])
            keys, queries = union_edges([pattern]).T
            edges.append(
                np.stack([vertices[keys], layers[step + 1][queries]], 1)
            )
        return Digraph(np.concatenate(edges), layers[0], layers[-1])

    def __repr__(self):
        counts = f"{self.num_edges} edges, {self.num_steps} steps"
        return f"<Superconcentrator {self.n}: {counts}>"


def _concentrator(quarter, seed):
    """int [n', 6], the middle vertices of n' = 4 quarter inputs; and tries."""
    for tried in range(1, ATTEMPTS + 1):
        concentrator = _draw(quarter, seed, tried)
        if _is_certified(concentrator, 3 * quarter):
            return concentrator, tried
    raise RuntimeError(
        f"None of {ATTEMPTS} random graphs passed Tanner's bound. "
        f"Received: n={4 * quarter}, seed={seed}"
    )


def _draw(quarter, seed, tried):
    """The random multigraph of the last of so many tries."""
    n, m = 4 * quarter, 3 * quarter
    # RandomState never changes its numbers: saved layers find their graph.
    random = np.random.RandomState([seed, n, tried - 1])
    slots = random.permutation(np.repeat(np.arange(m), MIDDLE_DEGREE))
    return slots.reshape(n, INPUT_DEGREE)


def _tries(certificate):
    """`seeds_tried` of a certificate, which may come from a file."""
    known = isinstance(certificate, dict)
    tries = certificate.get("seeds_tried") if known else None
    if not isinstance(tries, list) or any(
        not isinstance(tried, int) or not 1 <= tried <= ATTEMPTS
        for tried in tries
    ):
        raise ValueError(
            "certificate must be that of a Superconcentrator, with a list "
            f"seeds_tried of integers in 1..{ATTEMPTS}. "
            f"Received: certificate={certificate!r}"
        )
    return tries


def _digest(*arrays):
    joined = hashlib.sha256()
    for array in arrays:
        joined.update(array.astype("<i8").tobytes())
    return joined.hexdigest()


def _is_certified(concentrator, m):
    """Whether it passes, computed once for a multigraph."""
    digest = _digest(np.array([m]), concentrator)
    if digest not in _PASSED:
        _PASSED[digest] = _passes(concentrator, m)
    return _PASSED[digest]


def _passes(concentrator, m):
    """Whether the eigenvalues s² of AᵀA are below 24, without the first.

    The first is dD = 48, of the vector of ones. With 48 taken from it, they
    are below 24 if and only if 24 - AᵀA has a Cholesky factorisation.
    """
    pairs = concentrator[:, :, None] * m + concentrator[:, None, :]
    gram = np.bincount(pairs.ravel(), minlength=m * m).reshape(m, m)
    matrix = INPUT_DEGREE * MIDDLE_DEGREE / m - gram
    matrix[np.diag_indices(m)] += EIGENVALUE_BOUND - MARGIN
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _pattern(name, pairs, num_queries, num_keys):
    """A `NeighbourPattern` of int [E, 2], (query, key)."""
    queries, keys = pairs[np.argsort(pairs[:, 0], kind="stable")].T
    counts = np.bincount(queries, minlength=num_queries)
    columns = np.arange(len(keys)) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    neighbours = np.full((num_queries, counts.max()), -1)
    neighbours[queries, columns] = keys
    return NeighbourPattern(neighbours, num_queries, num_keys, name)
