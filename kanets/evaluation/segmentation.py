"""Mean intersection over union, and label maps of picture files."""

import io

import keras
import numpy as np

from kanets import data, visualize
from kanets.data.label_maps import find_test_pairs
from kanets.distribute.shares import outputs_of_all
from kanets.evaluation.files import (
    check_outputs,
    class_names_of,
    image_size,
    in_parts,
    is_keras,
    jpeg_or_png,
    read,
    read_file,
    takes_files,
)
from kanets.evaluation.finding import find_pictures
from kanets.evaluation.report import (  # noqa: F401
    SegmentReport,
    check_folder,
    confusion,
    figures,
)
from kanets.evaluation.views import Views
from kanets.nets.logits import as_probabilities, outputs_logits
from kanets.progress import progress
from kanets.visualize.overlays import label_png

_AS_IT_IS = Views()


def evaluate(
    model,
    source,
    *,
    batch_size=4,
    on_error="stop",
    ignore_label=None,
    report=None,
    scales=(1.0,),
    flip=False,
    window=None,
):
    """Mean intersection over union on a set of label maps.

        IoU of a class = pixels of it, found / (pixels of it or taken for it)

    counted over all pictures at once; the mean is over the classes that
    occur, in the labels or in what was found.

    Args:
        model: a segmenter with class names: a Keras model or an `Artifact`.
        source: a folder with images/ and labels/, or with `test/`, `val/`,
            `validation/` or `valid/` that hold these.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them; one
            that an artifact of files cannot, neither JPEG nor PNG, stops.
        ignore_label: the label of pixels that do not count, or None.
        report: a folder to write what `kanets.evaluation.report` says to, new
            or of an earlier report; None writes none.
        scales, flip, window: views of each picture whose probabilities are
            averaged, as in `kanets.evaluation.views.Views`; of a Keras model.
            One of a fixed size sees other scales through windows of that
            size. With a window, pictures keep their own size.

    Returns:
        A dict: `mean_iou`, `pixel_accuracy`, `iou` (a dict from each class
        that occurs to its figure), `pictures`; with a report also `weakest`,
        the IoU of at most three classes, and `report`.

    Raises:
        ValueError: no pictures there, a model without class names, a label
            that is no class of the model and not `ignore_label`, a folder of
            something else than a report; views that are none, or of an export.
    """
    if report is not None:
        check_folder(report)
    views = _views(model, scales, flip, window)
    names = class_names_of(model)
    pictures = data.load_segmentation_test(
        source,
        class_names=names,
        ignore_label=ignore_label,
        image_size=None if window else _size(model),
        batch_size=batch_size,
        on_error=on_error,
    )
    if takes_files(model):
        found = _served(model, source, pictures)
    elif keras.distribution.distribution() is not None:
        if not views.single:
            raise ValueError(
                "`scales`, `flip` and `window` are for one process, as several "
                "look at a picture as it is. Received: "
                f"scales={scales!r}, flip={flip!r}, window={window!r}"
            )
        found = (
            _label_maps(outputs, model)
            for outputs in outputs_of_all(model, pictures)
        )
    else:
        found = (label_maps(model, images, views) for images, _ in pictures)
    measured = _measured(model, pictures, found)
    result = measured.result()
    return result if report is None else {**result, **measured.write(report)}


def write_report(model, pictures, folder):
    """Writes a report on pictures that are loaded.

    Args:
        model: a Keras model, with class names.
        pictures: what `kanets.data.load_segmentation` returns, in order.
        folder: as `report` of `evaluate`.

    Returns:
        What `kanets.evaluation.report.Report.write` returns.
    """
    found = (label_maps(model, images) for images, _ in pictures)
    return _measured(model, pictures, found).write(folder)


def _measured(model, pictures, found):
    """The `SegmentReport` of pictures and of what was found in them."""
    names = class_names_of(model)
    measured = SegmentReport(names, pictures.ignore_label)
    paths = pictures.paths
    with progress(pictures.num_pictures, "measuring") as advance:
        for (images, labels), maps in zip(pictures, found, strict=True):
            rows = slice(measured.pictures, measured.pictures + len(labels))
            measured.add(labels, maps, images, paths and paths[rows])
            advance(len(labels))
    return measured


