"""Segmenters as SavedModels that TensorFlow Serving can serve.

As for classifiers, all is inside: decoding, cropping and resizing, by the
rules of `kanets.data.pictures`, and the choice of the class. Neither Keras nor
this package is needed where the bundle is loaded.
"""

from kanets.export import bundle

_PNG_CLASSES = 256  # a grey level for each


def export_segmenter(
    model, directory, version=None, image_size=None, class_names=None
):
    """Writes a segmenter as a SavedModel for TensorFlow Serving.

    Both signatures return `label_map` (B, H, W) int32, the likeliest class of
    each pixel of the picture as the model sees it, its centre cropped and
    resized to H x W; and `png` (B,), the same maps as 8-bit grey PNG files.

    - `serving_default` takes `image_bytes` (B,), JPEG or PNG files, read as
      in `export_savedmodel`.
    - `serve_images` takes `images` (B, h, w, 3), uint8 RGB of any size.

    Requests that hold anything else fail with `InvalidArgumentError`.

    Args:
        model: built Keras model, float pixels 0..255 (B, H, W, 3) to
            probabilities or logits (B, H, W, classes), of 2 to 256 classes.
        directory: folder of versions; made if missing.
        version: positive int, the folder to write inside `directory`.
            Defaults to one more than the highest there, or 1.
        image_size: pair of int, height and width of the model's input.
            Needed only where the model leaves them open.
        class_names: sequence of str, one per class, without duplicates.
            Defaults to `model.class_names`.

    Returns:
        `pathlib.Path` of the version folder. It appears complete or not at
        all.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        FileExistsError: if the version is there already.
        ValueError: if an argument does not fit the model, or the model is no
            segmenter.
    """
    import keras
    import tensorflow as tf

    bundle.check_model(model)
    version_folder = bundle.new_version(directory, version)
    image_size = bundle.resolve_image_size(model, image_size)
    body = _make_body(model, image_size)
    num_classes = body.get_concrete_function().output_shapes[-1]
    class_names = bundle.check_class_names(model, class_names, num_classes)

    def segment(pixels):
        # A oneDNN convolution gives an empty batch the wrong shape.
        label_map = tf.cond(
            tf.shape(pixels)[0] > 0,
            lambda: tf.argmax(body(pixels), -1, tf.int32),
            lambda: tf.zeros((0, *image_size), tf.int32),
        )
        label_map = tf.ensure_shape(label_map, (None, *image_size))
        grey = tf.cast(label_map[..., None], tf.uint8)
        png = tf.map_fn(tf.io.encode_png, grey, fn_output_signature=tf.string)
        return {"label_map": label_map, "png": png}

    archive = keras.export.ExportArchive()
    requests = bundle.add_picture_endpoints(archive, segment, image_size)
    bundle.write(archive, version_folder, class_names, requests)
    return version_folder


def is_segmenter(model):
    """Whether a model makes a map of classes out of a picture."""
    shapes = [tuple(x.shape) for x in model.inputs]
    return (
        len(shapes) == len(model.outputs) == 1
        and len(shapes[0]) == len(model.outputs[0].shape) == 4
    )


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


def _make_body(model, image_size):
    """The function from fitted pixels to scores, with all of the model."""
    import tensorflow as tf

    def body(pixels):
        outputs = model(pixels, training=False)
        shape = getattr(outputs, "shape", None)
        if not isinstance(outputs, tf.Tensor) or not shape.is_compatible_with(
            (None, *image_size, None)
        ):
            raise ValueError(
                "`model` must return one tensor (batch, height, width, "
                f"classes) for pictures of {image_size}. Received: outputs="
                f"{shape or type(outputs).__name__}"
            )
        if not 2 <= shape[-1] <= _PNG_CLASSES:
            raise ValueError(
                f"`model` must have 2 to {_PNG_CLASSES} classes, which fit "
                f"an 8-bit PNG. Received: {shape[-1]} classes"
            )
        return outputs

    pixels = tf.TensorSpec((None, *image_size, 3), tf.float32)
    return tf.function(body, input_signature=[pixels], autograph=False)
