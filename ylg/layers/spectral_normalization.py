"""Moved to `kanets.attention.spectral_normalization`."""

import sys

from kanets.attention import spectral_normalization

sys.modules[__name__] = spectral_normalization
