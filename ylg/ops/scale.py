"""Moved to `kanets.attention.checks`."""

import sys

from kanets.attention import checks

sys.modules[__name__] = checks
