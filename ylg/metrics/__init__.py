"""Quality of generated pictures, measured on the features of a classifier.

Frechet distance (Heusel et al. 2017), kernel distance (Binkowski et al.
2018), Inception Score (Salimans et al. 2016), improved precision and recall
(Kynkaanniemi et al. 2019). A figure means something only beside the name of
its extractor and the numbers of pictures, so `evaluate` returns them too.
Pictures pass through Keras; the statistics are NumPy in float64.

Letters: B batch, H W grid, F features, K classes, n m numbers of samples.
"""

import keras  # noqa: F401, before ours: see `ylg.registered`

from ylg.metrics.evaluation import evaluate
from ylg.metrics.extractors import (
    FeatureExtractor,
    classifier_features,
    inception_v3,
)
from ylg.metrics.statistics import (
    GaussianStatistics,
    KernelDistance,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)

__all__ = [
    "FeatureExtractor",
    "GaussianStatistics",
    "KernelDistance",
    "classifier_features",
    "evaluate",
    "frechet_distance",
    "inception_score",
    "inception_v3",
    "kernel_distance",
    "precision_recall",
]
