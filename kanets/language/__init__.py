"""Models of pictures and sentences, on the maps of a net."""

import keras  # noqa: F401, before ours: see `kanets.registered`

from kanets.language.captioner import Captioner
from kanets.language.matcher import Matcher

__all__ = ["Captioner", "Matcher"]