def iter_predict(
    model,
    paths,
    to,
    top_k=5,
    on_bad=None,
    *,
    scales=(1.0,),
    flip=False,
    window=None,
):
    """Writes what a segmenter sees in picture files, one by one.

    Args:
        model: a Keras model or an `Artifact`.
        paths: picture files, or folders of them.
        to: the folder that gets `<stem>_labels.png`, the label map, and
            `<stem>_overlay.png`, the picture tinted by class, with a legend
            below it where the model has class names.
        top_k: classes per picture.
        on_bad: as in `evaluation.iter_predict`.
        scales, flip, window: as in `evaluate`.

    Returns:
        An iterator of `(path, [(class name, share of the pixels), ...])`,
        greatest first.

    Raises:
        ValueError: two pictures of one stem; a folder without pictures; views
            that are none, or of an export.
        kanets.data.BadPicturesError, FileNotFoundError: a file that cannot be
            read or does not exist, named.
    """
    pictures = find_pictures(paths)
    pictures.check_stems()
    names = list(getattr(model, "class_names", None) or ())
    views = _views(model, scales, flip, window)
    size = None if window else _size(model)
    found = _seen(model, pictures, size, views, on_bad)

    def results():
        for path, picture, label_map in found:
            visualize.save_segmentation(
                picture, label_map, to, path.stem, names or None
            )
            yield path, _shares(label_map, names, top_k)

    return results()


def iter_label_maps(model, pictures, top_k=5, on_bad=None):
    """As `iter_predict`, of pictures as they are, and writes nothing.

    Args:
        model: a Keras model or an `Artifact`.
        pictures: a `kanets.evaluation.finding.Pictures`.
        top_k, on_bad: as in `iter_predict`.

    Yields:
        `(path, [(class name, share of the pixels), ...], label map)`, the
        last of these the bytes of a PNG file.
    """
    names = list(getattr(model, "class_names", None) or ())
    seen = _seen(model, pictures, _size(model), _AS_IT_IS, on_bad)
    for path, _, label_map in seen:
        yield (
            path,
            _shares(label_map, names, top_k),
            label_png(label_map),
        )


def _seen(model, pictures, size, views, on_bad):
    """Yields `(path, picture, label map)`, one by one."""

    def look(path):
        content = read_file(path) if takes_files(model) else None
        given = path if content is None else io.BytesIO(content)
        return read(given, size), content

    for [(path, (picture, content))] in in_parts(pictures, look, 1, on_bad):
        given = picture[None].astype("float32")
        given = given if content is None else [content]
        [found] = label_maps(model, given, views)
        yield path, picture, found


def _shares(label_map, names, top_k):
    """The classes of the most pixels, and their shares."""
    counts = np.bincount(label_map.ravel(), minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:top_k]
    return [
        (names[i] if names else str(i), float(counts[i] / label_map.size))
        for i in order
        if counts[i]
    ]


def _views(model, scales, flip, window):
    """The `Views` of the arguments, which a model must be able to have."""
    views = Views(scales, flip, window)
    if not views.single and not is_keras(model):
        raise ValueError(
            "`scales`, `flip` and `window` are for a Keras model, as an export "
            "looks at a picture as it is. Received: "
            f"scales={scales!r}, flip={flip!r}, window={window!r} for "
            f"{model.name!r}"
        )
    size = _size(model)
    if None not in (size, views.window) and size != views.window:
        raise ValueError(
            "`window` must be the size of the model, if that is fixed. "
            f"Received: window={window!r} for {model.name!r} of size {size}"
        )
    other = any(scale != 1 for scale in scales)
    return Views(scales, flip, size) if size and other else views


def label_maps(model, given, views=_AS_IT_IS):
    """The label map (H, W) of each of the pictures that a model is given."""
    if is_keras(model):
        # Logits have the same greatest, but not the same means.
        of_logits = not views.single and _gives_logits(model)

        def look(images):
            scores = model.predict_on_batch(images)
            scores = as_probabilities(scores) if of_logits else scores
            return keras.ops.convert_to_numpy(scores)

        scores = views.probabilities(look, given)
        return _label_maps(scores, model)
    outputs = model(given)
    check_outputs(outputs.get("probabilities", 0.0), model)
    return outputs["label_map"]


def _gives_logits(model):
    try:
        return outputs_logits(model)
    except ValueError:  # nobody knows: as they are
        return False


def _label_maps(scores, model):
    check_outputs(scores, model)
    if scores.shape[-1] < 2:
        raise ValueError(
            "A segmenter must give a score for each class, of which there are "
            f"two or more. Received: {model.name!r} with outputs of "
            f"{scores.shape[-1]} channel"
        )
    return scores.argmax(-1)


def _served(model, source, pictures):
    """Label maps from the files' bytes, batch by batch."""
    skipped = {name for name, _ in pictures.skipped}
    files = [
        picture
        for picture, label_map in find_test_pairs(source)
        if not skipped & {str(picture), str(label_map)}
    ]
    jpeg_or_png(files, "stop")  # an error names the file
    for start in range(0, len(files), pictures.batch_size):
        part = files[start : start + pictures.batch_size]
        yield label_maps(model, [file.read_bytes() for file in part])


def _size(model):
    """Height and width the model is for; None of a model of open size."""
    size = image_size(model)
    return None if None in size else size
