"""Training: recipes, optimizers, losses, pruning, augmentation, state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "augment",
        "checkpoints",
        "distillation",
        "losses",
        "optimizers",
        "pruning",
        "recipes",
    ],
)
