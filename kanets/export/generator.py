"""A GAN's generator as a SavedModel that TensorFlow Serving can serve."""

from kanets.export import bundle


def export_generator(model, directory, version=None):
    """Writes a generator as a SavedModel for TensorFlow Serving.

    The signature `serving_default` takes `z` (B, latent size) float32 and,
    of a generator with classes, `label` (B,) int32. It returns `images`
    (B, H, W, 3) float32 in [-1, 1] and `png` (B,), the same pictures as PNG
    files.

    Args:
        model: as `ylg.gan.generator` makes it: pictures from z or from
            [z, labels].
        directory: folder of versions; made if missing.
        version: positive int, the folder to write inside `directory`.
            Defaults to one more than the highest there, or 1.

    Returns:
        `pathlib.Path` of the version folder. It appears complete or not at
        all.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        FileExistsError: if the version is there already.
        ValueError: if the model is no generator.
    """
    import keras
    import tensorflow as tf

    bundle.check_model(model)
    version_folder = bundle.new_version(directory, version)
    latent_size, height, width = _sizes(model)
    names = ("z", "label")[: len(model.inputs)]
    specs = [
        tf.TensorSpec((None, latent_size), tf.float32, "z"),
        tf.TensorSpec((None,), tf.int32, "label"),
    ][: len(names)]

    def generate(*inputs):
        # A oneDNN convolution gives an empty batch the wrong shape.
        images = tf.cond(
            tf.shape(inputs[0])[0] > 0,
            lambda: model(
                list(inputs) if len(inputs) > 1 else inputs[0], training=False
            ),
            lambda: tf.zeros((0, height, width, 3)),
        )
        images = tf.ensure_shape(images, (None, height, width, 3))
        pixels = tf.cast(tf.round((images + 1.0) * 127.5), tf.uint8)
        png = tf.map_fn(tf.io.encode_png, pixels, tf.string)
        return {"images": images, "png": png}

    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", generate, specs)
    request = {
        "z": tf.make_tensor_proto(0.0, tf.float32, (1, latent_size)),
        "label": tf.make_tensor_proto(0, tf.int32, (1,)),
    }
    bundle.write(
        archive,
        version_folder,
        getattr(model, "class_names", ()) if len(names) == 2 else (),
        [("serving_default", {name: request[name] for name in names})],
    )
    return version_folder


def is_generator(model):
    """Whether a model makes pictures out of vectors."""
    shapes = [tuple(x.shape) for x in model.inputs]
    return (
        len(model.output_shape) == 4
        and len(shapes) in (1, 2)
        and len(shapes[0]) == 2
        and all(len(shape) == 1 for shape in shapes[1:])
    )


def _sizes(model):
    if not is_generator(model):
        raise ValueError(
            "`model` must make pictures (batch, height, width, 3) from z, or "
            "from [z, labels]. Received: inputs "
            f"{[tuple(x.shape) for x in model.inputs]}, "
            f"output {model.output_shape}"
        )
    return model.inputs[0].shape[-1], *model.output_shape[1:3]
