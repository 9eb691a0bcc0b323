"""Keras classifiers as SavedModels that TensorFlow Serving can serve.

The bundle takes encoded pictures and returns class names: decoding, cropping
and resizing, the labels and the softmax are all inside it, as TensorFlow
operations, so neither Keras nor this package is needed where it is loaded.

Pictures are read by the rules of `kanets.data.pictures`, as in training.
"""

import numpy as np

from kanets.export import bundle

# A softmax undoes a log-softmax, so that counts as logits.
_LOGITS = ("linear", "log_softmax", "logsoftmax")
_PROBABILITIES = ("softmax", "sigmoid")
_TRANSPARENT = ("cast", "dropout", "flatten", "identity", "reshape")


def export_savedmodel(
    model,
    directory,
    class_names=None,
    version=None,
    *,
    image_size=None,
    top_k=5,
    from_logits=None,
):
    """Writes a Keras classifier as a SavedModel for TensorFlow Serving.

    Both signatures return `classes` (B, k) strings and `scores` (B, k)
    float32, best first, and `probabilities` (B, classes) float32:

    - `serving_default` takes `image_bytes` (B,), JPEG or PNG files. As in
      training, JPEG is turned upright by its EXIF orientation, transparent
      PNG is laid on white, and greyscale, palette and CMYK become RGB.
      16-bit samples keep their high byte.
    - `serve_images` takes `images` (B, h, w, 3), uint8 RGB of any size.

    Requests that hold anything else fail with `InvalidArgumentError`.

    Args:
        model: built Keras model, float pixels 0..255 (B, H, W, 3) to
            (B, classes).
        directory: folder of versions; made if missing.
        class_names: sequence of str, one per output, without duplicates.
            Defaults to `model.class_names`.
        version: positive int, the folder to write inside `directory`.
            Defaults to one more than the highest there, or 1.
        image_size: pair of int, height and width of the model's input.
            Needed only where the model leaves them open.
        top_k: positive int, how many classes to return; at most all.
        from_logits: bool, whether the outputs need a softmax. Defaults to
            what the activation of the last layer says.

    Returns:
        `pathlib.Path` of the version folder. It appears complete or not at
        all.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        FileExistsError: if the version is there already.
        ValueError: if an argument does not fit the model.
    """
    import keras

    bundle.check_model(model)
    version_folder = bundle.new_version(directory, version)
    top_k = bundle.positive_int("top_k", top_k)
    image_size = bundle.resolve_image_size(model, image_size)
    if from_logits is None:
        from_logits = _outputs_logits(model)
    body = _make_body(model, image_size, from_logits)
    num_classes = body.get_concrete_function().output_shapes[-1]
    class_names = bundle.check_class_names(model, class_names, num_classes)

    # The endpoints bring their variables along. `archive.track(model)` would
    # store each a second time (keras-team/keras#23553).
    archive = keras.export.ExportArchive()
    classify = _make_classify(body, class_names, top_k)
    requests = bundle.add_picture_endpoints(archive, classify, image_size)
    bundle.write(archive, version_folder, class_names, requests)
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


def _make_body(model, image_size, from_logits, jit_compile=None):
    """Returns the function from fitted pixels to float32 probabilities.

    It holds all of the model and none of the decoding, so XLA can compile it.
    That is not forced: on a CPU, XLA is slow at convolutions.
    """
    import tensorflow as tf

    def body(pixels):
        outputs = model(pixels, training=False)
        if not isinstance(outputs, tf.Tensor) or outputs.shape.rank != 2:
            raise ValueError(
                "`model` must return one tensor (batch, classes). Received: "
                f"outputs={getattr(outputs, 'shape', type(outputs).__name__)}"
            )
        outputs = tf.cast(outputs, tf.float32)
        return tf.nn.softmax(outputs) if from_logits else outputs

    pixels = tf.TensorSpec((None, *image_size, 3), tf.float32)
    return tf.function(
        body,
        input_signature=[pixels],
        autograph=False,
        jit_compile=jit_compile,
    )


def _make_classify(body, class_names, top_k):
    """Returns the function from fitted pixels to what a client reads."""
    import tensorflow as tf

    top_k = min(top_k, len(class_names))

    def classify(pixels):
        # A oneDNN convolution gives an empty batch the wrong shape.
        probabilities = tf.cond(
            tf.shape(pixels)[0] > 0,
            lambda: body(pixels),
            lambda: tf.zeros((0, len(class_names))),
        )
        probabilities = tf.ensure_shape(probabilities, (None, len(class_names)))
        scores, indices = tf.math.top_k(probabilities, top_k)
        return {
            "classes": tf.gather(tf.constant(class_names), indices),
            "scores": scores,
            "probabilities": probabilities,
        }

    return classify


def _outputs_logits(model):
    """Tells from the last activation whether the outputs need a softmax."""
    outputs = getattr(model, "outputs", None)
    name = None
    while outputs:
        layer = outputs[0]._keras_history.operation
        outputs = getattr(layer, "outputs", None)  # a model as a layer
        if outputs:
            continue
        activation = getattr(layer, "activation", layer)
        name = getattr(activation, "__name__", type(activation).__name__)
        name = name.lower()
        is_bare = activation is layer or type(layer).__name__ == "Activation"
        if is_bare and name in (*_TRANSPARENT, "linear"):
            outputs = [layer.input]
            continue
        if name in _PROBABILITIES:
            return False
        if name in _LOGITS:
            return True
    raise ValueError(
        "`from_logits` must be given where the model does not end in a "
        "softmax, sigmoid or linear activation. Received: from_logits=None, "
        f"model={model.name!r}, which ends in {name}"
    )
