"""Pictures out of a generator: latents, classes, batches."""

import numpy as np

from ylg.gan.checks import check_labels


def num_classes(generator):
    """Number of classes of a generator, None of one without."""
    counts = (getattr(layer, "num_classes", None) for layer in generator.layers)
    return next((count for count in counts if count is not None), None)


def latents(latent_size, count, seed=0):
    """Normal latent vectors, the same on every backend.

    Args:
        latent_size: length of a vector.
        count: how many.
        seed: int.

    Returns:
        float32 array (count, latent_size).
    """
    values = np.random.default_rng(seed).normal(size=(count, latent_size))
    return values.astype("float32")


def draw(generator, z, labels=None, batch_size=64):
    """Pictures of latent vectors.

    Args:
        generator: as `ylg.gan.generator` makes it.
        z: float array (n, latent size).
        labels: int (n,); None takes all classes in turn, where there are any.
        batch_size: pictures at a time.

    Returns:
        float32 array (n, H, W, 3) in [-1, 1].

    Raises:
        ValueError: no latent vector, labels not in 0..num_classes - 1.
    """
    inputs = np.asarray(z, "float32")
    if not len(inputs):
        raise ValueError(
            "z must hold one latent vector or more. "
            f"Received: z.shape={inputs.shape}"
        )
    classes = num_classes(generator)
    if classes is not None:
        if labels is None:
            labels = np.arange(len(inputs)) % classes
        check_labels(labels, classes)
        inputs = [inputs, np.asarray(labels, "int32")]
    return generator.predict(inputs, batch_size=batch_size, verbose=0)
