"""Moved to `kanets.attention.kernels.reference`."""

import sys

from kanets.attention.kernels import reference

sys.modules[__name__] = reference
