"""Moved to `kanets.train.augment`."""

import sys

from kanets.train import augment

sys.modules[__name__] = augment
