"""The networks of a GAN from wherever they were saved, and their classes."""

from pathlib import Path

import ylg
from kanets.zoo.opening import load_model
from kanets.zoo.sources import is_entry
from ylg.gan.sampling import num_classes


def load_network(source, role):
    """A network of a GAN, from wherever it was saved.

    Args:
        source: the zoo's name of a GAN, a GAN run's folder (with generator/
            and discriminator/ in it), the model folder of the network, or a
            checkpoint of YLG's authors: its prefix or its folder.
        role: "generator" or "discriminator".

    Returns:
        A `keras.Model`; with `class_names` if labels were saved with it.

    Raises:
        ValueError: nothing of that kind there.
    """
    path = Path(source)
    part = f"{source}/discriminator"
    if is_entry(str(source)):  # whatever lies in this directory
        if role == "discriminator" and is_entry(part):
            return load_model(part)
        return _of_rank(load_model(source), source, role)
    if (path / role / "config.json").exists():
        return load_model(path / role)
    if Path(f"{path}.index").is_file() or (
        path.is_dir() and any(path.glob("*.index"))
    ):
        return getattr(ylg.official, f"load_{role}")(source)
    if path.is_dir() and not (path / "config.json").exists():
        raise ValueError(
            f"A GAN is a run's folder with {role}/ in it, the {role}'s model "
            "folder, or a checkpoint of YLG's authors. Received: "
            f"{str(source)!r} with {sorted(p.name for p in path.iterdir())}"
        )
    return _of_rank(load_model(source), source, role)


def _of_rank(model, source, role):
    """The model, if its input is what the role takes."""
    rank = {"generator": 2, "discriminator": 4}[role]
    if len(model.inputs[0].shape) != rank:
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            f"The model must be a {role}. Received: {str(source)!r} with a "
            f"model {model.name!r} of inputs {shapes}"
        )
    return model


def read_labels(text, model):
    """Classes from what a user wrote.

    Args:
        text: class names or numbers with commas between them. A name wins
            over a number. None is all classes.
        model: a generator.

    Returns:
        List of integers, or None for a model without classes.

    Raises:
        ValueError: labels for a model without classes, an unknown one.
    """
    if len(model.inputs) == 1:
        if text is not None:
            raise ValueError(
                "The generator has no classes, so it takes no label. "
                f"Received: {text!r}"
            )
        return None
    count, names = classes_of(model)
    if text is None:
        return list(range(count))
    return [_read_label(part.strip(), count, names) for part in text.split(",")]


def classes_of(generator):
    """Number of classes of a conditional generator, and names or ()."""
    names = tuple(getattr(generator, "class_names", ()))
    return num_classes(generator), names


def _read_label(text, count, names):
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < count:
        return int(text)
    known = f"one of {', '.join(names)}, or " if names else ""
    raise ValueError(
        f"A label must be {known}a number in 0..{count - 1}. Received: {text!r}"
    )
