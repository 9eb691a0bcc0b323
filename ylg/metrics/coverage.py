"""Improved precision and recall (Kynkaanniemi et al. 2019), in float64.

Letters: F features, n m numbers of samples.
"""

import numpy as np

from kanets.attention.checks import check_positive
from ylg.metrics.samples import (
    check_samples,
    check_sizes,
    squared_distances,
)


def precision_recall(real, fake, k=3, chunk=1024):
    """Improved precision and recall: do the two sets cover one another?

    A set's manifold is the union of the balls around its samples, each out to
    its k-th nearest other sample. Precision is the share of `fake` inside the
    manifold of `real` (quality), recall that of `real` inside the manifold of
    `fake` (variety). Both move with n and m: compare equal counts.

    Args:
        real, fake: float arrays (n, F) and (m, F).
        k: int, below n and m.
        chunk: int, rows of the distance matrix held at a time.

    Returns:
        Precision and recall, floats in [0, 1].

    Raises:
        ValueError: sizes that differ, NaN, k samples or fewer, or a k or chunk
            that is no positive integer.

    Cost: O((n + m)²·F) time, O(chunk·(n + m)) memory beside the features.

    References: Kynkaanniemi et al., "Improved Precision and Recall Metric
    for Assessing Generative Models", NeurIPS 2019, equations 1 and 2.
    """
    k, chunk = check_positive(k=k, chunk=chunk)
    real = check_samples(real, "real", k + 1)
    fake = check_samples(fake, "fake", k + 1)
    check_sizes(real[0], fake[0])
    center = real.mean(axis=0)  # Distances cancel less near the origin.
    real, fake = real - center, fake - center
    precision = _share_inside(fake, real, _radii(real, k, chunk), chunk)
    recall = _share_inside(real, fake, _radii(fake, k, chunk), chunk)
    return precision, recall


def _radii(points, k, chunk):
    radii = []
    for start in range(0, len(points), chunk):
        part = squared_distances(points[start : start + chunk], points)
        rows = np.arange(len(part))
        part[rows, start + rows] = np.inf  # A sample is not its neighbour.
        radii.append(np.partition(part, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)


def _share_inside(points, centers, radii, chunk):
    inside = 0
    for start in range(0, len(points), chunk):
        part = squared_distances(points[start : start + chunk], centers)
        inside += np.any(part <= radii, axis=1).sum()
    return float(inside / len(points))
