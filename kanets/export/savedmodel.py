"""Keras models as SavedModels that TensorFlow Serving can serve.

The bundle takes encoded pictures and returns what a client can read: decoding,
cropping and resizing, the labels and the softmax are all inside it, as
TensorFlow operations, so neither Keras nor this package is needed where it is
loaded.

Pictures are read by the rules of `kanets.data.pictures`, as in training.
"""

import keras
import numpy as np

from kanets import tasks
from kanets.attention import trimmed_spans
from kanets.export import bundle
from kanets.export.models_config import increasing_sizes
from kanets.export.precision import in_precision


def export_savedmodel(
    model,
    directory,
    class_names=None,
    version=None,
    *,
    image_size=None,
    top_k=None,
    from_logits=None,
    precision=None,
    batch_sizes=(1,),
):
    """Writes a Keras model as a SavedModel for TensorFlow Serving.

    What takes pictures has two signatures:

    - `serving_default` takes `image_bytes` (B,), JPEG or PNG files. As in
      training, JPEG is turned upright by its EXIF orientation, transparent
      PNG is laid on white, and greyscale, palette and CMYK become RGB.
      16-bit samples keep their high byte.
    - `serve_images` takes `images` (B, h, w, 3), uint8 RGB of any size.

    Requests that hold anything else fail with `InvalidArgumentError`. Of a
    classifier, both return `classes` (B, k) strings and `scores` (B, k)
    float32, best first, and `probabilities` (B, classes) float32. Of a
    segmenter, `label_map` (B, H, W) int32, the likeliest class of each pixel
    of the picture as the model sees it, its centre cropped and resized to
    H x W; and `png` (B,), the same maps as 8-bit grey PNG files.

    A generator has `serving_default` alone. It takes `z` (B, latent size)
    float32 and, where there are classes, `label` (B,) int32, and returns
    `images` (B, H, W, 3) float32 in [-1, 1] and `png` (B,), the same pictures
    as PNG files.

    Args:
        model: built Keras model: of float pixels 0..255 (B, H, W, 3) to
            (B, classes), or to (B, H, W, classes), of 2 to 256 classes; or of
            z, or [z, labels], to pictures, as `ylg.gan.generator` makes it.
        directory: folder of versions; made if missing.
        class_names: sequence of str, one per class, without duplicates.
            Defaults to `model.class_names`.
        version: positive int, the folder to write inside `directory`.
            Defaults to one more than the highest there, or 1.
        image_size: pair of int, height and width of the model's input.
            Needed only where the model leaves them open.
        top_k: positive int, how many classes a classifier returns; at most
            all. Defaults to 5.
        from_logits: bool, whether a classifier's outputs need a softmax.
            Defaults to what the activation of the last layer says.
        precision: "float32", "float16" or "bfloat16", of the weights and the
            computation. Defaults to the model's own.
        batch_sizes: list of positive int, increasing, of the requests that a
            server replays before it answers: those its batching allows, see
            `write_batching_parameters`.

    Returns:
        `pathlib.Path` of the version folder. It appears complete or not at
        all.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        FileExistsError: if the version is there already.
        ValueError: if an argument does not fit the model.
    """
    bundle.check_model(model)
    version_folder = bundle.new_version(directory, version)
    batch_sizes = increasing_sizes(batch_sizes)
    task = tasks.of_model(model)
    options = bundle.check_options(
        task.model,
        task.add_endpoints,
        image_size=image_size,
        top_k=top_k,
        from_logits=from_logits,
    )
    # The endpoints bring their variables along. `archive.track(model)` would
    # store each a second time (keras-team/keras#23553).
    archive = keras.export.ExportArchive()
    model = in_precision(model, precision)
    with trimmed_spans(model):  # what is exported learns no more
        class_names, requests = task.add_endpoints(
            archive, model, class_names, **options
        )
        bundle.write(
            archive, version_folder, class_names, requests, batch_sizes
        )
    return version_folder


def load_savedmodel(path):
    """Loads an exported classifier.

    Args:
        path: a version folder, or the folder of versions, of which the
            highest is taken.

    Returns:
        A function from a list of JPEG or PNG files, as bytes, to three NumPy
        arrays: `classes` (B, k) str and `scores` (B, k) float32, best first,
        and `probabilities` (B, classes) float32.

    Raises:
        FileNotFoundError: if there is no SavedModel at `path`.
        ValueError: if the SavedModel does not take `image_bytes`, or returns
            no classes.

    Example:

    >>> predict = load_savedmodel("savedmodels/insects")
    >>> classes, scores, probabilities = predict([open("bee.jpg", "rb").read()])
    """
    serve = bundle.load_signature(path, "classes")

    def predict(pictures):
        outputs = serve(pictures)
        classes = outputs["classes"].numpy()
        names = [name.decode() for name in classes.flat]
        return (
            np.array(names, str).reshape(classes.shape),
            outputs["scores"].numpy(),
            outputs["probabilities"].numpy(),
        )

    return predict


def load_segmenter_savedmodel(path):
    """Loads an exported segmenter.

    Args:
        path: a version folder, or the folder of versions, of which the
            highest is taken.

    Returns:
        A function from a list of JPEG or PNG files, as bytes, to label maps,
        a NumPy array (B, H, W) int32.

    Raises:
        FileNotFoundError: if there is no SavedModel at `path`.
        ValueError: if the SavedModel does not take `image_bytes` or does not
            return label maps.

    Example:

    >>> segment = load_segmenter_savedmodel("savedmodels/streets")
    >>> [label_map] = segment([open("street.jpg", "rb").read()])
    """
    serve = bundle.load_signature(path, "label_map")
    return lambda files: serve(files)["label_map"].numpy()
