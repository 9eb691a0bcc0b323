"""Moved to `kanets.attention.local_sparse`."""

import sys

from kanets.attention import local_sparse

sys.modules[__name__] = local_sparse
