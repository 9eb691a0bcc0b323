"""Moved to `kanets.attention.superconcentrator_attention`."""

import sys

from kanets.attention import superconcentrator_attention

sys.modules[__name__] = superconcentrator_attention
