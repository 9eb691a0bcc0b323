"""Moved to `kanets.attention.sparse`."""

import sys

from kanets.attention import sparse

sys.modules[__name__] = sparse
