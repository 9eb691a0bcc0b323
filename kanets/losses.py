"""Moved to `kanets.train.losses`."""

import sys

from kanets.train import losses

sys.modules[__name__] = losses
