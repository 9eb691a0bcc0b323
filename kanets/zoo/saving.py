"""Writes model folders."""

import math
from pathlib import Path

import keras
import numpy as np

from kanets import files
from kanets.tasks import takes_pictures


def save_model(model, directory, class_names=None):
    """Writes a model folder, whole or not at all, without optimizer state.

    Args:
        model: a functional `keras.Model`.
        directory: the folder; an earlier model folder is replaced, as
            `kanets.files.whole` does it.
        class_names: labels, in the order of the outputs; default those of
            the model.

    Returns:
        The folder's `Path`.

    Raises:
        ValueError: a label that is no text of one line; not one for each
            output; weights that are not finite.
        FileExistsError: what is there is no model folder.
        OSError: the disk is full, or the system refused; it names the folder.
    """
    directory = Path(directory).absolute()
    if class_names is None:
        class_names = getattr(model, "class_names", None) or ()
    for label in class_names:
        if not isinstance(label, str) or "\n" in label or "\r" in label:
            raise ValueError(
                f"A class name must be one line of text. Received: {label!r}"
            )
    _check_replaceable(directory)
    check_class_names(model, class_names, directory)
    check_finite(model, directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(directory, nbytes(model.weights)) as fresh:
        fresh.mkdir()
        # The same graph, uncompiled: no optimizer state in the file.
        bare = keras.Model(model.input, model.output, name=model.name)
        keras.saving.save_model(bare, fresh, zipped=False)
        if (fresh / "assets").is_dir() and not any(
            (fresh / "assets").iterdir()
        ):
            (fresh / "assets").rmdir()
        files.write_labels(fresh, class_names)
    return directory


def _check_replaceable(directory):
    """Raises a FileExistsError for what is there and is no model folder."""
    held = {"config.json", "model.weights.h5"}
    if directory.is_dir():
        found = {path.name for path in directory.iterdir()}
        if not found or found >= held:
            return
    elif not directory.exists():
        return
    raise FileExistsError(
        "A model folder is written to a new place, or in place of a model "
        f"folder. Received: {str(directory)!r}, which is neither"
    )


def nbytes(variables):
    """Bytes that Keras variables take in a file."""
    return sum(
        math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
        for variable in variables
    )


def not_finite(variables):
    """The path of the first of Keras's variables with NaN or infinity."""
    for variable in variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            return variable.path
    return None


def check_finite(model, where):
    """Raises a ValueError unless all weights are finite numbers."""
    if (name := not_finite(model.weights)) is not None:
        raise ValueError(
            "The weights of a model must be finite, as those of a training "
            f"that diverged are not. Received: {str(where)!r} with NaN or "
            f"infinity in {name!r}"
        )


def check_class_names(model, class_names, where):
    """Raises a ValueError unless there is one name for each class, or none.

    That is known of what takes a picture alone and has several outputs; a
    generator's names, for example, are of its input.
    """
    classes = model.outputs[0].shape[-1]
    if (
        class_names
        and takes_pictures(model)
        and len(model.outputs) == 1
        and classes not in (None, 1, len(class_names))
    ):
        raise ValueError(
            f"There must be a class name for each of the {classes} outputs. "
            f"Received: {len(class_names)} names, {str(where)!r}"
        )


def class_order(known, class_names):
    """Where each of the class names stands among those known.

    Both hold the same names. A name that comes twice is found at both of its
    places.
    """
    theirs, ours = (
        sorted(range(len(names)), key=names.__getitem__)
        for names in (known, class_names)
    )
    places = dict(zip(ours, theirs, strict=True))
    return [places[label] for label in range(len(class_names))]
