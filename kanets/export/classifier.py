"""What an exported classifier computes: probabilities, and names for them."""

from kanets.checks import positive_integer
from kanets.export import bundle
from kanets.export.folding import fold
from kanets.export.graph import Graph, open_or_resolved
from kanets.nets.logits import as_probabilities, outputs_logits


def add_endpoints(
    archive, model, class_names, image_size=None, top_k=5, from_logits=None
):
    """Its part of `kanets.export.export_savedmodel`."""
    top_k = positive_integer("`top_k`", top_k)
    image_size = bundle.resolve_image_size(model, image_size)
    body = make_body(model, image_size, from_logits)
    class_names = bundle.check_class_names_of(body, model, class_names)
    answer = make_answer(body, class_names, top_k)
    requests = bundle.add_picture_endpoints(archive, answer, image_size)
    return class_names, requests


def make_graph(
    model, class_names, image_size=None, from_logits=None, integers=False
):
    """What the formats of `kanets.export.portable` hold: a `Graph`."""
    image_size = open_or_resolved(model, image_size)
    body = make_body(model, image_size, from_logits, integers=integers)
    class_names = bundle.check_class_names_of(body, model, class_names)
    inputs = tuple(body.input_signature)
    return Graph(
        class_names,
        image_size,
        lambda images: {"probabilities": body(images)},
        inputs,
    )


def make_body(
    model, image_size, from_logits=None, jit_compile=None, integers=False
):
    """The function from fitted pixels to probabilities.

    It holds all of the model and none of the decoding, so XLA can compile it.
    That is not forced: on a CPU, XLA is slow at convolutions.

    Args:
        model: Keras model, pixels (B, H, W, 3) to (B, classes).
        image_size: pair of int, H and W; None where open.
        from_logits: bool, whether the outputs need a softmax. Defaults to
            what the activation of the last layer says.
        jit_compile: of `tf.function`.
        integers: as in `fold`.

    Returns:
        `tf.function` from `images` (B, H, W, 3) float32, 0..255, to
        (B, classes) float32.

    Raises:
        ValueError: the model returns something else.
    """
    import tensorflow as tf

    if from_logits is None:
        from_logits = outputs_logits(model)

    answer = fold(model, integers=integers)

    def body(images):
        outputs = answer(images)
        if not isinstance(outputs, tf.Tensor) or outputs.shape.rank != 2:
            raise ValueError(
                "`model` must return one tensor (batch, classes). Received: "
                f"outputs={getattr(outputs, 'shape', type(outputs).__name__)}"
            )
        outputs = tf.cast(outputs, tf.float32)
        return as_probabilities(outputs, tf.nn) if from_logits else outputs

    images = tf.TensorSpec((None, *image_size, 3), tf.float32, "images")
    return tf.function(
        body,
        input_signature=[images],
        autograph=False,
        jit_compile=jit_compile,
    )


def make_answer(body, class_names, top_k):
    """The function from fitted pixels to what a client of a server reads."""
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
