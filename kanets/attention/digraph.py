"""Graphs of steps of attention: from the keys to the queries that see them.

`ylg.information_flow` says what reaches what in them.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Digraph:
    """Edges int [E, 2] (from, to), and the vertices in and out, int [n]."""

    edges: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray

    def __post_init__(self):
        for name, shape in {
            "edges": (-1, 2),
            "inputs": -1,
            "outputs": -1,
        }.items():
            array = np.asarray(getattr(self, name)).reshape(shape)
            object.__setattr__(self, name, array)
        sizes = [len(ends) for ends in (self.inputs, self.outputs)]
        distinct = [
            len(set(ends.tolist())) for ends in (self.inputs, self.outputs)
        ]
        if sizes != distinct or sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                "A graph needs as many distinct inputs as distinct outputs. "
                f"Received: {sizes} inputs and outputs, {distinct} distinct"
            )


def union_edges(heads):
    """int64 [E, 2], the (key, query) that one of the patterns has."""
    found, queries = [], heads[0].num_queries
    for pattern in heads:
        rows, columns = np.nonzero(pattern.neighbours >= 0)
        keys = pattern.neighbours[rows, columns].astype(np.int64)
        found.append(keys * queries + rows)
    return np.stack(np.divmod(np.unique(np.concatenate(found)), queries), 1)
