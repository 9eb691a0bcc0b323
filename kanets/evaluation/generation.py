"""How far generated pictures are from real ones."""

from pathlib import Path

import numpy as np

import ylg
from kanets import data, zoo
from kanets.evaluation.files import check_outputs, class_names_of, is_keras
from kanets.progress import progress
from ylg import gan

EXTRACTOR = "kanet_qkv_cifar10"


def evaluate(
    model,
    source,
    *,
    batch_size=100,
    on_error="stop",
    extractor=EXTRACTOR,
    resize=None,
    statistics=None,
):
    """Frechet and kernel distance of generated to real pictures.

    As many pictures are generated as there are real ones, of all classes
    alike, from latents that are always the same.

    Args:
        model: a generator, a Keras model or an `Artifact`.
        source: real pictures: class folders or a TFDS name. Of a folder with
            `test/`, `val/`, `validation/` or `valid/`, that part.
        batch_size: pictures per step.
        on_error: "stop" at pictures that cannot be read, or "skip" them.
        extractor, resize: what makes the features that are compared, as
            `load_extractor` takes them.
        statistics: file to keep what the Frechet distance needs of the real
            pictures in, as `ylg.metrics.cached_statistics`; what needs more
            is left out.

    Returns:
        A dict: `frechet_distance`, `kernel_distance`, `kernel_distance_std`,
        `precision`, `recall` and what else `ylg.metrics.evaluate` returns,
        and `pictures`, the number of them on each side.

    Raises:
        ValueError: no pictures there, an unknown extractor; statistics of
            another, or of another number of pictures.
    """
    extractor = load_extractor(extractor, resize)
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
    pixels = (0, 255)
    with progress(2 * count, "measuring") as advance:
        real = _told(real, advance)
        if statistics is not None:
            real = ylg.metrics.cached_statistics(
                statistics, real, extractor, value_range=pixels, count=count
            )
        z = gan.latents(latent_size, count)
        fake = draw(model, z, batch_size=batch_size)
        check_outputs(fake, model)
        starts = range(0, count, extractor.batch_size)
        parts = (fake[start:][: extractor.batch_size] for start in starts)
        parts = _told(parts, advance)
        report = ylg.metrics.evaluate(real, parts, extractor, real_range=pixels)
    return {**report, "pictures": count}


def _told(batches, advance):
    """Batches, of which is told how many pictures were asked for."""
    for batch in batches:
        yield batch
        advance(len(batch[0] if isinstance(batch, list | tuple) else batch))


def load_extractor(name, resize=None):
    """The `ylg.metrics.FeatureExtractor` of a classifier.

    Args:
        name: what `kanets.load_model` takes, or "inception_v3", which is that
            of keras.applications, or the `.pth` or `.pb` file of the Inception
            of 2015, which is that of published figures.
        resize: of the latter, as of `ylg.metrics.inception_2015`; default
            "clean".

    Raises:
        ValueError: a resize for others, and as these raise.
    """
    if Path(name).suffix in ylg.metrics.inception_weights.SUFFIXES:
        options = {} if resize is None else {"resize": resize}
        return ylg.metrics.inception_2015(name, **options)
    if resize is not None:
        raise ValueError(
            "`resize` is for the Inception of 2015, whose `extractor` is its "
            f"file of weights. Received: resize={resize!r}, extractor={name!r}"
        )
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
