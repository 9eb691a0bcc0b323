"""Moved to `kanets.train.recipes`."""

import sys

from kanets.train import recipes

# Its modules, too: found by the former name, they would be loaded twice.
for _name, _module in list(sys.modules.items()):
    if f"{_name}.".startswith(f"{recipes.__name__}."):
        sys.modules[_name.replace("kanets.train", "kanets")] = _module
