"""Find the latent vector of a picture, with the discriminator's attention.

Daras et al., "Your Local GAN" (CVPR 2020), section 6: a discriminator's map
is a good space to compare pictures in, and its attention says which cells of
the map matter. `invert` follows the gradient of that distance back through
discriminator and generator.

Differences from the official script: one distance for each start, not one
for the batch, so that several starts run side by side without coupling; all
heads by default, not the first four; any grid, number of heads and classes.

Letters: B batch, S starts, N heads, H W grid, C channels, hk wk key grid.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from kanets.attention.checks import check_positive
from kanets.checks import as_integer, is_number
from ylg.descent import descend, make_optimizer, step_of_backend
from ylg.gan.sampling import num_classes
from ylg.saliency import (
    INTERPOLATIONS,  # noqa: F401
    resize_saliency,
    root,
    saliency,
    weighted_distance,
)


@dataclasses.dataclass(frozen=True)
class Inversion:
    """What `invert` found, the best start first.

    Attributes:
        latents: float32 (S, latent size), of the lowest loss of each start.
        labels: int32 (S,), the class of each start, or None.
        images: float32 (S, H, W, 3) in [-1, 1], generated from them.
        losses: float32 (S,), their losses, ascending.
        history: float32 (steps, S), the losses before each step; row 0 is
            those of the random starts.
        saliency: float32 (N, H, W), what each head that was used finds
            important in the target, at the size of the picture.
    """

    latents: np.ndarray
    labels: np.ndarray | None
    images: np.ndarray
    losses: np.ndarray
    history: np.ndarray
    saliency: np.ndarray


def invert(
    image,
    generator,
    discriminator,
    label=None,
    *,
    starts=4,
    steps=300,
    learning_rate=0.2,
    heads=None,
    optimizer=None,
    pixel_weight=0.0,
    seed=0,
    verbose=1,
):
    """Latent vectors whose pictures look like `image` to the discriminator.

        minimise over z: sum over heads h of || s_h (D0(G(z)) - D0(image)) ||
                         + pixel_weight || G(z) - image ||

    D0 is the discriminator up to the input of its attention, s_h the
    saliency that head h of that attention gives to the target's cells. All
    starts run as one batch; none has an effect on another.

    Args:
        image: (H, W, 3) of the generator's size, float in [-1, 1] or uint8.
        generator, discriminator: models as `ylg.gan.generator` and
            `ylg.gan.discriminator` make them, of any size, trained together.
            They run in inference and are not changed.
        label: class of the picture, or a list of one for each start. None
            for a generator without classes.
        starts: S, how many random starts, from a normal distribution.
        steps: of the optimizer.
        learning_rate: of the default optimizer, at its first step.
        heads: indices of the heads of the attention to use; default all. The
            official script uses 0 to 3.
        optimizer: a Keras optimizer, of which a copy is used; default
            Lookahead over Adam, with a learning rate that falls to zero
            along a cosine. Clipping by norm would couple the starts.
        pixel_weight: weight of the distance of pixels. 0, the default, is
            the paper's.
        seed: of the starts; the same ones on every backend.
        verbose: 1 for a progress bar.

    Returns:
        An `Inversion`.

    Raises:
        ValueError: a picture of another size, dtype or range than above; a
            label where there are no classes, none where there are, or one
            out of range; a discriminator without attention, or for another
            size; an argument out of its range; a backend that is neither
            TensorFlow nor JAX.

    Cost: `steps` passes forward and back of S pictures through the generator
    and the first half of the discriminator.

    Example:

    >>> found = ylg.inversion.invert(image, generator, discriminator, label=3)
    >>> found.images[0]  # the best reconstruction, (H, W, 3)

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
        - [Zhang et al., 2019](https://arxiv.org/abs/1907.08610), Lookahead
    """
    step_of_backend()
    _check_numbers(starts, steps, learning_rate, pixel_weight)
    target = _check_image(image, generator, discriminator)
    labels = _check_labels(label, generator, starts)
    embed, embedded, keys = _look(discriminator, target, heads)
    cells = resize_saliency(keys, embedded.shape[1:3])

    def losses(z):
        inputs = z if labels is None else [z, ops.convert_to_tensor(labels)]
        images = generator(inputs, training=False)
        seen = embed(images, training=False)
        total = ops.sum(weighted_distance(seen, embedded, cells), axis=1)
        if pixel_weight:
            squares = ops.square(images - target)
            total += pixel_weight * root(ops.sum(squares, axis=(1, 2, 3)))
        return total

    # Downhill.
    latent_size = generator.inputs[0].shape[-1]
    z = np.random.default_rng(seed).normal(size=(starts, latent_size))
    latents, history = descend(
        losses,
        z.astype("float32"),
        [*generator.variables, *embed.variables],
        make_optimizer(optimizer, learning_rate, steps),
        steps,
        verbose,
    )

    # The best of each start, and the best start first.
    best = history.argmin(axis=0)
    order = np.argsort(history.min(axis=0), kind="stable")
    latents = latents[best, np.arange(starts)][order]
    labels = None if labels is None else labels[order]
    inputs = latents if labels is None else [latents, labels]
    images = generator.predict_on_batch(inputs)
    looked_at = resize_saliency(keys, target.shape[1:3], "bilinear")[0]
    return Inversion(
        latents=latents,
        labels=labels,
        images=images,
        losses=history.min(axis=0)[order],
        history=history[:, order],
        saliency=ops.convert_to_numpy(looked_at),
    )


def _look(discriminator, target, heads):
    """What the target looks like to a discriminator, and where it matters.

    Returns:
        The model up to the attention, its map of the target and the saliency
        of the keys.
    """
    layer = _attention_layer(discriminator)
    embed = keras.Model(discriminator.inputs[0], layer.input)
    heads = _check_heads(heads, layer.num_heads)
    embedded = embed(target, training=False)
    weights = layer.attention_weights(embedded)
    patterns = layer.patterns_for(embedded.shape)
    keys = saliency([weights[h] for h in heads], [patterns[h] for h in heads])
    return embed, embedded, keys


def _attention_layer(discriminator):
    named = {layer.name: layer for layer in discriminator.layers}
    if "attention" not in named:
        raise ValueError(
            'The discriminator must have a layer "attention", whose heads say '
            f"what matters. Received: layers {list(named)}"
        )
    layer = named["attention"]
    if not hasattr(layer, "attention_weights"):
        raise ValueError(
            'The discriminator\'s attention must be "ylg" or "dense", over '
            f"patterns. Received: {layer!r}"
        )
    return layer


def _check_numbers(starts, steps, learning_rate, pixel_weight):
    check_positive(starts=starts, steps=steps)
    if not is_number(learning_rate) or learning_rate <= 0:
        raise ValueError(
            "learning_rate must be positive. "
            f"Received: learning_rate={learning_rate!r}"
        )
    if not is_number(pixel_weight) or pixel_weight < 0:
        raise ValueError(
            "pixel_weight must be 0 or more. "
            f"Received: pixel_weight={pixel_weight!r}"
        )


def _check_image(image, generator, discriminator):
    """The picture as a float32 array (1, H, W, 3) in [-1, 1]."""
    size = tuple(generator.output_shape[1:])
    judged = tuple(discriminator.inputs[0].shape[1:])
    if size != judged:
        raise ValueError(
            "Generator and discriminator must be for the same size. "
            f"Received: {size} and {judged}"
        )
    image = np.asarray(image)
    if image.shape != size:
        raise ValueError(
            f"image must have the generator's size, {size}; resize it first. "
            f"Received: shape={image.shape}"
        )
    if image.dtype == np.uint8:
        return (image[None] / 127.5 - 1.0).astype("float32")
    if image.dtype.kind != "f":
        raise ValueError(
            "image must be uint8, or float in [-1, 1]. "
            f"Received: dtype={image.dtype}"
        )
    low, high = image.min(), image.max()
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(
            "A float image must be in [-1, 1]. "
            f"Received: values {low:.4g}..{high:.4g}"
        )
    return image[None].astype("float32")


def _check_labels(label, generator, starts):
    """The class of each start, int32 (S,), or None."""
    if len(generator.inputs) == 1:
        if label is not None:
            raise ValueError(
                "A generator without classes takes no label. "
                f"Received: label={label!r}"
            )
        return None
    classes = num_classes(generator)
    labels = np.asarray(-1 if label is None else label)
    whole = labels.dtype.kind in "iu" and labels.shape in ((), (starts,))
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"label must be a class in 0..{classes - 1}, or a list of "
            f"{starts}, one for each start. Received: label={label!r}"
        )
    return np.broadcast_to(labels, (starts,)).astype("int32")


def _check_heads(heads, num_heads):
    given = list(range(num_heads) if heads is None else heads)
    heads = [as_integer(head) for head in given]
    known = set(heads) & set(range(num_heads))
    if not heads or len(known) < len(heads):
        raise ValueError(
            f"heads must be different numbers in 0..{num_heads - 1}. "
            f"Received: heads={given}"
        )
    return heads
