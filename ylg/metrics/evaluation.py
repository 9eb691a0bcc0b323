"""All metrics of generated pictures in one report.

Letters: H W grid, F features, n m numbers of pictures.
"""

from pathlib import Path

import numpy as np

from kanets.checks import is_positive
from ylg.metrics.coverage import precision_recall
from ylg.metrics.frechet import GaussianStatistics, frechet_distance
from ylg.metrics.kernel import kernel_distance
from ylg.metrics.samples import check_extractors
from ylg.metrics.scores import inception_score


def evaluate(
    real,
    fake,
    extractor,
    *,
    real_range=None,
    fake_range=None,
    max_count=None,
    k=3,
    splits=10,
    subsets=100,
    subset_size=None,
    seed=0,
):
    """All metrics of generated pictures against real ones.

    Args:
        real, fake: pictures (n, H, W, 3), or an iterable of batches of them
            (generator, `tf.data.Dataset`, `PyDataset`) or of tuples that
            start with such a batch; uint8, or float in [-1, 1]. `real` may
            be the `GaussianStatistics` of its features, of the same
            extractor: then only what these tell is measured.
        extractor: a `FeatureExtractor`.
        real_range, fake_range: pair, the range of pixels where it is
            another; (0, 255) for the float batches of `kanets.data`.
        max_count: int, take at most so many pictures of each; needed where
            an iterable never ends.
        k: of `precision_recall`; None leaves it out (it is the slow one).
        splits: of `inception_score`.
        subsets, subset_size: of `kernel_distance`.
        seed: of both.

    Returns:
        A dict with "frechet_distance"; of pictures, "kernel_distance",
        "kernel_distance_std", "precision" and "recall" (with `k`);
        "inception_score" and "inception_score_std" (of `fake`, where the
        extractor gives probabilities), "extractor" (its name), "real_count"
        and "fake_count".

    Raises:
        ValueError: no pictures, and what the metrics and extractor raise.

    Cost: holds all features, 4·(n + m)·F bytes, twice that in float64.
    """
    known = isinstance(real, GaussianStatistics)
    if known:
        check_extractors(real.extractor, extractor.name)
    else:
        real, _ = _extract(real, "real", extractor, real_range, max_count)
    fake, probabilities = _extract(
        fake, "fake", extractor, fake_range, max_count
    )
    if known:
        report = {"frechet_distance": frechet_distance(real, fake)}
    else:
        report = distances(real, fake, subsets, subset_size, seed)
        if k is not None:
            precision, recall = precision_recall(real, fake, k)
            report |= {"precision": precision, "recall": recall}
    if probabilities is not None:
        score, std = inception_score(probabilities, splits, seed=seed)
        report |= {"inception_score": score, "inception_score_std": std}
    real_count = real.count if known else len(real)
    counts = {"real_count": real_count, "fake_count": len(fake)}
    return report | {"extractor": extractor.name} | counts


def cached_statistics(
    path, pictures, extractor, *, value_range=None, count=None
):
    """Statistics of pictures' features, kept in a file.

    Args:
        path: `.npz` file; read where it is, otherwise written.
        pictures, value_range: as `real` and `real_range` of `evaluate`.
        extractor: a `FeatureExtractor`.
        count: int, the number of pictures, if it is known; a file of another
            is refused.

    Returns:
        `GaussianStatistics`.

    Raises:
        ValueError: a file of another extractor (its name tells the resize and
            the weights) or number of pictures, and as `evaluate`.
        OSError: the file could not be written.

    Cost: holds no more than one batch's features.
    """
    if Path(path).exists():
        return GaussianStatistics.load(path, extractor.name, count)
    statistics = GaussianStatistics(extractor.name)
    for features, _ in _features(pictures, extractor, value_range, None):
        statistics.update(features)
    statistics.save(path)
    return statistics


def distances(real, fake, subsets=100, subset_size=None, seed=0):
    """Frechet and kernel distance of features, as `evaluate` reports them.

    Args:
        real, fake: float arrays (n, F) and (m, F).
        subsets, subset_size, seed: of `kernel_distance`.

    Returns:
        A dict of the distances and the deviation of the latter.
    """
    kernel = kernel_distance(fake, real, subsets, subset_size, seed)
    return {
        "frechet_distance": frechet_distance(real, fake),
        "kernel_distance": kernel.value,
        "kernel_distance_std": kernel.std,
    }


def _extract(pictures, name, extractor, value_range, max_count):
    if max_count is not None and not is_positive(max_count):
        raise ValueError(
            f"max_count must be 1 or more. Received: max_count={max_count}"
        )
    found = list(_features(pictures, extractor, value_range, max_count))
    if not found:
        raise ValueError(f"There must be pictures. Received: {name}=no batch")
    features, probabilities = zip(*found, strict=True)
    if probabilities[0] is None:
        return np.concatenate(features), None
    return np.concatenate(features), np.concatenate(probabilities)


def _features(pictures, extractor, value_range, max_count):
    """Features and probabilities, batch by batch."""
    count = 0
    for batch in [pictures] if hasattr(pictures, "shape") else pictures:
        batch = batch[0] if isinstance(batch, list | tuple) else batch
        if max_count is not None:
            batch = batch[: max_count - count]
        yield extractor(batch, value_range)
        count += len(batch)
        if count == max_count:
            break
