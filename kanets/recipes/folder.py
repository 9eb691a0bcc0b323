"""What every run's folder has, whatever is trained in it."""

import contextlib
import dataclasses
import functools
import importlib.util
import tomllib

import keras

from kanets import checkpoints, data
from kanets.recipes.files import from_dict, read, to_toml


def claim(recipe, directory):
    """Writes the recipe to the folder, unless another one trained there."""
    path = directory / "recipe.toml"
    text = to_toml(recipe)
    if path.exists() and (directory / checkpoints.STATE).exists():
        ours = dataclasses.asdict(from_dict(tomllib.loads(text)))
        theirs = dataclasses.asdict(read(path))
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        if differing:
            raise ValueError(
                "This folder holds the run of another recipe; choose a new "
                f"folder. Received: {str(directory)!r}, where "
                + ", ".join(
                    f"{n} is {theirs[n]!r}, not {ours[n]!r}" for n in differing
                )
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints.replace_text(path, text)


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


def tensorboard(directory):
    """Keras's TensorBoard callback, which needs TensorFlow to write."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    if importlib.util.find_spec("tensorflow") is None:
        return None
    return keras.callbacks.TensorBoard(
        directory / "tensorboard", write_graph=False
    )
