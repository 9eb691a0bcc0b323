"""What a model is worth, and what it says of pictures; an export, too.

`evaluate` and `predict` take what `kanets.load_model` takes, or an exported
model of any format, which is run by its own runtime.
"""

import inspect
from pathlib import Path

import keras

from kanets import tasks, zoo
from kanets.checks import positive_integer
from kanets.distribute import initialize
from kanets.distribute.processes import is_first
from kanets.distribute.run_folder import together
from kanets.evaluation.artifacts import Artifact, is_artifact, is_savedmodel
from kanets.evaluation.files import check_takes_pictures, is_keras
from kanets.evaluation.finding import find_pictures
from kanets.evaluation.tables import check_table, is_table, written

__all__ = [
    "evaluate",
    "find_pictures",
    "is_savedmodel",
    "iter_predict",
    "predict",
]


def evaluate(source, data, *, distributed=False, **options):
    """Measures a model on labelled pictures, or a generator against pictures.

    Args:
        source: a Keras model, what `kanets.load_model` takes, or what
            `kanets.export` wrote, of any format.
        data: the pictures; of a folder with `test/`, `val/`, `validation/` or
            `valid/`, that part. For a classifier class folders, or but for a
            SavedModel a TFDS name; for a segmenter a folder with images/ and
            labels/; for a generator real pictures as for a classifier.
        distributed: bool, on JAX: whether the pictures are divided among all
            devices of all processes that `kanets.distribute.initialize`
            finds, for a classifier or a segmenter that is a Keras model. Each
            process calls this with the same arguments, and gets the same
            result; a report is written by the first.
        **options: those of `evaluate` in `kanets.evaluation.classification`,
            `.segmentation` or `.generation`, whichever the model is.

    Returns:
        A dict; its first item is the figure that the model's card shows.

    Raises:
        ValueError: no model or no pictures there; a model without class
            names; an option the kind of model does not have.
        ImportError: the runtime of an export is not installed.
        kanets.data.BadPicturesError: pictures that cannot be read.
        RuntimeError: one of several processes ended.
    """
    if not distributed:
        return _evaluate(source, data, options)
    with initialize().scope(), together():
        if not is_first():
            options.pop("report", None)
        return _evaluate(source, data, options, distributed)


def _evaluate(source, data, options, distributed=False):
    model, task = _open(source)
    if distributed and not (task.takes_pictures and is_keras(model)):
        raise ValueError(
            "What several processes measure must be a classifier or a "
            "segmenter, and no export; others are measured by one. Received: "
            f"distributed=True for {str(source)!r}"
        )
    _check_options(task, task.evaluate, options, source)
    if task.takes_pictures and not getattr(model, "class_names", None):
        raise ValueError(
            "Class names must say which label is which class, in labels.txt "
            "beside the weights: kanets.save_model(model, folder, class_names) "
            f"writes it. Received: {str(source)!r} without"
        )
    return task.evaluate(model, data, **options)


def predict(source, paths, *, top_k=5, to=None, **options):
    """What a classifier or a segmenter says of picture files.

    Args:
        source, paths, top_k, to, **options: as in `iter_predict`.

    Returns:
        A list of what `iter_predict` yields.

    Raises:
        As `iter_predict`.
    """
    return list(iter_predict(source, paths, top_k=top_k, to=to, **options))


def iter_predict(source, paths, *, top_k=5, to=None, on_bad=None, **options):
    """What a model says of picture files, as they are read.

    Args:
        source: a Keras model, what `kanets.load_model` takes, or what
            `kanets.export` wrote, of any format.
        paths: picture files, folders of them, addresses, "-" or videos, as
            `find_pictures` takes them, or what it returned.
        top_k: positive int, classes per picture; at most all.
        to: for a segmenter the folder to write `<stem>_labels.png` (the label
            map) and `<stem>_overlay.png` to. For a classifier a table that
            is there, whole, when the last result has come: `.csv`, `.jsonl`
            or `.parquet` (with pyarrow); None writes none.
        on_bad: function (path, reason), called for each picture that cannot
            be read, which is left out. Defaults to an error at the first,
            after the results of all before it.
        **options: for a segmenter `scales`, `flip` and `window`, as in
            `kanets.evaluation.segmentation.evaluate`.

    Returns:
        An iterator of `(path, [(class name, figure), ...])`, greatest first:
        the figure is the probability of a class, or its share of the pixels.
        What is no file has a name in place of the path, its `str()`. No more
        than 32 pictures are in memory.
        Classes of a model without names are called by their numbers.

    Raises:
        ValueError: a generator; a segmenter without `to`, or with a table; a
            classifier with a `to` that is none; `top_k` is no positive
            integer; a folder without pictures; an option the kind of model
            does not have.
        kanets.data.BadPicturesError: a file that cannot be read, named.
        FileNotFoundError: a path that does not exist.
        ImportError: the runtime of an export, or pyarrow, is not installed.
    """
    top_k = positive_integer("`top_k`", top_k)
    model, task = _open(source)
    if not task.takes_pictures:
        raise ValueError(
            f"A {task.model} says nothing of pictures: give a classifier or a "
            f"segmenter. Received: {str(source)!r}, a {task.model}"
        )
    _check_options(task, task.iter_predict, options, source)
    options |= {"top_k": top_k, "on_bad": on_bad}
    if not task.writes:
        if to is None:
            return task.iter_predict(model, paths, **options)
        check_table(to)
        return written(task.iter_predict(model, paths, **options), to)
    if to is None or is_table(to):
        raise ValueError(
            f"`to` must be given, the folder for the {task.writes} of a "
            f"{task.model}. Received: to={to and str(to)!r} for {str(source)!r}"
        )
    return task.iter_predict(model, paths, to=to, **options)


def _check_options(task, function, options, source):
    """Refuses options that a function of a task does not take."""
    known = list(inspect.signature(function).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        known, unknown = (
            ", ".join(f"`{name}`" for name in names)
            for names in (known, unknown)
        )
        raise ValueError(
            f"The options of {task.name} are {known}. "
            f"Received: {unknown} for {str(source)!r}"
        )


def _open(source):
    """The Keras model or the `Artifact`, and its `kanets.tasks.Task`."""
    if isinstance(source, keras.Model):
        model = source
    else:
        if not zoo.is_entry(str(source)):
            if is_artifact(source):
                artifact = Artifact(source)
                return artifact, artifact.task
            _check_one(source)
        model = zoo.load_model(source)
    task = tasks.of_model(model)
    if task.name == "classification":  # also what is of no task
        check_takes_pictures(model, source)
    return model, task


def _check_one(source):
    """Refuses a folder of several models, and names them."""
    folder = Path(source)
    if not folder.is_dir() or _is_model(folder):
        return
    inside = sorted(
        str(path)
        for path in folder.iterdir()
        if path.is_dir() and (is_artifact(path) or _is_model(path))
    )
    if inside:
        raise ValueError(
            f"A folder of models is none itself: name {' or '.join(inside)}. "
            f"Received: {str(source)!r}"
        )


def _is_model(folder):
    """Whether `kanets.load_model` takes it, a model's folder or a run's."""
    parts = (".", "best", "generator")
    return any((folder / part / "config.json").exists() for part in parts)
