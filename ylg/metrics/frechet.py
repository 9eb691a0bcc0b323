"""Frechet distance (Heusel et al. 2017), NumPy in float64.

Letters: B batch, F features, n m numbers of samples.
"""

import numpy as np

from ylg.metrics.samples import (
    check_extractors,
    check_finite,
    check_samples,
    check_sizes,
)


class GaussianStatistics:
    """Mean and covariance of features that come in batches.

    Two sets of n and m samples, with means a and b and scatters S and T
    (sums of outer products of deviations), merge to the mean a + m/(n+m) d
    and the scatter S + T + nm/(n+m) d dᵀ, d = b - a: nothing cancels,
    however far the mean is from zero. Cost: O(B·F²) a batch, O(F²) memory.

    Args:
        extractor: optional name of the extractor, saved with the statistics;
            those of two extractors cannot be merged or compared.

    Attributes:
        count: samples so far. mean: float64 (F,), None without samples.
        covariance: float64 (F, F), over count - 1 as in `np.cov`.

    Example:

    >>> statistics = GaussianStatistics()
    >>> statistics.update([[0.0, 0.0]]).update([[2.0, 4.0]]).covariance
    array([[2., 4.],
           [4., 8.]])

    References: Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979.
    """

    def __init__(self, extractor=None):
        self.extractor = extractor
        self.count = 0
        self.mean = None
        self._scatter = None

    @property
    def covariance(self):
        if self.count < 2:
            raise ValueError(
                "A covariance needs 2 samples or more. "
                f"Received: count={self.count}"
            )
        return self._scatter / (self.count - 1)

    def update(self, features):
        """Adds samples (B, F), any float dtype; returns itself."""
        features = check_samples(features, "features")
        mean = features.mean(axis=0)
        centered = features - mean
        return self._add(len(features), mean, centered.T @ centered)

    def merge(self, other):
        """Adds the samples of other `GaussianStatistics`; returns itself."""
        check_extractors(self.extractor, other.extractor)
        if other.count:
            self._add(other.count, other.mean, other._scatter)
        return self

    def save(self, path):
        """Writes an `.npz` file at exactly this path."""
        arrays = {"count": self.count, "extractor": self.extractor or ""}
        arrays |= {"mean": self.mean, "covariance": self.covariance}
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path):
        """The statistics that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            statistics = cls(str(file["extractor"]) or None)
            count = int(file["count"])
            scatter = file["covariance"] * (count - 1)
            return statistics._add(count, file["mean"], scatter)

    def _add(self, count, mean, scatter):
        if not self.count:
            self.mean, self._scatter = mean, scatter
        else:
            check_sizes(self.mean, mean)
            delta = mean - self.mean
            share = count / (self.count + count)
            self.mean = self.mean + share * delta
            self._scatter = self._scatter + scatter
            self._scatter += self.count * share * np.outer(delta, delta)
        self.count += count
        return self


def frechet_distance(a, b):
    """Frechet distance of two Gaussians, squared: FID on Inception features.

    d² = |μa - μb|² + tr Σa + tr Σb - 2 tr (Σa^½ Σb Σa^½)^½. With factors
    Σ = A Aᵀ of the eigendecompositions, the last trace is the sum of the
    singular values of Aaᵀ Ab, exact for singular covariances too (those of
    F samples or fewer). Few samples bias d² upwards: compare equal counts.

    Args:
        a, b: `GaussianStatistics`, or pairs of a mean (F,) and a symmetric
            positive semi-definite covariance (F, F).

    Returns:
        float, 0 or more.

    Raises:
        ValueError: sizes or extractors that differ, fewer than 2 samples,
            NaN, or a matrix that is no covariance.

    Cost: O(F³), seconds at F = 2048.

    Example:

    >>> round(frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]])), 9)
    10.0

    References: Heusel et al., "GANs Trained by a Two Time-Scale Update
    Rule", NeurIPS 2017, equation 6.
    """
    check_extractors(
        getattr(a, "extractor", None), getattr(b, "extractor", None)
    )
    mean_a, covariance_a = _check_gaussian(a, "a")
    mean_b, covariance_b = _check_gaussian(b, "b")
    check_sizes(mean_a, mean_b)
    product = _factor(covariance_a).T @ _factor(covariance_b)
    cross = np.linalg.svd(product, compute_uv=False).sum()
    squared = np.sum((mean_a - mean_b) ** 2)
    squared += np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return max(float(squared), 0.0)


def _factor(covariance):
    """A with covariance = A Aᵀ, one column per non-zero eigenvalue."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    largest = np.abs(values).max()
    if values.min() < -1e-6 * largest:
        raise ValueError(
            "A covariance must be positive semi-definite. "
            f"Received: smallest eigenvalue={values.min():g}"
        )
    kept = values > len(values) * np.finfo("float64").eps * largest
    return vectors[:, kept] * np.sqrt(values[kept])


def _check_gaussian(gaussian, name):
    if isinstance(gaussian, GaussianStatistics):
        covariance = gaussian.covariance  # Complains of too few samples.
        return gaussian.mean, covariance
    mean, covariance = (np.asarray(x, dtype="float64") for x in gaussian)
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            "A Gaussian must be a mean (F,) and a covariance (F, F). "
            f"Received: {name} of shapes {mean.shape}, {covariance.shape}"
        )
    check_finite(mean, f"{name}[0]")
    check_finite(covariance, f"{name}[1]")
    asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > 1e-6 * np.abs(covariance).max():
        raise ValueError(
            "A covariance must be symmetric. "
            f"Received: {name}[1] with an asymmetry of {asymmetry:g}"
        )
    return mean, covariance
