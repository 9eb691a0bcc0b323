"""Moved to `kanets.attention.patterns`."""

import sys

from kanets.attention import patterns

sys.modules[__name__] = patterns
