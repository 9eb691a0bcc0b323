"""Recipes: how a model is trained, as plain data; and running one.

A recipe is a `Recipe` or a `GANRecipe`, on disk a TOML file with its fields.
`train` turns it into `compile()` and `fit()` and keeps everything in a run's
folder; started again on the same folder, it continues where it was stopped.
"""

from kanets.recipes.classifier import train_classifier
from kanets.recipes.fields import (
    NETS,
    Augment,
    Data,
    FineTune,
    GANOptimize,
    GANRecipe,
    Measure,
    Optimize,
    Recipe,
    from_dict,
    read,
    to_toml,
)
from kanets.recipes.gan import train_gan

__all__ = [
    "NETS",
    "Augment",
    "Data",
    "FineTune",
    "GANOptimize",
    "GANRecipe",
    "Measure",
    "Optimize",
    "Recipe",
    "from_dict",
    "read",
    "to_toml",
    "train",
]


def train(recipe, directory, verbose=1):
    """Runs a recipe in a folder; see `train_classifier` and `train_gan`.

    Args:
        recipe: a `Recipe` or a `GANRecipe`.
        directory: the run's folder, new or of the same recipe.
        verbose: as in `fit()`; 0 prints nothing.

    Returns:
        A dict, also in the folder's `result.json`.
    """
    if isinstance(recipe, GANRecipe):
        return train_gan(recipe, directory, verbose)
    return train_classifier(recipe, directory, verbose)
