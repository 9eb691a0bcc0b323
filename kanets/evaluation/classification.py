"""Accuracy and predictions of a model, or of its exported SavedModel."""

from pathlib import Path

import numpy as np

from kanets import data, zoo
from kanets.data import folders
from kanets.data.graph_pictures import JPEG, PNG
from kanets.data.loading import find_test_folder
from kanets.data.pictures import (
    SUFFIXES,
    PictureError,
    fit_picture,
    read_picture,
)
from kanets.export import find_savedmodel, load_savedmodel

_CHUNK = 100  # pictures that are decoded at once


def is_savedmodel(path):
    """Whether `path` is a SavedModel or a folder of its versions."""
    try:
        find_savedmodel(path)
    except FileNotFoundError:
        return False
    return True


def evaluate(source, data_source, *, batch_size=100, on_error="stop"):
    """Top-1 accuracy on a labelled set, which is not shuffled or augmented.

    Args:
        source: what `kanets.load_model` takes, or a SavedModel; that one is
            given the bytes of the files.
        data_source: class folders, or for a Keras model also a TFDS name.
            Of a folder with `test/`, `val/` or `validation/`, that part.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them.

    Returns:
        A dict: `accuracy`, `correct`, `pictures`.

    Raises:
        ValueError: no model or no pictures there; a model without class
            names; a class folder the model has no class for.
    """
    if is_savedmodel(source):
        correct, total = _count_savedmodel(
            source, data_source, batch_size, on_error
        )
    else:
        model = zoo.load_model(source)
        pictures = data.load_test(
            data_source,
            image_size=_image_size(model),
            batch_size=batch_size,
            class_names=_class_names(model),
            on_error=on_error,
        )
        correct = total = 0
        for images, labels in pictures:
            scores = np.asarray(model.predict_on_batch(np.asarray(images)))
            correct += int(np.sum(scores.argmax(-1) == np.asarray(labels)))
            total += len(scores)
    return {
        "accuracy": correct / total,
        "correct": correct,
        "pictures": total,
    }


def predict(source, paths, top_k=5):
    """The classes of picture files.

    Args:
        source: what `kanets.load_model` takes, or a SavedModel.
        paths: picture files, or folders of them.
        top_k: classes per picture.

    Returns:
        A list of `(path, [(class name, score), ...])`, best class first.

    Raises:
        ValueError: no model there; a folder without pictures.
        kanets.data.BadPicturesError: a file that cannot be read, named.
        FileNotFoundError: a path that does not exist.
    """
    files = _picture_files(paths)
    classify = _classifier(source)
    results = []
    for start in range(0, len(files), _CHUNK):
        chunk = files[start : start + _CHUNK]
        names, scores = classify(chunk)
        for path, row, row_scores in zip(chunk, names, scores, strict=True):
            pairs = zip(row[:top_k], row_scores[:top_k], strict=True)
            results.append((path, [(n, float(s)) for n, s in pairs]))
    return results


def _classifier(source):
    """A function from picture files to class names and scores, best first."""
    if is_savedmodel(source):
        serve = load_savedmodel(source)

        def classify(files):
            _servable(files, "stop")  # an error names the file
            names, scores, _ = serve([path.read_bytes() for path in files])
            return names, scores

        return classify
    model = zoo.load_model(source)
    labels = np.array(_class_names(model))
    size = _image_size(model)

    def classify(files):
        pictures = [fit_picture(_read(path), size) for path in files]
        scores = np.asarray(
            model.predict_on_batch(np.stack(pictures).astype("float32"))
        )
        order = np.argsort(-scores, axis=-1, kind="stable")
        return labels[order], np.take_along_axis(scores, order, -1)

    return classify


def _count_savedmodel(source, data_source, batch_size, on_error):
    root = Path(data_source)
    if not root.is_dir():
        raise ValueError(
            "A SavedModel is evaluated on a folder of class folders. "
            f"Received: data={str(data_source)!r}"
        )
    root, names = find_test_folder(root, class_names=_labels(source))
    paths, labels = folders.list_pictures(root, names, complete=False)
    good = _servable(paths, on_error)
    paths, labels = [paths[i] for i in good], [labels[i] for i in good]
    serve = load_savedmodel(source)
    correct = 0
    for start in range(0, len(paths), batch_size):
        rows = range(start, min(start + batch_size, len(paths)))
        classes, _, _ = serve([paths[row].read_bytes() for row in rows])
        correct += sum(
            classes[i][0] == names[labels[row]] for i, row in enumerate(rows)
        )
    return correct, len(paths)


def _servable(paths, on_error):
    """Rows of the pictures that a bundle can read: whole JPEG and PNG."""
    _, rows, _ = folders.read_pictures(paths, (1, 1), on_error)
    others = []
    for row in rows:
        with paths[row].open("rb") as file:
            if not file.read(8).startswith((JPEG, PNG)):
                others.append(row)
    if others and on_error == "stop":
        reason = "a SavedModel reads JPEG and PNG only"
        raise data.BadPicturesError([(paths[row], reason) for row in others])
    return [row for row in rows if row not in set(others)]


def _labels(savedmodel):
    """The class names of a bundle, in the order of its probabilities."""
    labels = find_savedmodel(savedmodel) / "assets.extra" / "labels.txt"
    if not labels.exists():
        raise ValueError(
            "The SavedModel must hold assets.extra/labels.txt. "
            f"Received: {str(savedmodel)!r}"
        )
    return labels.read_text(encoding="utf-8").split("\n")[:-1]


def _read(path):
    try:
        return read_picture(path)
    except PictureError as error:
        raise data.BadPicturesError([(path, str(error))]) from None


def _picture_files(paths):
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in SUFFIXES and p.name[0] != "."
            )
            if not found:
                raise ValueError(
                    f"The folder holds no pictures. Received: {str(path)!r}"
                )
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(
                f"There is no such picture. Received: {str(path)!r}"
            )
    return files


def _image_size(model):
    size = model.input_shape[1:3]
    if None in size:
        raise ValueError(
            "The model must have a fixed input size; give it one with "
            "kanets.create_model(..., input_shape=...). "
            f"Received: input_shape={model.input_shape}"
        )
    return size


def _class_names(model):
    names = getattr(model, "class_names", None)
    if not names:
        raise ValueError(
            "The model must have class names (labels.txt beside its weights). "
            f"Received: {model.name!r} without"
        )
    return list(names)
