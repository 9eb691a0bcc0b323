"""Statistics of features and class probabilities, NumPy in float64.

Frechet distance (Heusel et al. 2017), kernel distance (Binkowski et al.
2018), Inception Score (Salimans et al. 2016), improved precision and recall
(Kynkaanniemi et al. 2019).

Letters: F features, K classes, n m numbers of samples.
"""

import dataclasses

import numpy as np


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
        features = _check_samples(features, "features")
        mean = features.mean(axis=0)
        centered = features - mean
        return self._add(len(features), mean, centered.T @ centered)

    def merge(self, other):
        """Adds the samples of other `GaussianStatistics`; returns itself."""
        _check_extractors(self.extractor, other.extractor)
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
            _check_sizes(self.mean, mean)
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
    _check_extractors(
        getattr(a, "extractor", None), getattr(b, "extractor", None)
    )
    mean_a, covariance_a = _check_gaussian(a, "a")
    mean_b, covariance_b = _check_gaussian(b, "b")
    _check_sizes(mean_a, mean_b)
    product = _factor(covariance_a).T @ _factor(covariance_b)
    cross = np.linalg.svd(product, compute_uv=False).sum()
    squared = np.sum((mean_a - mean_b) ** 2)
    squared += np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return max(float(squared), 0.0)


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
    features_a, features_b, subsets=100, subset_size=None, seed=0
):
    """Kernel distance (KID): unbiased MMD² with a cubic kernel.

    With k(x, y) = (x·y / F + 1)³ and s samples of each set,
    MMD² = Σ_{i≠j} [k(ai, aj) + k(bi, bj)] / s(s-1) - 2 Σ_{ij} k(ai, bj) / s²,
    averaged over random subsets, each drawn without replacement. Unlike the
    Frechet distance it expects 0 for equal distributions at any sample size,
    and so may fall below 0.

    Args:
        features_a, features_b: float arrays (n, F) and (m, F).
        subsets: int, number of subsets.
        subset_size: s; default 1000, or half the smaller set if that is less
            (2 at least).
        seed: int, of the choice of subsets.

    Returns:
        `KernelDistance`.

    Raises:
        ValueError: sizes that differ, NaN, or sets smaller than the subsets.

    Cost: O(subsets·s²·F) time, O(s²) memory.

    References: Binkowski et al., "Demystifying MMD GANs", ICLR 2018,
    section 4.
    """
    a = _check_samples(features_a, "features_a", 2)
    b = _check_samples(features_b, "features_b", 2)
    _check_sizes(a[0], b[0])
    smaller = min(len(a), len(b))
    if subset_size is None:
        subset_size = min(1000, max(2, smaller // 2))
    if subsets < 1 or not 2 <= subset_size <= smaller:
        raise ValueError(
            "kernel_distance needs 1 subset or more, of 2 samples or more and "
            f"at most the smaller set, {smaller}. "
            f"Received: subsets={subsets}, subset_size={subset_size}"
        )
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        x = a[rng.choice(len(a), subset_size, replace=False)]
        y = b[rng.choice(len(b), subset_size, replace=False)]
        within = _off_diagonal_mean(_kernel(x, x))
        within += _off_diagonal_mean(_kernel(y, y))
        found.append(within - 2 * _kernel(x, y).mean())
    return KernelDistance(
        float(np.mean(found)), float(np.std(found)), subsets, subset_size
    )


def inception_score(probabilities, splits=10):
    """Inception Score: exp E_x KL(p(y|x) || p(y)), from 1 to K.

    Args:
        probabilities: float array (n, K), rows that sum to 1, in random
            order: samples sorted by class would lower the score.
        splits: int, contiguous parts that are scored on their own.

    Returns:
        Mean and standard deviation over the parts, floats.

    Raises:
        ValueError: rows that are no probabilities, fewer samples than parts.

    Example:

    >>> inception_score(np.eye(4), splits=1)
    (4.0, 0.0)

    References: Salimans et al., "Improved Techniques for Training GANs",
    NeurIPS 2016, section 4.
    """
    p = _check_samples(probabilities, "probabilities")
    error = np.abs(p.sum(axis=1) - 1).max()
    if p.min() < 0 or error > 1e-3:
        raise ValueError(
            "Rows of probabilities must be 0 or more and sum to 1; logits "
            f"need a softmax. Received: min={p.min():g}, sums off by {error:g}"
        )
    if not 1 <= splits <= len(p):
        raise ValueError(
            f"splits must be between 1 and the number of samples, {len(p)}. "
            f"Received: splits={splits}"
        )
    scores = []
    for part in np.array_split(p, splits):
        marginal = np.broadcast_to(part.mean(axis=0), part.shape)
        seen = part > 0  # 0 log 0 is 0.
        terms = part[seen] * np.log(part[seen] / marginal[seen])
        scores.append(np.exp(terms.sum() / len(part)))
    return float(np.mean(scores)), float(np.std(scores))


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
        ValueError: sizes that differ, NaN, or k samples or fewer.

    Cost: O((n + m)²·F) time, O(chunk·(n + m)) memory beside the features.

    References: Kynkaanniemi et al., "Improved Precision and Recall Metric
    for Assessing Generative Models", NeurIPS 2019, equations 1 and 2.
    """
    if k < 1 or chunk < 1:
        raise ValueError(
            f"k and chunk must be 1 or more. Received: k={k}, chunk={chunk}"
        )
    real = _check_samples(real, "real", k + 1)
    fake = _check_samples(fake, "fake", k + 1)
    _check_sizes(real[0], fake[0])
    center = real.mean(axis=0)  # Distances cancel less near the origin.
    real, fake = real - center, fake - center
    precision = _share_inside(fake, real, _radii(real, k, chunk), chunk)
    recall = _share_inside(real, fake, _radii(fake, k, chunk), chunk)
    return precision, recall


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


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(matrix):
    n = len(matrix)
    return (matrix.sum() - np.trace(matrix)) / (n * (n - 1))


def _squared_distances(a, b):
    norms = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)
    squared = norms - 2 * a @ b.T
    squared[squared < 1e-12 * norms] = 0.0  # Equal samples, to rounding.
    return squared


def _radii(points, k, chunk):
    radii = []
    for start in range(0, len(points), chunk):
        part = _squared_distances(points[start : start + chunk], points)
        rows = np.arange(len(part))
        part[rows, start + rows] = np.inf  # A sample is not its neighbour.
        radii.append(np.partition(part, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)


def _share_inside(points, centers, radii, chunk):
    inside = 0
    for start in range(0, len(points), chunk):
        part = _squared_distances(points[start : start + chunk], centers)
        inside += np.any(part <= radii, axis=1).sum()
    return float(inside / len(points))


def _check_samples(samples, name, minimum=1):
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
    _check_finite(samples, name)
    return samples


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
    _check_finite(mean, f"{name}[0]")
    _check_finite(covariance, f"{name}[1]")
    asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > 1e-6 * np.abs(covariance).max():
        raise ValueError(
            "A covariance must be symmetric. "
            f"Received: {name}[1] with an asymmetry of {asymmetry:g}"
        )
    return mean, covariance


def _check_finite(values, name):
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"{name} must be finite. Received: {name} with {bad} NaN or "
            "infinite values"
        )


def _check_sizes(a, b):
    if a.shape != b.shape:
        raise ValueError(
            "Both sides must have the same number of features. "
            f"Received: F={a.shape[-1]} and F={b.shape[-1]}"
        )


def _check_extractors(a, b):
    if a and b and a != b:
        raise ValueError(
            "Statistics must come from the same extractor. "
            f"Received: extractor={a!r} and extractor={b!r}"
        )
