"""A recipe on several devices and processes: what can be, and its folder."""

import contextlib
import dataclasses
from pathlib import Path

from kanets import distribute, tasks
from kanets.train import checkpoints
from kanets.train.recipes.files import to_toml
from kanets.train.recipes.folder import RECIPE, RESULT


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a process trains.

    Attributes:
        directory: `pathlib.Path`, of the run, or a temporary one like it.
        is_first: bool, whether it is that of the run.
    """

    directory: Path
    is_first: bool = True


@contextlib.contextmanager
def distributed_run(recipe, directory, distributed, devices):
    """Sets Keras up for a run, and gives it its folder.

    Args:
        recipe, directory, distributed, devices: as of `kanets.recipes.train`.

    Returns:
        A context manager that gives a `Run`.
    """
    if distributed or devices != 1:
        check(recipe)
    scope = distribute.mirrored(devices)
    if distributed:
        scope = distribute.initialize().scope()
    names = [RECIPE, checkpoints.STATE, RESULT]
    with scope, distribute.run_folder(directory, names) as folder:
        if distributed:
            distribute.same_everywhere("The recipe", to_toml(recipe))
        yield Run(folder, distribute.is_first())


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
        ("quantize", "from_epoch", "makes another model in the middle"),
    ):
        value = getattr(getattr(recipe, name, None), field, False)
        if value:
            raise ValueError(
                f"A recipe trains on one device where {name}.{field} {why}. "
                f"Received: {name}.{field}={value}"
            )
