"""Moved to `kanets.attention.kernels.xla`."""

import sys

from kanets.attention.kernels import xla

sys.modules[__name__] = xla
