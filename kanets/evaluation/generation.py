"""How far generated pictures are from real ones."""

import numpy as np

import ylg
from kanets import data, zoo
from kanets.evaluation.files import check_outputs, class_names_of, is_keras
from ylg import gan

EXTRACTOR = "kanet_qkv_cifar10"


def evaluate(
    model, source, *, batch_size=100, on_error="stop", extractor=EXTRACTOR
):
    """Frechet and kernel distance of generated to real pictures.

    As many pictures are generated as there are real ones, of all classes
    alike, from latents that are always the same.

    Args:
        model: a generator, a Keras model or an `Artifact`.
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
    if is_keras(model):
        draw, latent_size = gan.draw, model.inputs[0].shape[-1]
        size = model.output_shape[1:3]
    else:
        draw, latent_size = _draw_exported, model.run.inputs["z"][0][-1]
        size = model.image_size
    real = data.load_test(
        source, image_size=size, batch_size=batch_size, on_error=on_error
    )
    count = real.num_pictures
    fake = draw(model, gan.latents(latent_size, count), batch_size=batch_size)
    check_outputs(fake, model)
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


def _draw_exported(artifact, z, batch_size):
    """`ylg.gan.draw` of an exported generator."""
    given = {"z": z}
    if "label" in artifact.run.inputs:
        classes = np.arange(len(z)) % len(class_names_of(artifact))
        given["label"] = classes.astype("int32")
    parts = []
    for start in range(0, len(z), batch_size):
        rows = slice(start, start + batch_size)
        part = {name: array[rows] for name, array in given.items()}
        parts.append(artifact.run(**part)["images"])
    return np.concatenate(parts)
