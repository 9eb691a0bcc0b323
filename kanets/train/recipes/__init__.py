"""Recipes: how a model is trained, as plain data; and running one.

A recipe is a `Recipe`, a `SegmentationRecipe` or a `GANRecipe`, on disk a TOML
file with its fields. `train` turns it into `compile()` and `fit()` and keeps
everything in a run's folder; started again on the same folder, it continues
where it was stopped.
"""

from kanets import tasks
from kanets.distribute.processes import is_first
from kanets.train.recipes import classifier, gan, segmenter, supervised  # noqa: F401
from kanets.train.recipes.dashboards import logged_to
from kanets.train.recipes.distributed import distributed_run
from kanets.train.recipes.fields import (
    Augment,
    Data,
    Distill,
    FineTune,
    GANOptimize,
    GANRecipe,
    Measure,
    Optimize,
    Prune,
    Quantize,
    Recipe,
    SegmentationAugment,
    SegmentationData,
    SegmentationRecipe,
)
from kanets.train.recipes.files import from_dict, read, to_toml
from kanets.train.recipes.finetune import finetune_recipe
from kanets.train.recipes.rules import NETS

__all__ = [
    "NETS",
    "Augment",
    "Data",
    "Distill",
    "FineTune",
    "GANOptimize",
    "GANRecipe",
    "Measure",
    "Optimize",
    "Prune",
    "Quantize",
    "Recipe",
    "SegmentationAugment",
    "SegmentationData",
    "SegmentationRecipe",
    "finetune_recipe",
    "from_dict",
    "read",
    "to_toml",
    "train",
]


def train(
    recipe,
    directory,
    verbose=1,
    report=False,
    *,
    distributed=False,
    devices=1,
    wandb=None,
):
    """Runs a recipe in a folder, as its task does.

    Args:
        recipe: a `Recipe`, `SegmentationRecipe` or `GANRecipe`.
        directory: the run's folder, new or of the same recipe.
        verbose: 0 prints nothing; 1 shows a bar of the whole run, where the
            output is a terminal, and prints a line an epoch; 2 as in `fit()`.
        report: bool, whether `report/` gets where the best model errs on the
            validation set, if there is one, and the task has reports; see
            `kanets.evaluation.report`.
        distributed: bool, on JAX: whether it is trained on all devices of all
            processes that `kanets.distribute.initialize` finds, with the
            batches of the recipe, as by one. Each process calls this with the
            same recipe and pictures; the folder is that of the first.
        devices: int, on TensorFlow: on how many devices of this machine.
        wandb: str, on TensorFlow: the project of Weights & Biases that each
            epoch's figures are logged to, by its own Keras callback, under
            the folder's name; by default none.

    Returns:
        A dict, also in the folder's `result.json`.

    Raises:
        as `kanets.recipes.supervised.train` and `kanets.distribute`, and a
        ValueError: what is distributed cannot be, or what is logged.
        ImportError: wandb is not installed.
    """
    task = tasks.of_recipe(recipe)
    with (
        logged_to(wandb),
        distributed_run(recipe, directory, distributed, devices) as folder,
    ):
        if not is_first():
            verbose, report = 0, False
        options = {"report": True} if report and task.write_report else {}
        return task.train(recipe, folder, verbose, **options)
