"""Top-1 accuracy, and the classes of picture files."""

from pathlib import Path

import keras
import numpy as np

from kanets import data
from kanets.data import folders
from kanets.data.loading import find_test_folder
from kanets.data.pictures import fit_picture
from kanets.evaluation.files import (
    CHUNK,
    class_names_of,
    is_keras,
    labels_of,
    picture_files,
    read,
    servable,
    size_of,
)
from kanets.export import load_savedmodel
from kanets.export.classifier import outputs_logits


def evaluate(model, source, *, batch_size=100, on_error="stop"):
    """Top-1 accuracy on a labelled set, which is not shuffled or augmented.

    Args:
        model: a Keras model with class names, or the path of a SavedModel;
            that one is given the bytes of the files.
        source: class folders, or for a Keras model also a TFDS name. Of a
            folder with `test/`, `val/` or `validation/`, that part.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them.

    Returns:
        A dict: `accuracy`, `correct`, `pictures`.

    Raises:
        ValueError: no pictures there; a model without class names, of open
            size, or that ends in neither a softmax, a sigmoid nor logits; a
            class folder the model has no class for.
    """
    count = _count_keras if is_keras(model) else _count_savedmodel
    correct, total = count(model, source, batch_size, on_error)
    return {
        "accuracy": correct / total,
        "correct": correct,
        "pictures": total,
    }


def predict(model, paths, top_k=5):
    """The classes of picture files, best first; see `evaluation.predict`."""
    files = picture_files(paths)
    classify = _keras(model) if is_keras(model) else _savedmodel(model)
    results = []
    for start in range(0, len(files), CHUNK):
        chunk = files[start : start + CHUNK]
        names, scores = classify(chunk)
        for path, row, row_scores in zip(chunk, names, scores, strict=True):
            pairs = zip(row[:top_k], row_scores[:top_k], strict=True)
            results.append((path, [(n, float(s)) for n, s in pairs]))
    return results


def _keras(model):
    """A function from picture files to class names and scores, best first."""
    labels = np.array(class_names_of(model))
    size = size_of(model)

    def classify(files):
        pictures = [fit_picture(read(path), size) for path in files]
        pictures = np.stack(pictures).astype("float32")
        scores = _probabilities(model, pictures, labels)
        order = np.argsort(-scores, axis=-1, kind="stable")
        return labels[order], np.take_along_axis(scores, order, -1)

    return classify


def _probabilities(model, images, names):
    """(B, classes), float32; of one output p, the two are 1 - p and p."""
    scores = np.asarray(model.predict_on_batch(images), np.float32)
    one = scores.shape[-1] == 1
    if outputs_logits(model):
        activation = keras.ops.sigmoid if one else keras.ops.softmax
        scores = keras.ops.convert_to_numpy(activation(scores))
    if one:
        scores = np.concatenate([1 - scores, scores], -1)
    if scores.shape[-1] != len(names):
        raise ValueError(
            "There must be a class name for each probability, two for one "
            f"output. Received: {len(names)} names of {model.name!r} with "
            f"{scores.shape[-1]} probabilities"
        )
    return scores


def _savedmodel(path):
    serve = load_savedmodel(path)

    def classify(files):
        servable(files, "stop")  # an error names the file
        names, scores, _ = serve([path.read_bytes() for path in files])
        return names, scores

    return classify


def _count_keras(model, source, batch_size, on_error):
    pictures = data.load_test(
        source,
        image_size=size_of(model),
        batch_size=batch_size,
        class_names=class_names_of(model),
        on_error=on_error,
    )
    correct = total = 0
    for images, labels in pictures:
        images = np.asarray(images)
        scores = _probabilities(model, images, pictures.class_names)
        correct += int(np.sum(scores.argmax(-1) == np.asarray(labels)))
        total += len(scores)
    return correct, total


def _count_savedmodel(model, source, batch_size, on_error):
    root = Path(source)
    if not root.is_dir():
        raise ValueError(
            "A SavedModel is evaluated on a folder of class folders. "
            f"Received: data={str(source)!r}"
        )
    root, names = find_test_folder(root, class_names=labels_of(model))
    paths, labels = folders.list_pictures(root, names, complete=False)
    good = servable(paths, on_error)
    paths, labels = [paths[i] for i in good], [labels[i] for i in good]
    serve = load_savedmodel(model)
    correct = 0
    for start in range(0, len(paths), batch_size):
        rows = range(start, min(start + batch_size, len(paths)))
        classes, _, _ = serve([paths[row].read_bytes() for row in rows])
        correct += sum(
            classes[i][0] == names[labels[row]] for i, row in enumerate(rows)
        )
    return correct, len(paths)
