"""Inception Score (Salimans et al. 2016), NumPy in float64.

Letters: K classes, n number of samples.
"""

import itertools

import numpy as np

from kanets.checks import as_integer
from ylg.metrics.samples import check_samples


def inception_score(probabilities, splits=10, *, seed=None, from_logits=False):
    """Inception Score: exp E_x KL(p(y|x) || p(y)), from 1 to K.

    Args:
        probabilities: float array (n, K), rows that sum to 1.
        splits: int, parts that are scored on their own: part i holds the rows
            from i·n // splits to (i + 1)·n // splits.
        seed: int, NumPy's `RandomState` shuffles the rows with it; None takes
            them as they are: samples sorted by class would lower the score.
        from_logits: whether logits are given instead; those of Inception
            without the bias, as the published score has it.

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
    p = check_samples(probabilities, "probabilities")
    if from_logits:
        p = np.exp(p - p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    error = np.abs(p.sum(axis=1) - 1).max()
    if p.min() < 0 or error > 1e-3:
        raise ValueError(
            "Rows of probabilities must be 0 or more and sum to 1; logits "
            f"need a softmax. Received: min={p.min():g}, sums off by {error:g}"
        )
    if as_integer(splits) not in range(1, len(p) + 1):
        raise ValueError(
            "splits must be an integer between 1 and the number of samples, "
            f"{len(p)}. Received: splits={splits!r}"
        )
    if seed is not None:
        p = p[np.random.RandomState(seed).permutation(len(p))]
    scores = []
    edges = np.arange(splits + 1) * len(p) // splits
    for start, end in itertools.pairwise(edges):
        part = p[start:end]
        marginal = np.broadcast_to(part.mean(axis=0), part.shape)
        seen = part > 0  # 0 log 0 is 0.
        terms = part[seen] * np.log(part[seen] / marginal[seen])
        scores.append(np.exp(terms.sum() / len(part)))
    return float(np.mean(scores)), float(np.std(scores))
