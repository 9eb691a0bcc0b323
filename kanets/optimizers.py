"""Moved to `kanets.train.optimizers`."""

import sys

from kanets.train import optimizers

sys.modules[__name__] = optimizers
sys.modules[f"{__name__}.layerwise"] = optimizers
