"""Accuracy, and the classes of picture files."""

from pathlib import Path

import keras
import numpy as np

from kanets import data
from kanets.data import folders
from kanets.data.loading import find_test_folder
from kanets.data.records import read_index
from kanets.distribute.processes import local
from kanets.distribute.shares import outputs_of_all
from kanets.evaluation.files import (
    check_outputs,
    class_names_of,
    in_parts,
    is_keras,
    read,
    read_file,
    servable,
    size_of,
    takes_files,
)
from kanets.evaluation.finding import find_pictures
from kanets.evaluation.report import ClassReport, check_folder
from kanets.nets.logits import as_probabilities, outputs_logits
from kanets.progress import progress

_PART = 32  # pictures that are read and predicted at once


def evaluate(model, source, *, batch_size=100, on_error="stop", report=None):
    """Accuracy on a labelled set, which is not shuffled or augmented.

    Args:
        model: a Keras model or an `Artifact`, with class names.
        source: class folders, or a TFDS name, which does not do for an
            artifact that takes files. Of a folder with `test/`, `val/`,
            `validation/` or `valid/`, that part.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them.
        report: a folder to write what `kanets.evaluation.report` says to, new
            or of an earlier report; None writes none.

    Returns:
        A dict: `accuracy`, `correct`, `pictures`; of more than five classes
        `top_5_accuracy`, the share of pictures whose class is among the five
        of the highest scores; with a report also `weakest`, the accuracy of
        at most three classes, and `report`.

    Raises:
        ValueError: no pictures there; a model without class names, of open
            size, or that ends in neither a softmax, a sigmoid nor logits; a
            class folder the model has no class for; a folder of something
            else than a report.
    """
    if report is not None:
        check_folder(report)
    batches = _of_files if takes_files(model) else _of_pixels
    measured = _measured(model, *batches(model, source, batch_size, on_error))
    written = {} if report is None else measured.write(report)
    return {**measured.result(), **written}


def write_report(model, pictures, folder):
    """Writes a report on pictures that are loaded.

    Args:
        model: a Keras model, with class names.
        pictures: what `kanets.data.load` returns, in order; the labels may be
            one-hot.
        folder: as `report` of `evaluate`.

    Returns:
        What `kanets.evaluation.report.Report.write` returns.
    """
    return _measured(model, *_of_batches(model, pictures)).write(folder)


def _measured(model, count, batches):
    """The `ClassReport` of so many pictures, in batches for its `add`."""
    measured = ClassReport(class_names_of(model))
    with progress(count, "measuring") as advance:
        for batch in batches:
            measured.add(*batch)
            advance(len(batch[0]))
    return measured


def iter_predict(model, paths, top_k=5, on_bad=None):
    """The classes of picture files; see `evaluation.iter_predict`."""
    pictures = find_pictures(paths)
    names = getattr(model, "class_names", None)
    look = read_file if takes_files(model) else _fitted(size_of(model))

    def results():
        for part in in_parts(pictures, look, _PART, on_bad):
            scores = _probabilities(model, [seen for _, seen in part], names)
            order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
            for (path, _), row, best in zip(part, scores, order, strict=True):
                labels = best if names is None else [names[i] for i in best]
                yield (
                    path,
                    [
                        (str(label), float(row[i]))
                        for label, i in zip(labels, best, strict=True)
                    ],
                )

    return results()


def _fitted(size):
    """A function from a path to the picture as a model sees it."""
    return lambda path: read(path, size)


def _probabilities(model, given, names):
    """(B, classes), float32; of one output p, the two are 1 - p and p.

    One output with one name is that alone.
    """
    if not takes_files(model):
        given = np.asarray(given, np.float32)
    if is_keras(model):
        outputs = model.predict_on_batch(given)
    else:
        outputs = model(given)["probabilities"]
    return _as_probabilities(outputs, model, names)


def _as_probabilities(outputs, model, names):
    scores = np.asarray(outputs, np.float32)
    if is_keras(model) and outputs_logits(model):
        with local():
            scores = keras.ops.convert_to_numpy(as_probabilities(scores))
    check_outputs(scores, model)
    if scores.shape[-1] == 1 and len(names or ()) != 1:
        scores = np.concatenate([1 - scores, scores], -1)
    if names is not None and scores.shape[-1] != len(names):
        raise ValueError(
            "There must be a class name for each probability, two for one "
            f"output. Received: {len(names)} names of {model.name!r} with "
            f"{scores.shape[-1]} probabilities"
        )
    return scores


def _of_pixels(model, source, batch_size, on_error):
    """How many pictures there are, and batches for `ClassReport.add`."""
    pictures = data.load_test(
        source,
        image_size=size_of(model),
        batch_size=batch_size,
        class_names=class_names_of(model),
        on_error=on_error,
    )
    if keras.distribution.distribution() is not None:
        return pictures.num_pictures, _of_all(model, pictures)
    return _of_batches(model, pictures)


def _of_all(model, pictures):
    """Batches for `ClassReport.add`; each process reads its share."""
    paths, start = pictures.paths, 0
    # What is of no files is in memory, or in a pack.
    of_files = bool(paths) and Path(paths[0]).is_file()
    for outputs in outputs_of_all(model, pictures):
        rows = slice(start, start + len(outputs))
        start = rows.stop
        places = pictures.rows[rows]
        yield (
            pictures.labels[places],
            _as_probabilities(outputs, model, pictures.class_names),
            paths and paths[rows],
            None if of_files else pictures.pictures.take(places),
        )


def _of_batches(model, pictures):
    def batches():
        paths, start = getattr(pictures, "paths", None), 0
        for images, labels in pictures:
            labels = keras.ops.convert_to_numpy(labels)
            if labels.ndim == 2:
                labels = labels.argmax(-1)
            scores = _probabilities(model, images, pictures.class_names)
            rows = slice(start, start + len(labels))
            start = rows.stop
            yield labels, scores, paths and paths[rows], images

    return pictures.num_pictures, batches()


def _of_files(model, source, batch_size, on_error):
    root = Path(source)
    if not root.is_dir() or read_index(root):
        raise ValueError(
            "A SavedModel is evaluated on a folder of class folders. "
            f"Received: data={str(source)!r}"
        )
    root, names = find_test_folder(root, class_names=class_names_of(model))
    paths, labels = folders.list_pictures(root, names, complete=False)
    good = servable(paths, on_error)

    def batches():
        for start in range(0, len(good), batch_size):
            rows = good[start : start + batch_size]
            part = [paths[row] for row in rows]
            given = [path.read_bytes() for path in part]
            scores = _probabilities(model, given, names)
            yield np.array([labels[row] for row in rows]), scores, part

    return len(good), batches()
