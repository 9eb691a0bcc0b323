"""What do sparse patterns connect, and what does a superconcentrator cost?

    python benchmarks/information_flow.py

writes `benchmarks/information_flow.csv`. Pattern rows: the edges of a sequence
of steps beside one dense step, whether each input reaches each output, and how
many steps that takes if the sequence is repeated. All rows: whether the graph
passed as a superconcentrator, by maximum flow, and in how many pairs of sets.
`largest_s2` is the largest second eigenvalue of the concentrators; Tanner's
bound holds up to 24.
"""

import platform
from pathlib import Path

import numpy as np
import scipy
from tables import write

from ylg.information_flow import InformationFlowGraph, is_superconcentrator
from ylg.patterns import make_patterns, ylg_heads
from ylg.superconcentrator import Superconcentrator

OUTPUT = Path(__file__).with_suffix(".csv")
SHAPES = (64, 1000, 1024, (8, 8), (16, 16), (30, 40), (32, 32), (64, 64))
STEPS = {
    "LTR": ("left_floor", "left_repetitive"),
    "RTL": ("right_floor", "right_repetitive"),
    "strided, window first": ("strided_window", "strided_repetitive"),
    "strided, window last": ("strided_repetitive", "strided_window"),
}
PATTERN_SAMPLES = 100
# n, base size, samples (None: all pairs)
SUPERCONCENTRATORS = (
    (7, 6, None),
    (8, 6, None),
    (64, 34, 4000),
    (256, 34, 2000),
    (1024, 34, 500),
    (4096, 34, 50),
)
FIELDS = (
    "graph",
    "shape",
    "partial_block",
    "steps",
    "edges",
    "dense_edges",
    "edges_per_input",
    "full_information",
    "steps_needed",
    "missing_pairs",
    "largest_s2",
    "most_seeds_tried",
    "superconcentrator",
    "pairs_checked",
    "exhaustive",
    "numpy",
    "scipy",
    "machine",
)


def pattern_row(name, shape, partial_block):
    if name == "YLG, eight heads":
        steps = [ylg_heads(shape, partial_block=partial_block)]
    else:
        steps = make_patterns(STEPS[name], shape, partial_block=partial_block)
    graph = InformationFlowGraph(steps)
    n = len(graph.digraph.inputs)
    check = is_superconcentrator(graph, samples=PATTERN_SAMPLES)
    return {
        "graph": name,
        "shape": "x".join(map(str, np.atleast_1d(shape))),
        "partial_block": partial_block,
        **counts(graph, n),
        "full_information": graph.has_full_information(),
        "steps_needed": graph.steps_to_full_information(16) or "never",
        "missing_pairs": len(graph.missing_pairs()),
        **flow(check),
    }


def superconcentrator_row(n, base_size, samples):
    graph = Superconcentrator(n, base_size=base_size)
    check = is_superconcentrator(graph, samples=samples)
    values = map(second_eigenvalue, graph.concentrators, graph.sizes[1:])
    return {
        "graph": f"superconcentrator, base size {base_size}",
        "shape": n,
        **counts(graph, n),
        "full_information": True,
        "steps_needed": graph.num_steps,
        "missing_pairs": 0,
        "largest_s2": round(max(values), 4),
        "most_seeds_tried": max(graph.seeds_tried),
        **flow(check),
    }


def counts(graph, n):
    return {
        "steps": graph.num_steps,
        "edges": graph.num_edges,
        "dense_edges": n * n,
        "edges_per_input": round(graph.num_edges / n, 2),
    }


def flow(check):
    return {
        "superconcentrator": check.passed,
        "pairs_checked": check.pairs_checked,
        "exhaustive": check.exhaustive,
    }


def second_eigenvalue(concentrator, m):
    """Computed anew, as the graph only knows that it is below 24."""
    matrix = np.zeros((len(concentrator), m))
    np.add.at(matrix, (np.arange(len(matrix))[:, None], concentrator), 1)
    return float(np.linalg.eigvalsh(matrix.T @ matrix)[-2])


def rows():
    for shape in SHAPES:
        for name in (*STEPS, "YLG, eight heads"):
            for partial_block in (False, True):
                if not (partial_block and "strided" in name):
                    yield pattern_row(name, shape, partial_block)
    for arguments in SUPERCONCENTRATORS:
        yield superconcentrator_row(*arguments)


def main():
    versions = {
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
    }
    found = []
    for row in rows():
        print(row, flush=True)
        found.append(row | versions)
    write(OUTPUT, found, FIELDS)


if __name__ == "__main__":
    main()
