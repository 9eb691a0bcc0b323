"""Kernel distance (Binkowski et al. 2018), NumPy in float64.

Letters: F features, n m numbers of samples.
"""

import dataclasses

import numpy as np

from kanets.checks import as_integer, is_number, is_positive
from ylg.metrics.samples import (
    check_samples,
    check_sizes,
    squared_distances,
)


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """What `kernel_distance` found.

    Attributes:
        value: mean of the estimates over the subsets.
        std: standard deviation of one subset's estimate. Subsets overlap, so
            it is not the error of `value`, and it shrinks to nothing where
            they are the whole sets.
        subsets, subset_size: how many subsets, and samples in each.
    """

    value: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    features_a,
    features_b,
    subsets=100,
    subset_size=None,
    seed=0,
    *,
    kernel="polynomial",
    degree=3,
    gamma=None,
    coef0=1.0,
    sigma=10.0,
):
    """Kernel distance (KID): unbiased MMD² with a cubic kernel.

    With k(x, y) = (gamma x·y + coef0)^degree, or with the kernel "rbf"
    exp(-|x - y|² / 2 sigma²), and s samples of each set,
    MMD² = Σ_{i≠j} [k(ai, aj) + k(bi, bj)] / s(s-1) - 2 Σ_{ij} k(ai, bj) / s²,
    averaged over random subsets, each drawn without replacement. Unlike the
    Frechet distance it expects 0 for equal distributions at any sample size,
    and so may fall below 0.

    With the same seed the subsets are torch-fidelity's where `features_a` are
    its first input's, and clean-fid's where they are its second folder's.

    Args:
        features_a, features_b: float arrays (n, F) and (m, F).
        subsets: int, number of subsets.
        subset_size: s; default 1000, or half the smaller set if that is less
            (2 at least).
        seed: int, of the choice of subsets: NumPy's `RandomState` draws one
            of the first set, then one of the second.
        kernel: "polynomial" or "rbf".
        degree, gamma, coef0: of the polynomial kernel; gamma None is 1 / F.
        sigma: of the other.

    Returns:
        `KernelDistance`.

    Raises:
        ValueError: sizes that differ, NaN, an unknown kernel, a sigma that is
            not positive, counts that are no integers, or sets smaller than
            the subsets.

    Cost: O(subsets·s²·F) time, O(s²) memory.

    References: Binkowski et al., "Demystifying MMD GANs", ICLR 2018,
    section 4.
    """
    a = check_samples(features_a, "features_a", 2)
    b = check_samples(features_b, "features_b", 2)
    check_sizes(a[0], b[0])
    smaller = min(len(a), len(b))
    if subset_size is None:
        subset_size = min(1000, max(2, smaller // 2))
    sizes = range(2, smaller + 1)
    if not is_positive(subsets) or as_integer(subset_size) not in sizes:
        raise ValueError(
            "kernel_distance needs 1 subset or more, of 2 samples or more and "
            f"at most the smaller set, {smaller}. "
            f"Received: subsets={subsets!r}, subset_size={subset_size!r}"
        )
    if kernel not in ("polynomial", "rbf"):
        raise ValueError(
            "A kernel must be 'polynomial' or 'rbf'. "
            f"Received: kernel={kernel!r}"
        )
    if not is_number(sigma) or sigma <= 0:
        raise ValueError(
            f"sigma must be a positive number. Received: sigma={sigma!r}"
        )
    gamma = 1 / a.shape[1] if gamma is None else gamma

    def k(x, y):
        if kernel == "rbf":
            return np.exp(-squared_distances(x, y) / (2 * sigma**2))
        return (gamma * (x @ y.T) + coef0) ** degree

    rng = np.random.RandomState(seed)  # as those that figures are cited from
    found = []
    for _ in range(subsets):
        x = a[rng.choice(len(a), subset_size, replace=False)]
        y = b[rng.choice(len(b), subset_size, replace=False)]
        within = _off_diagonal_mean(k(x, x)) + _off_diagonal_mean(k(y, y))
        found.append(within - 2 * k(x, y).mean())
    return KernelDistance(
        float(np.mean(found)), float(np.std(found)), subsets, subset_size
    )


def _off_diagonal_mean(matrix):
    n = len(matrix)
    return (matrix.sum() - np.trace(matrix)) / (n * (n - 1))
