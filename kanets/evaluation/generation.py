"""How far generated pictures are from real ones."""

import numpy as np

import ylg
from kanets import data, zoo
from kanets.evaluation.files import is_keras, labels_of
from kanets.evaluation.savedmodels import sizes_of_savedmodel
from kanets.export import find_savedmodel
from ylg import gan

EXTRACTOR = "kanet_qkv_cifar10"


def evaluate(
    model, source, *, batch_size=100, on_error="stop", extractor=EXTRACTOR
):
    """Frechet and kernel distance of generated to real pictures.

    As many pictures are generated as there are real ones, of all classes
    alike, from latents that are always the same.

    Args:
        model: a generator, or the path of its SavedModel.
        source: real pictures: class folders or a TFDS name. Of a folder with
            `test/`, `val/` or `validation/`, that part.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them.
        extractor: the classifier whose features are compared, as
            `load_extractor` takes it.

    Returns:
        A dict: `frechet_distance`, `kernel_distance`, `kernel_distance_std`,
        `precision`, `recall` and what else `ylg.metrics.evaluate` returns,
        and `pictures`.

    Raises:
        ValueError: no pictures there, an unknown extractor.
    """
    served = not is_keras(model)
    if served:
        (latent_size,) = sizes_of_savedmodel(model, "z")
        size = sizes_of_savedmodel(model, "images")[:2]
    else:
        latent_size = model.inputs[0].shape[-1]
        size = model.output_shape[1:3]
    real = data.load_test(
        source, image_size=size, batch_size=batch_size, on_error=on_error
    )
    count = real.num_pictures
    draw = _draw_served if served else gan.draw
    fake = draw(model, gan.latents(latent_size, count), batch_size=batch_size)
    report = ylg.metrics.evaluate(
        real, fake, load_extractor(extractor), real_range=(0, 255)
    )
    return {**report, "pictures": count}


def load_extractor(name):
    """The `ylg.metrics.FeatureExtractor` of a classifier.

    Args:
        name: what `kanets.load_model` takes, or "inception_v3", which is that
            of keras.applications.
    """
    if name == "inception_v3":
        return ylg.metrics.inception_v3()
    return ylg.metrics.classifier_features(zoo.load_model(name), name=str(name))


def _draw_served(path, z, batch_size):
    """`ylg.gan.draw` of a SavedModel."""
    import tensorflow as tf

    folder = find_savedmodel(path)
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    inputs = {"z": z}
    if "label" in serve.structured_input_signature[1]:
        classes = np.arange(len(z)) % len(labels_of(path))
        inputs["label"] = classes.astype("int32")
    parts = []
    for start in range(0, len(z), batch_size):
        rows = slice(start, start + batch_size)
        part = {name: tf.constant(x[rows]) for name, x in inputs.items()}
        parts.append(serve(**part)["images"].numpy())
    return np.concatenate(parts)
