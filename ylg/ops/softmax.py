"""Moved to `kanets.attention.core`."""

import sys

from kanets.attention import core

sys.modules[__name__] = core
