"""Layers of ours with the weights of other people's code, from its arrays."""

from pathlib import Path

import numpy as np

from tests.attention import (
    golden_axial,
    golden_convnets,
    golden_hashing,
    golden_local,
    golden_spans,
)

KINDS = {
    **golden_axial.KINDS,
    **golden_convnets.KINDS,
    **golden_hashing.KINDS,
    **golden_local.KINDS,
    **golden_spans.KINDS,
}


def from_golden(file, case, arrays):
    """The layer that a case of a golden file describes.

    Args:
        file: name of the file; its beginning tells the kind.
        case: name of the case.
        arrays: dict of the case's arrays by their names without the case.

    Returns:
        The layer, built, or a list of layers, or None where there is none;
        and a function from the stored inputs, by their stored names, to what
        `output` holds.
    """
    for beginning, make in KINDS.items():
        if Path(file).name.startswith(beginning):
            return make(case, arrays)
    raise ValueError(f"There is no kind for {file}.")


def cases(path, separator="/"):
    """The arrays of a file, by case and name."""
    found = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            case, _, name = key.partition(separator)
            found.setdefault(case, {})[name] = arrays[key]
    return found
