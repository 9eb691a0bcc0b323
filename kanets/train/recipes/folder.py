"""What every run's folder has, whatever is trained in it."""

import contextlib
import dataclasses
import functools
import json
import shlex
import tomllib

import keras

from kanets import data, files
from kanets.train import checkpoints
from kanets.train.recipes.files import from_dict, read, to_toml

RECIPE = "recipe.toml"
RESULT = "result.json"
REPORT = "report"
_ANOTHER = "This folder holds the run of another recipe; choose a new folder."


def claim(recipe, directory, scheduled):
    """Writes the recipe to the folder, unless another one trained there.

    Args:
        recipe: a recipe.
        directory: the run's folder.
        scheduled: whether the learning rate depends on the number of epochs.
            If not, a run of the same recipe with fewer goes on.

    Raises:
        ValueError: another recipe trained there; of a complete run that
            cannot go on, the error says what to type instead.
    """
    path = directory / RECIPE
    text = to_toml(recipe)
    if path.exists() and (directory / checkpoints.STATE).exists():
        ours = dataclasses.asdict(from_dict(tomllib.loads(text)))
        theirs = dataclasses.asdict(read(path))
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        if not differing:
            return
        longer = differing == ["epochs"] and ours["epochs"] > theirs["epochs"]
        if not longer or scheduled:
            rows, _ = checkpoints.read_progress(directory)
            done = checkpoints.epochs_done(rows)
            over = longer and done == theirs["epochs"]
            raise ValueError(
                (_further(recipe, directory, done) if over else _ANOTHER)
                + f" Received: {str(directory)!r}, where "
                + ", ".join(
                    f"{n} is {theirs.get(n)!r}, not {ours[n]!r}"
                    for n in differing
                )
            )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).unlink(missing_ok=True)  # of what was there before
    files.write_text(path, text)


def _further(recipe, directory, done):
    command = f"kanets finetune {_quoted(directory)}"
    command += f" --data {_quoted(recipe.data.source)}"
    command += f" --to {_quoted(f'{directory}_further')}"
    command += f" --epochs {recipe.epochs - done} --frozen-epochs 0"
    if getattr(recipe.data, "ignore_label", None) is not None:
        command += f" --ignore-label {recipe.data.ignore_label}"
    return (
        "This run is complete, and its learning rate has fallen to 0; its best "
        f"weights are trained further by `{command}`."
    )


def _quoted(path):
    return shlex.quote(str(path))


def read_result(directory):
    """What `write_result` wrote; None where it did not yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = directory / RESULT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            "The result of this run cannot be read; remove the file, and the "
            f"same command writes it again. Received: {str(path)!r} ({error})"
        ) from error


def write_result(directory, result):
    """Writes `result.json`, the mark of a run that is complete."""
    files.write_text(directory / RESULT, json.dumps(result, indent=1))


def load(recipe):
    """Training and validation set of a recipe, the latter maybe None.

    What fits in memory is held there, which makes it repeatable on every
    backend.
    """
    if not recipe.data.source:
        raise ValueError(
            "data.source must be a folder or a TFDS name. Received: source=''"
        )
    train_set, validation_set = data.load(
        recipe.data.source,
        image_size=recipe.data.image_size,
        batch_size=recipe.batch_size,
        validation=recipe.data.validation,
        seed=recipe.seed,
        on_error=recipe.data.on_error,
    )
    train_set = data.gathered(train_set, shuffle=True, seed=recipe.seed)
    return train_set, data.gathered(validation_set)


def printer(verbose):
    """A function that prints at once, or not at all."""
    if verbose:
        return functools.partial(print, flush=True)
    return lambda *_: None


@contextlib.contextmanager
def precision(policy):
    """Sets Keras's dtype policy, and puts the earlier one back."""
    earlier = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(earlier)
