"""What an exported generator computes: pictures from vectors."""

from kanets import tasks
from kanets.export import bundle
from kanets.export.graph import Graph
from ylg.gan.sampling import num_classes


def is_generator(model):
    """Whether a model makes pictures out of vectors."""
    return tasks.of_model(model).name == "generation"


def add_endpoints(archive, model, class_names):
    """Its part of `kanets.export.export_savedmodel`."""
    import tensorflow as tf

    body = make_body(model)
    inputs = body.input_signature
    answer = make_answer(body, tuple(model.output_shape[1:3]))
    archive.add_endpoint("serving_default", answer, list(inputs))
    request = {
        spec.name: tf.make_tensor_proto(0, spec.dtype, (1, *spec.shape[1:]))
        for spec in inputs
    }
    class_names = check_class_names(model, class_names)
    return class_names, [("serving_default", request)]


def make_graph(model, class_names):
    """What the formats of `kanets.export.portable` hold: a `Graph`."""
    body = make_body(model)
    return Graph(
        check_class_names(model, class_names),
        tuple(model.output_shape[1:3]),
        lambda *inputs: {"images": body(*inputs)},
        tuple(body.input_signature),
    )


def check_class_names(model, class_names):
    """Returns the names of the labels as a list, empty where there are none.

    Raises:
        ValueError: there is not one for each class, or there are no classes.
    """
    if len(model.inputs) == 1:
        if class_names is not None:
            raise ValueError(
                "A generator without classes takes no `class_names`. "
                f"Received: class_names={class_names!r}"
            )
        return []
    if class_names is None and not getattr(model, "class_names", None):
        return []
    return bundle.check_class_names(model, class_names, num_classes(model))


def make_body(model):
    """The function from vectors to pictures, with all of the model.

    Args:
        model: as `ylg.gan.generator` makes it: pictures from z or from
            [z, labels].

    Returns:
        `tf.function` from `z` (B, latent size) float32 and, of a model with
        classes, `label` (B,) int32, to (B, H, W, 3) float32 in [-1, 1].
    """
    import tensorflow as tf

    def body(*inputs):
        given = list(inputs) if len(inputs) > 1 else inputs[0]
        return tf.cast(model(given, training=False), tf.float32)

    latent_size = model.inputs[0].shape[-1]
    inputs = [
        tf.TensorSpec((None, latent_size), tf.float32, "z"),
        tf.TensorSpec((None,), tf.int32, "label"),
    ][: len(model.inputs)]
    return tf.function(body, input_signature=inputs, autograph=False)


def make_answer(body, image_size):
    """The function from vectors to what a client of a server reads."""
    import tensorflow as tf

    def generate(*inputs):
        # A oneDNN convolution gives an empty batch the wrong shape.
        images = tf.cond(
            tf.shape(inputs[0])[0] > 0,
            lambda: body(*inputs),
            lambda: tf.zeros((0, *image_size, 3)),
        )
        images = tf.ensure_shape(images, (None, *image_size, 3))
        pixels = tf.cast(tf.round((images + 1.0) * 127.5), tf.uint8)
        png = tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)
        return {"images": images, "png": png}

    return generate
