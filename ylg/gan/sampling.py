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
        labels: int (n,) or (n, 1); None takes all classes in turn, where there
            are any.
        batch_size: pictures at a time.

    Returns:
        float32 array (n, H, W, 3) in [-1, 1].

    Raises:
        ValueError: no latent vector, labels that are no integers of
            0..num_classes - 1.
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
        inputs = [inputs, check_labels(labels, classes)]
    return generator.predict(inputs, batch_size=batch_size, verbose=0)


def spherical(start, end, steps):
    """Points of the great circle's arc between vectors.

        w = angle between a and b
        p(t) = a sin((1 - t) w) / sin(w) + b sin(t w) / sin(w)

    Between latents of a normal distribution, whose lengths are nearly equal,
    a straight line would pass through lengths that never occur.

    Args:
        start, end: float (..., size).
        steps: points, both ends among them.

    Returns:
        float32 array (..., steps, size). Parallel vectors have a straight
        line between them.

    References: Shoemake, "Animating Rotation with Quaternion Curves", 1985.
    """
    start, end = (np.asarray(x, "float64")[..., None, :] for x in (start, end))
    lengths = np.linalg.norm(start, axis=-1) * np.linalg.norm(end, axis=-1)
    cosine = np.sum(start * end, axis=-1) / np.where(lengths > 0, lengths, 1)
    angle = np.arccos(np.clip(cosine, -1, 1))[..., None]
    t = np.linspace(0, 1, steps)[:, None]
    sine = np.sin(angle)
    straight = sine < 1e-6
    divisor = np.where(straight, 1, sine)
    first = np.where(straight, 1 - t, np.sin((1 - t) * angle) / divisor)
    last = np.where(straight, t, np.sin(t * angle) / divisor)
    return (first * start + last * end).astype("float32")
