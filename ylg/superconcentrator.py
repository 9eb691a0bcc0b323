"""Moved to `kanets.attention.superconcentrator`."""

import sys

from kanets.attention import superconcentrator

sys.modules[__name__] = superconcentrator
