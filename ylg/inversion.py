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
import math

import keras
import numpy as np
from keras import ops

from ylg.backends import for_backend
from ylg.gan.sampling import num_classes
from ylg.lookahead import Lookahead

INTERPOLATIONS = ("nearest", "bilinear")


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


def saliency(weights, patterns):
    """How much attention each key gets from those that look at it.

        s(k) = sum over q of a(q, k) / number of q with a(q, k) != 0

    and 0 for a key at which nobody looks. The divisor makes up for patterns
    that show a key to few queries.

    Args:
        weights: N tensors (B, n_q, degree), as `pattern_attention` and the
            layers' `attention_weights` return them.
        patterns: their N patterns, all on the same (hk, wk) grid of keys.

    Returns:
        float32 tensor (B, N, hk, wk).

    Raises:
        ValueError: numbers of weights and patterns that differ, weights that
            are not in the layout of their pattern, keys without a grid or on
            different ones.

    Cost: O(edges) time and memory.

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
    """
    weights, patterns = list(weights), list(patterns)
    if not patterns or len(weights) != len(patterns):
        raise ValueError(
            "Each head needs weights and a pattern. "
            f"Received: {len(weights)} weights, {len(patterns)} patterns"
        )
    grids = {pattern.key_shape for pattern in patterns}
    if len(grids) != 1 or len(patterns[0].key_shape) != 2:
        raise ValueError(
            "The keys of all patterns must be one grid (height, width). "
            f"Received: key shapes {sorted(grids)}"
        )
    for weight, pattern in zip(weights, patterns, strict=True):
        shape = tuple(weight.shape)
        if len(shape) != 3 or shape[1:] != pattern.neighbours.shape:
            raise ValueError(
                "Weights must be (batch, *pattern.neighbours.shape). Received: "
                f"shape={shape}, neighbours {pattern.neighbours.shape}"
            )
    heads = [
        _key_means(weight, pattern)
        for weight, pattern in zip(weights, patterns, strict=True)
    ]
    heads = ops.transpose(ops.stack(heads), (2, 0, 1))  # (B, N, n_k)
    return ops.reshape(heads, (-1, len(patterns), *patterns[0].key_shape))


def _key_means(weight, pattern):
    """Means over the non-zero entries of each column: (n_k, B)."""
    edges, keys = pattern.neighbours.size, pattern.num_keys
    weight = ops.cast(weight, "float32")
    weight = ops.transpose(ops.reshape(weight, (-1, edges)))
    seen = ops.cast(ops.not_equal(weight, 0.0), "float32")
    # One segment more than keys, for the padding.
    segments = pattern.neighbours.ravel()
    segments = np.where(segments < 0, keys, segments)
    total, count = (
        ops.segment_sum(x, segments, num_segments=keys + 1)[:keys]
        for x in (weight, seen)
    )
    return total / ops.maximum(count, 1.0)


def resize_saliency(saliency, size, interpolation="nearest"):
    """Saliency of the keys on another grid.

    Args:
        saliency: float tensor (B, N, hk, wk).
        size: (H, W).
        interpolation: "nearest", where a cell (i, j) takes the key cell
            (i hk // H, j wk // W), for the feature map; or "bilinear" with
            cells' centres at halves, for the picture.

    Returns:
        Tensor (B, N, H, W), in float32 if bilinear.

    Raises:
        ValueError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}. "
            f"Received: interpolation={interpolation!r}"
        )
    if interpolation == "nearest":
        for axis, cells in zip((2, 3), size, strict=True):
            index = np.arange(cells) * saliency.shape[axis] // cells
            saliency = ops.take(saliency, index, axis=axis)
        return saliency
    saliency = ops.transpose(ops.cast(saliency, "float32"), (0, 2, 3, 1))
    saliency = ops.image.resize(
        saliency, size, interpolation="bilinear", data_format="channels_last"
    )
    return ops.transpose(saliency, (0, 3, 1, 2))


def weighted_distance(x, y, saliency):
    """Distance of feature maps where each head's saliency counts.

        d_h = || s_h (x - y) ||, not squared

    One number for each pair and head. The official script takes one norm over
    the whole batch, sqrt(sum over pairs of d_h^2), whose gradient for one
    pair shrinks as the others are farther away; ours does not couple them.

    Args:
        x, y: float tensors (B, H, W, C); B is 1 or the same.
        saliency: float tensor (B, N, H, W); B is 1 or the same.

    Returns:
        float32 tensor (B, N). At distance 0 the gradient is 0.

    Raises:
        ValueError: shapes that do not fit.

    Cost: O(B H W (C + N)) time.

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
    """
    shapes = [tuple(tensor.shape) for tensor in (x, y, saliency)]
    ranks = [len(shape) for shape in shapes]
    grids = {shapes[0][1:3], shapes[1][1:3], shapes[2][2:]}
    if ranks != [4] * 3 or len(grids) > 1 or shapes[0][3] != shapes[1][3]:
        raise ValueError(
            "x and y must be (batch, height, width, channels) and saliency "
            "(batch, heads, height, width). Received: "
            "x={}, y={}, saliency={}".format(*shapes)
        )
    x, y, saliency = (ops.cast(t, "float32") for t in (x, y, saliency))
    squares = ops.sum(ops.square(x - y), axis=-1)[:, None]
    return _root(ops.sum(ops.square(saliency) * squares, axis=(2, 3)))


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
            size; an argument out of its range.

    Cost: `steps` passes forward and back of S pictures through the generator
    and the first half of the discriminator.

    Example:

    >>> found = ylg.inversion.invert(image, generator, discriminator, label=3)
    >>> found.images[0]  # the best reconstruction, (H, W, 3)

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
        - [Zhang et al., 2019](https://arxiv.org/abs/1907.08610), Lookahead
    """
    _check_numbers(starts, steps, learning_rate, pixel_weight)
    target = _check_image(image, generator, discriminator)
    labels = _check_labels(label, generator, starts)
    layer = _attention_layer(discriminator)
    embed = keras.Model(discriminator.inputs[0], layer.input)
    heads = _check_heads(heads, layer.num_heads)

    # What the target looks like, and where it matters.
    embedded = embed(target, training=False)
    weights = layer.attention_weights(embedded)
    patterns = layer.patterns_for(embedded.shape)
    keys = saliency([weights[h] for h in heads], [patterns[h] for h in heads])
    cells = resize_saliency(keys, embedded.shape[1:3])

    def losses(z):
        inputs = z if labels is None else [z, ops.convert_to_tensor(labels)]
        images = generator(inputs, training=False)
        distances = weighted_distance(
            embed(images, training=False), embedded, cells
        )
        total = ops.sum(distances, axis=1)
        if pixel_weight:
            squares = ops.square(images - target)
            total += pixel_weight * _root(ops.sum(squares, axis=(1, 2, 3)))
        return total

    # Downhill.
    latent_size = generator.inputs[0].shape[-1]
    z = np.random.default_rng(seed).normal(size=(starts, latent_size))
    optimizer = _optimizer(optimizer, learning_rate, steps)
    networks = [*generator.variables, *embed.variables]
    latents, history = _descend(
        losses, z.astype("float32"), networks, optimizer, steps, verbose
    )

    # The best of each start, and the best start first.
    best = history.argmin(axis=0)
    order = np.argsort(history.min(axis=0), kind="stable")
    latents = latents[best, np.arange(starts)][order]
    labels = None if labels is None else labels[order]
    inputs = latents if labels is None else [latents, labels]
    images = generator.predict_on_batch(inputs)
    size = target.shape[1:3]
    return Inversion(
        latents=latents,
        labels=labels,
        images=images,
        losses=history.min(axis=0)[order],
        history=history[:, order],
        saliency=ops.convert_to_numpy(
            resize_saliency(keys, size, "bilinear")[0]
        ),
    )


