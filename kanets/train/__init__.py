"""Training: recipes, optimizers, losses, augmentation, checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["augment", "checkpoints", "losses", "optimizers", "recipes"],
)
