"""Reads models from disk, and says in one line why one cannot be read."""

import contextlib
import itertools
import json
import zipfile

import keras

from kanets import compat
from kanets.checks import one_line
from kanets.files import LABELS, read_labels
from kanets.zoo.entries import newer
from kanets.zoo.saving import check_class_names, check_finite
from kanets.zoo.sources import (
    check_others,
    checked_weights,
    locate,
)

HEADS = ("predictions", "fc")  # what nets call their classifier


def read(located):
    """The model of a `Located`."""
    path = located.path
    body = body_of(located)
    if body is not located:
        check_others(located)
        model = read_architecture(located)
        carry(read(body), model, closed=True)
        return model
    weights = None if path.is_file() else checked_weights(located)
    with _in_one_line(located):
        if weights is None or weights.parent == path:
            model = keras.saving.load_model(path, compile=False)
        else:
            model = _architecture(path)
            model.load_weights(weights)
    check_finite(model, path)
    return _with_labels(model, path)


def read_architecture(located):
    """The model of a `Located` with fresh weights; none need be there."""
    if located.path.is_file():
        return keras.models.clone_model(read(located))
    with _in_one_line(located):
        model = _architecture(located.path)
    return _with_labels(model, located.path)


def body_of(located):
    """The `Located` whose weights a model has: itself, or what it names."""
    entry = located.entry
    if entry is None or not entry.weights_of:
        return located
    return locate(entry.weights_of)


def head_name(names):
    """Which of the names of a net's layers is that of its head, or None."""
    return next((name for name in HEADS if name in names), None)


def carry(trained, model, new_head=False, overrides=None, closed=False):
    """Copies weights by layer; all must fit.

    A layer that can have those of another size, as learned positions, has a
    method `resized` from these arrays to its own.

    Args:
        trained: the model they are of.
        model: the model they are for.
        new_head: whether its head keeps fresh weights.
        overrides: what it was built with, for the error.
        closed: whether it may have layers that `trained` has not, which keep
            fresh weights.

    Raises:
        ValueError: a layer's weights do not fit.
    """
    old = {layer.name: layer.weights for layer in trained.layers}
    new = {layer.name: layer.weights for layer in model.layers}
    for layer in model.layers:
        if layer.name in old and hasattr(layer, "resized"):
            old[layer.name] = layer.resized(old[layer.name])
    for name in dict.fromkeys([*old, *new]):
        if name in HEADS and (new_head or name not in new):
            continue
        if name not in new and not (overrides or {}).get("include_top", True):
            continue  # between the body and the head
        if closed and name not in old:
            continue
        for value, variable in itertools.zip_longest(
            old.get(name, ()), new.get(name, ())
        ):
            given, wanted = (
                getattr(weight, "shape", None) for weight in (value, variable)
            )
            if given != wanted:
                raise ValueError(
                    "The pretrained weights must fit; pretrained=False takes "
                    f"any overrides. Received: {overrides}, where layer "
                    f"{name!r} has {wanted}, trained {given}"
                )
            variable.assign(value)
    compat.finalize(model)


def _architecture(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return keras.saving.deserialize_keras_object(
        {**config, "compile_config": None}
    )


def _with_labels(model, path):
    names = read_labels(path)
    if names is not None:
        check_class_names(model, names, path / LABELS)
        model.class_names = names
    return model


@contextlib.contextmanager
def _in_one_line(located):
    try:
        yield
    except Exception as error:  # whatever a damaged file breaks
        # Keras closes a file that it could not open, and hides why.
        hidden = isinstance(error, UnboundLocalError)
        reason = one_line(error.__context__ if hidden else error)
        raise ValueError(
            f"Keras cannot load this model: {reason} "
            f"{newer(_versions(located))}Received: {str(located.path)!r}"
        ) from error


def _versions(located):
    """Versions that made a model, as far as its files tell."""
    path = located.path
    metadata = "{}"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" in archive.namelist():
                metadata = archive.read("metadata.json")
    elif (path / "metadata.json").exists():
        metadata = (path / "metadata.json").read_text(encoding="utf-8")
    try:
        versions = {"keras": json.loads(metadata)["keras_version"]}
    except (ValueError, KeyError):
        versions = {}
    entry = located.entry
    return versions if entry is None else {**entry.versions, **versions}
