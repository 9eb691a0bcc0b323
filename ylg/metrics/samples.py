"""Features and probabilities, one row a picture: checks, distances.

Letters: F features, n number of samples.
"""

import numpy as np


def check_samples(samples, name, minimum=1):
    samples = np.asarray(samples, dtype="float64")
    if samples.ndim != 2:
        raise ValueError(
            f"{name} must be of rank 2, one row per sample. "
            f"Received: {name}.shape={samples.shape}"
        )
    if len(samples) < minimum or not samples.shape[1]:
        raise ValueError(
            f"{name} must have {minimum} or more samples and 1 or more "
            f"columns. Received: {name}.shape={samples.shape}"
        )
    check_finite(samples, name)
    return samples


def check_finite(values, name):
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"{name} must be finite. Received: {name} with {bad} NaN or "
            "infinite values"
        )


def check_sizes(a, b):
    if a.shape != b.shape:
        raise ValueError(
            "Both sides must have the same number of features. "
            f"Received: F={a.shape[-1]} and F={b.shape[-1]}"
        )


def squared_distances(a, b):
    """Float64 (n, m) of the rows of (n, F) and (m, F); 0 to rounding is 0."""
    norms = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)
    squared = norms - 2 * a @ b.T
    squared[squared < 1e-12 * norms] = 0.0
    return squared


def check_extractors(a, b):
    if a and b and a != b:
        raise ValueError(
            "Statistics must come from the same extractor. "
            f"Received: extractor={a!r} and extractor={b!r}"
        )