def _descend(losses, start, networks, optimizer, steps, verbose):
    """Runs the optimizer; latents and losses before each of the steps."""
    make = for_backend("Inversion", tensorflow=_tensorflow_step, jax=_jax_step)
    z = keras.Variable(start, name="latents")
    optimizer.build([z])
    step = make(losses, z, networks, optimizer)
    bar = keras.utils.Progbar(steps, stateful_metrics=["loss"], verbose=verbose)
    latents, history = [], []
    for index in range(steps):
        before, values = step()
        latents.append(before)
        history.append(values)
        if verbose:
            lowest = float(ops.convert_to_numpy(ops.min(values)))
            bar.update(index + 1, [("loss", lowest)])
    latents, history = (
        ops.convert_to_numpy(ops.stack(x)) for x in (latents, history)
    )
    # A start that left the range of floats is the worst, not the best.
    return latents, np.where(np.isfinite(history), history, np.inf)


def _tensorflow_step(losses, z, networks, optimizer):
    import tensorflow as tf

    @tf.function(autograph=False)
    def step():
        before = tf.identity(z.value)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(before)
            values = losses(before)
        optimizer.apply([tape.gradient(values, before)], [z])
        return before, values

    return step


def _jax_step(losses, z, networks, optimizer):
    import jax

    def total(before, weights):
        # The networks are arguments: constants would be compiled in.
        pairs = list(zip(networks, weights, strict=True))
        with keras.StatelessScope(pairs):
            values = losses(before)
        return ops.sum(values), values

    @jax.jit
    def update(before, state, weights):
        gradient, values = jax.grad(total, has_aux=True)(before, weights)
        [after], state = optimizer.stateless_apply(state, [gradient], [before])
        return after, state, values

    weights = [variable.value for variable in networks]
    state = [variable.value for variable in optimizer.variables]
    current = z.value

    def step():
        nonlocal current, state
        before = current
        current, state, values = update(before, state, weights)
        return before, values

    return step


def _root(x):
    """Square root whose gradient at 0 is 0."""
    positive = x > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, x, 1.0)), 0.0)


def _optimizer(optimizer, learning_rate, steps):
    if optimizer is None:
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        return Lookahead(keras.optimizers.Adam(schedule))
    optimizer = keras.optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def _attention_layer(discriminator):
    names = [layer.name for layer in discriminator.layers]
    if "attention" not in names:
        raise ValueError(
            'The discriminator must have a layer "attention", whose heads say '
            f"what matters. Received: layers {names}"
        )
    return discriminator.get_layer("attention")


def _check_numbers(starts, steps, learning_rate, pixel_weight):
    for name, value in (("starts", starts), ("steps", steps)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{name} must be a positive integer. Received: {name}={value!r}"
            )
    if not 0 < learning_rate < math.inf:
        raise ValueError(
            "learning_rate must be positive. "
            f"Received: learning_rate={learning_rate!r}"
        )
    if not 0 <= pixel_weight < math.inf:
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
    heads = range(num_heads) if heads is None else heads
    heads = list(heads)
    known = all(isinstance(h, int) and 0 <= h < num_heads for h in heads)
    if not heads or not known or len(set(heads)) < len(heads):
        raise ValueError(
            f"heads must be different numbers in 0..{num_heads - 1}. "
            f"Received: heads={heads}"
        )
    return heads
