"""Writes model folders."""

import shutil
import uuid
from pathlib import Path

import keras


def save_model(model, directory, class_names=None):
    """Writes a model folder, whole or not at all, without optimizer state.

    Args:
        model: a functional `keras.Model`.
        directory: the folder; an earlier one is replaced. (A process killed
            between its two renames leaves the earlier one beside it, as
            `.<name>.<hex>.old`.)
        class_names: labels, in the order of the outputs; default those of
            the model.

    Returns:
        The folder's `Path`.

    Raises:
        ValueError: a label with a line break in it; not one for each output.
    """
    directory = Path(directory)
    if class_names is None:
        class_names = getattr(model, "class_names", None) or ()
    for label in class_names:
        if "\n" in label or "\r" in label:
            raise ValueError(
                f"A class name must be one line. Received: {label!r}"
            )
    check_class_names(model, class_names, directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    old = fresh.with_name(f"{fresh.name}.old")
    fresh.mkdir()
    try:
        # The same graph, uncompiled: no optimizer state in the file.
        bare = keras.Model(model.input, model.output, name=model.name)
        keras.saving.save_model(bare, fresh, zipped=False)
        if (fresh / "assets").is_dir() and not any(
            (fresh / "assets").iterdir()
        ):
            (fresh / "assets").rmdir()
        if class_names:
            (fresh / "labels.txt").write_text(
                "".join(f"{label}\n" for label in class_names),
                encoding="utf-8",
            )
        if directory.exists():
            directory.rename(old)
        try:
            fresh.rename(directory)
        except BaseException:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def takes_pictures(model):
    """Whether a model takes a batch of pictures and nothing else."""
    return len(model.inputs) == 1 and len(model.inputs[0].shape) == 4


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
