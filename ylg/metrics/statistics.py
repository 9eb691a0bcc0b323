"""Statistics of features and class probabilities, each in a file of its own."""

from ylg.metrics.coverage import precision_recall
from ylg.metrics.frechet import GaussianStatistics, frechet_distance
from ylg.metrics.kernel import KernelDistance, kernel_distance
from ylg.metrics.scores import inception_score

__all__ = [
    "GaussianStatistics",
    "KernelDistance",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "precision_recall",
]
