"""Transforms of batches, layers or functions, and how they are seeded."""

import functools

import keras
import numpy as np

from kanets.data.streams import with_random_states


def seeded(transform, dataset):
    """A function of a key, images and labels that does what a transform does.

    What a transform without known generators draws does not depend on the key.
    """
    if hasattr(transform, "seeded"):
        return transform.seeded
    states = []
    if keras.backend.backend() == "tensorflow" and isinstance(
        transform, keras.layers.Layer
    ):
        if not transform.built:
            transform.build(tuple(dataset.element_spec[0].shape))
        states = [
            variable
            for variable in transform.variables
            if variable.name == "seed_generator_state"
        ]
    function = functools.partial(_applied, transform)
    if states:
        return with_random_states(function, states)
    return lambda key, *batch: function(*batch)


def transformed(transform, batch, key):
    """A batch of arrays after a transform, reseeded where it can be.

    Args:
        transform: as for `kanets.data.augmented`.
        batch: images and labels.
        key: list of int, what it is reseeded with.
    """
    reseed = getattr(transform, "reseed", None)
    if reseed is not None:
        reseed(int(np.random.SeedSequence(key).generate_state(1)[0] >> 1))
    images, labels = _applied(transform, *batch)
    if keras.backend.backend() == "jax" and keras.ops.is_tensor(images):
        # They stay on the device, and nobody waits for them.
        return keras.ops.cast(images, "float32"), labels
    images = keras.ops.convert_to_numpy(images).astype(np.float32, copy=False)
    return images, keras.ops.convert_to_numpy(labels)


def _applied(transform, images, labels):
    if isinstance(transform, keras.layers.Layer):
        return transform(images, training=True), labels
    return transform(images, labels)
