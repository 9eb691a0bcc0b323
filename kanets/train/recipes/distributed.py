"""A recipe on several devices and processes: what can be, and its folder."""

import contextlib

from kanets import tasks
from kanets.distribute.mirrored import mirrored
from kanets.distribute.processes import initialize, same_everywhere
from kanets.distribute.run_folder import run_folder
from kanets.train import checkpoints
from kanets.train.recipes.files import to_toml
from kanets.train.recipes.folder import RECIPE, RESULT


@contextlib.contextmanager
def distributed_run(recipe, directory, distributed, devices):
    """Sets Keras up for a run, and gives it its folder.

    Args:
        recipe, directory, distributed, devices: as of `kanets.recipes.train`.

    Returns:
        A context manager that gives a `pathlib.Path`: the run's folder, or in
        a process that is not the first a temporary one like it.
    """
    if distributed and devices != 1:
        raise ValueError(
            "A run is distributed on JAX, or on a number of devices of "
            "TensorFlow. "
            f"Received: distributed={distributed}, devices={devices!r}"
        )
    if distributed or devices != 1:
        check(recipe)
    scope = mirrored(devices)
    if distributed:
        scope = initialize().scope()
    names = [RECIPE, checkpoints.STATE, RESULT]
    with scope, run_folder(directory, names) as folder:
        if distributed:
            same_everywhere("The recipe", to_toml(recipe))
        yield folder


def check(recipe):
    """Raises a ValueError where a recipe trains on one device alone."""
    task = tasks.of_recipe(recipe)
    if task.name == "generation":
        raise ValueError(
            "A GAN trains on one device, as its steps draw their noise where "
            "they run, and shares of a batch would draw other noise. "
            "Received: a section gan"
        )
    for name, field, why in (
        ("finetune", "fit_head", "looks at what the body says of pictures"),
        ("prune", "sparsity", "sets weights to zero between the steps"),
        ("quantize", "from_epoch", "makes another model in the middle"),
    ):
        value = getattr(getattr(recipe, name, None), field, False)
        if value:
            raise ValueError(
                f"A recipe trains on one device where {name}.{field} {why}. "
                f"Received: {name}.{field}={value}"
            )
