"""Moved to `kanets.attention.kernels.pallas`."""

import sys

from kanets.attention.kernels import pallas

sys.modules[__name__] = pallas
