"""Moved to `kanets.train.checkpoints`."""

import sys

from kanets.train import checkpoints

sys.modules[__name__] = checkpoints
