"""What a model is worth, and what it says of pictures; SavedModels, too.

`evaluate` and `predict` take what `kanets.load_model` takes, or an exported
SavedModel, which is given the bytes of the files and runs without Keras.
"""

import inspect

from kanets import zoo
from kanets.evaluation import classification, generation, segmentation
from kanets.evaluation.files import check_takes_pictures
from kanets.evaluation.savedmodels import is_savedmodel, task_of_savedmodel
from kanets.export import is_generator, is_segmenter

__all__ = ["evaluate", "is_savedmodel", "predict"]

_EVALUATE = {
    "classification": classification.evaluate,
    "segmentation": segmentation.evaluate,
    "generation": generation.evaluate,
}


def evaluate(source, data, **options):
    """Measures a model on labelled pictures, or a generator against pictures.

    Args:
        source: what `kanets.load_model` takes, or a SavedModel.
        data: the pictures; of a folder with `test/`, `val/` or `validation/`,
            that part. For a classifier class folders, or for a Keras model a
            TFDS name; for a segmenter a folder with images/ and labels/; for
            a generator real pictures as for a classifier.
        **options: those of `evaluate` in `kanets.evaluation.classification`,
            `.segmentation` or `.generation`, whichever the model is.

    Returns:
        A dict; its first item is the figure that the model's card shows.

    Raises:
        ValueError: no model or no pictures there; an option the kind of
            model does not have.
        kanets.data.BadPicturesError: pictures that cannot be read.
    """
    model, task = _open(source)
    known = list(inspect.signature(_EVALUATE[task]).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"The options of {task} are {known}. "
            f"Received: {unknown} for {str(source)!r}"
        )
    return _EVALUATE[task](model, data, **options)


def predict(source, paths, *, top_k=5, to=None):
    """What a classifier or a segmenter says of picture files.

    Args:
        source: what `kanets.load_model` takes, or a SavedModel.
        paths: picture files, or folders of them.
        top_k: classes per picture.
        to: for a segmenter the folder to write `<stem>_labels.png` (the label
            map) and `<stem>_overlay.png` to; a classifier writes nothing.

    Returns:
        A list of `(path, [(class name, figure), ...])`, greatest first: the
        figure is the probability of a class, or its share of the pixels.

    Raises:
        ValueError: a generator; a segmenter without `to`, a classifier with
            it; a folder without pictures.
        kanets.data.BadPicturesError: a file that cannot be read, named.
        FileNotFoundError: a path that does not exist.
    """
    model, task = _open(source)
    if task == "generation" or (task == "segmentation") != (to is not None):
        raise ValueError(
            "A classifier predicts without a folder to write to, a segmenter "
            f"with one, a generator not at all. Received: to={to!r} and a "
            f"model for {task}, {str(source)!r}"
        )
    if task == "segmentation":
        return segmentation.predict(model, paths, to, top_k)
    return classification.predict(model, paths, top_k)


def _open(source):
    """The Keras model, or the path of a SavedModel, and its task."""
    if not zoo.is_entry(str(source)) and is_savedmodel(source):
        return source, task_of_savedmodel(source)
    model = zoo.load_model(source)
    if is_generator(model):
        return model, "generation"
    check_takes_pictures(model, source)
    return model, "segmentation" if is_segmenter(model) else "classification"
