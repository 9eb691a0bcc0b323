"""Quality of generated pictures, measured on the features of a classifier.

Frechet distance (Heusel et al. 2017), kernel distance (Binkowski et al.
2018), Inception Score (Salimans et al. 2016), improved precision and recall
(Kynkaanniemi et al. 2019). A figure means something only beside the name of
its extractor and the numbers of pictures, so `evaluate` returns them too;
`inception_2015` is the extractor of published figures (docs/gan-metrics.md).
Pictures pass through Keras; the statistics are NumPy in float64.

Letters: B batch, H W grid, F features, K classes, n m numbers of samples.
"""

import keras  # noqa: F401, before ours: see `ylg.registered`

from ylg.metrics.evaluation import cached_statistics, evaluate
from ylg.metrics.extractors import (
    FeatureExtractor,
    classifier_features,
    inception_2015,
    inception_v3,
)
from ylg.metrics.inception_graph import InceptionV3_2015
from ylg.metrics.inception_weights import load_inception_weights
from ylg.metrics.resizing import normalize, resize
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
    "InceptionV3_2015",
    "KernelDistance",
    "cached_statistics",
    "classifier_features",
    "evaluate",
    "frechet_distance",
    "inception_2015",
    "inception_score",
    "inception_v3",
    "kernel_distance",
    "load_inception_weights",
    "normalize",
    "precision_recall",
    "resize",
]
