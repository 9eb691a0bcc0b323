"""Frechet distance (Heusel et al. 2017), NumPy in float64.

Letters: B batch, F features, n m numbers of samples.
"""

import zipfile

import numpy as np

from kanets.files import whole
from ylg.metrics.samples import (
    check_extractors,
    check_finite,
    check_samples,
    check_sizes,
)

# What NumPy says of another file, and of one that is cut off.
_NO_STATISTICS = (
    *(ValueError, TypeError, KeyError, EOFError),
    zipfile.BadZipFile,
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
        """Adds the samples of other `GaussianStatistics`; returns itself.

        Statistics of no named extractor get the name of the other's.
        """
        check_extractors(self.extractor, other.extractor)
        if self.extractor is None:
            self.extractor = other.extractor
        if other.count:
            self._add(other.count, other.mean, other._scatter)
        return self

    def save(self, path):
        """Writes an `.npz` file at exactly this path, whole or not at all.

        It holds count, extractor, mean and covariance; the name of an
        extractor of `inception_2015` has graph, resize and weights' hash.
        """
        arrays = {"count": self.count, "extractor": self.extractor or ""}
        arrays |= {"mean": self.mean, "covariance": self.covariance}
        size = sum(np.asarray(array).nbytes for array in arrays.values())
        with whole(path, size) as fresh, fresh.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path, extractor=None, count=None):
        """The statistics that `save` wrote.

        Args:
            path: the file.
            extractor, count: what its extractor and number of samples must
                be, where they must.

        Raises:
            ValueError: it holds no such statistics, or those of another
                extractor or of another number of samples.
            OSError: no file there.
        """
        try:
            # NumPy does not close what it opened of a broken file.
            with open(path, "rb") as file, np.load(file) as arrays:
                statistics = cls(str(arrays["extractor"]) or None)
                kept = int(arrays["count"])
                scatter = arrays["covariance"] * (kept - 1)
                statistics._add(kept, arrays["mean"], scatter)
        except _NO_STATISTICS as error:
            raise ValueError(
                "Statistics must be a file that GaussianStatistics.save "
                f"wrote. Received: {str(path)!r} ({error})"
            ) from error
        for name, wanted in (("extractor", extractor), ("count", count)):
            found = getattr(statistics, name)
            if wanted not in (None, found):
                raise ValueError(
                    f"These statistics must be of {name} {wanted!r}: remove "
                    "the file to have it written anew. "
                    f"Received: {str(path)!r}, of {name} {found!r}"
                )
        return statistics

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
    Σ = A Aᵀ, of the eigendecompositions or of few centred samples, the last
    trace is the sum of the singular values of Aaᵀ Ab, exact for singular
    covariances too (those of F samples or fewer). Few samples bias d²
    upwards: compare equal counts.

    Args:
        a, b: `GaussianStatistics`; or features, float arrays (n, F); or pairs
            of a mean (F,) and a symmetric positive semi-definite covariance
            (F, F).

    Returns:
        float, 0 or more.

    Raises:
        ValueError: sizes or extractors that differ, fewer than 2 samples,
            NaN, or a matrix that is no covariance.

    Cost: O(F³), half a minute at F = 2048 on one core; of features of n
    samples and fewer than F, O(n²·F).

    Example:

    >>> round(frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]])), 9)
    10.0

    References: Heusel et al., "GANs Trained by a Two Time-Scale Update
    Rule", NeurIPS 2017, equation 6.
    """
    check_extractors(
        getattr(a, "extractor", None), getattr(b, "extractor", None)
    )
    mean_a, factor_a = _mean_and_factor(a, "a")
    mean_b, factor_b = _mean_and_factor(b, "b")
    check_sizes(mean_a, mean_b)
    cross = np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum()
    squared = np.sum((mean_a - mean_b) ** 2)
    squared += np.sum(factor_a**2) + np.sum(factor_b**2) - 2 * cross
    return max(float(squared), 0.0)


def _mean_and_factor(gaussian, name):
    """The mean, and A with the covariance A Aᵀ."""
    if hasattr(gaussian, "shape"):
        features = check_samples(gaussian, name, 2)
        if len(features) <= features.shape[1]:  # no need of eigenvalues
            mean = features.mean(axis=0)
            return mean, (features - mean).T / np.sqrt(len(features) - 1)
        gaussian = GaussianStatistics().update(features)
    mean, covariance = _check_gaussian(gaussian, name)
    return mean, _factor(covariance)


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
