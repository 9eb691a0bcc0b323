"""Keras classifiers as SavedModels that TensorFlow Serving can serve.

The bundle takes encoded pictures and returns class names: decoding, cropping
and resizing, the labels and the softmax are all inside it, as TensorFlow
operations, so neither Keras nor this package is needed where it is loaded.

Pictures are read by the rules of `kanets.data.pictures`, as in training.
"""

import numpy as np

from kanets.data.graph_pictures import decode_pictures, fit_pictures
from kanets.export import bundle
from kanets.export.bundle import find_savedmodel

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
    image_size = _resolve_image_size(model, image_size)
    if from_logits is None:
        from_logits = _outputs_logits(model)
    body = _make_body(model, image_size, from_logits)
    num_classes = body.get_concrete_function().output_shapes[-1]
    class_names = _check_class_names(model, class_names, num_classes)

    # The endpoints bring their variables along. `archive.track(model)` would
    # store each a second time (keras-team/keras#23553).
    archive = keras.export.ExportArchive()
    _add_endpoints(archive, body, image_size, class_names, top_k)
    bundle.write(archive, version_folder, class_names, _warmup(image_size))
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
        ValueError: if the SavedModel does not take `image_bytes`.

    Example:

    >>> predict = load_savedmodel("savedmodels/insects")
    >>> classes, scores, probabilities = predict([open("bee.jpg", "rb").read()])
    """
    import tensorflow as tf

    folder = find_savedmodel(path)
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures.get("serving_default")
    if (
        serve is None
        or "image_bytes" not in serve.structured_input_signature[1]
    ):
        raise ValueError(
            "The SavedModel must have a signature `serving_default` that "
            f"takes `image_bytes`. Received: path={str(folder)!r}"
        )

    def predict(pictures, loaded=loaded):  # `loaded` keeps the weights alive
        outputs = serve(image_bytes=tf.constant(list(pictures), tf.string))
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


def _add_endpoints(archive, body, image_size, class_names, top_k):
    """Adds the two signatures; only what comes before `body` differs."""
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

    archive.add_endpoint(
        "serving_default",
        lambda image_bytes: classify(decode_pictures(image_bytes, image_size)),
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    archive.add_endpoint(
        "serve_images",
        lambda images: classify(fit_pictures(images, image_size)),
        [tf.TensorSpec((None, None, None, 3), tf.uint8, "images")],
    )


def _resolve_image_size(model, image_size):
    """Returns height and width as ints, checked against the model's input."""
    input_shape = getattr(model, "input_shape", (None, None, None, 3))
    if len(input_shape) != 4 or input_shape[3] != 3:
        raise ValueError(
            "`model` must take pictures (batch, height, width, 3). "
            f"Received: model.input_shape={input_shape}"
        )
    own_size = tuple(input_shape[1:3])
    if image_size is None:
        image_size = own_size
    image_size = tuple(image_size)
    received = (
        f"Received: image_size={image_size}, model.input_shape={input_shape}"
    )
    if len(image_size) != 2 or None in image_size:
        raise ValueError(
            "`image_size` must be a height and a width where the model's "
            f"input leaves them open. {received}"
        )
    image_size = tuple(bundle.positive_int("image_size", n) for n in image_size)
    for side, own_side in zip(image_size, own_size, strict=True):
        if own_side not in (None, side):
            raise ValueError(
                f"`image_size` must be the model's input size. {received}"
            )
    return image_size


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


def _check_class_names(model, class_names, num_classes):
    """Returns the class names as a list, one unique name per output."""
    if class_names is None:
        class_names = getattr(model, "class_names", None)
    if class_names is None:
        raise ValueError(
            "`class_names` must be given, or set as `model.class_names`. "
            "Received: class_names=None"
        )
    if isinstance(class_names, str):
        raise ValueError(
            "`class_names` must be a sequence of names. "
            f"Received: class_names={class_names!r}"
        )
    class_names = list(class_names)
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must name each of the {num_classes} outputs. "
            f"Received: len(class_names)={len(class_names)}"
        )
    for name in class_names:
        if not isinstance(name, str) or len(name.splitlines()) != 1:
            raise ValueError(
                "`class_names` must be strings of one line. "
                f"Received: {name!r} in class_names"
            )
    if len(set(class_names)) != num_classes:
        twice = sorted({n for n in class_names if class_names.count(n) > 1})
        raise ValueError(
            "`class_names` must not repeat a name. "
            f"Received: {', '.join(twice)} more than once"
        )
    return class_names


def _warmup(image_size):
    """A request of one grey picture for each signature.

    The picture is twice the model's size, so that resizing is warmed up as
    well.
    """
    import tensorflow as tf

    height, width = image_size
    shape = (2 * height, 2 * width, 3)
    encoded = tf.io.encode_jpeg(tf.fill(shape, tf.constant(127, tf.uint8)))
    image_bytes = tf.make_tensor_proto([encoded.numpy()])
    # A single value stands for a whole tensor that repeats it.
    images = tf.make_tensor_proto(127, tf.uint8, (1, *shape))
    return [
        ("serving_default", {"image_bytes": image_bytes}),
        ("serve_images", {"images": images}),
    ]
