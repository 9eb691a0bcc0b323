"""What an exported segmenter computes: scores of each pixel, and label maps."""

from kanets import tasks
from kanets.export import bundle
from kanets.export.folding import fold
from kanets.export.graph import Graph, open_or_resolved
from kanets.nets.logits import outputs_logits

_PNG_CLASSES = 256  # a grey level for each


def is_segmenter(model):
    """Whether a model makes a map of classes out of a picture."""
    return tasks.of_model(model).name == "segmentation"


def add_endpoints(archive, model, class_names, image_size=None):
    """Its part of `kanets.export.export_savedmodel`."""
    image_size = bundle.resolve_image_size(model, image_size)
    body = make_body(model, image_size)
    class_names = bundle.check_class_names_of(body, model, class_names)
    answer = make_answer(body, image_size)
    requests = bundle.add_picture_endpoints(archive, answer, image_size)
    return class_names, requests


def make_graph(
    model, class_names, image_size=None, from_logits=None, integers=False
):
    """What the formats of `kanets.export.portable` hold: a `Graph`."""
    image_size = open_or_resolved(model, image_size)
    body = make_body(model, image_size, integers)
    answer = make_portable(model, body, from_logits)
    class_names = bundle.check_class_names_of(body, model, class_names)
    inputs = tuple(body.input_signature)
    return Graph(class_names, image_size, answer, inputs)


def make_body(model, image_size, integers=False):
    """The function from fitted pixels to scores, with all of the model.

    Args:
        model: Keras model, pixels (B, H, W, 3) to probabilities or logits
            (B, H, W, classes), of 2 to 256 classes.
        image_size: pair of int, H and W; None where open.
        integers: as in `fold`.

    Returns:
        `tf.function` from `images` (B, H, W, 3) float32, 0..255, to
        (B, H, W, classes) float32.

    Raises:
        ValueError: the model returns something else.
    """
    import tensorflow as tf

    answer = fold(model, xla=False, integers=integers)

    def body(images):
        outputs = answer(images)
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
        return tf.cast(outputs, tf.float32)

    images = tf.TensorSpec((None, *image_size, 3), tf.float32, "images")
    return tf.function(body, input_signature=[images], autograph=False)


def make_answer(body, image_size):
    """The function from fitted pixels to what a client of a server reads."""
    import tensorflow as tf

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

    return segment


def make_portable(model, body, from_logits=None):
    """The function from fitted pixels to label maps and probabilities."""
    import tensorflow as tf

    if from_logits is None:
        from_logits = outputs_logits(model)

    def segment(images):
        scores = body(images)
        return {
            "label_map": tf.argmax(scores, -1, tf.int32),
            "probabilities": tf.nn.softmax(scores) if from_logits else scores,
        }

    return segment
