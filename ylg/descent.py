"""Down the gradient of losses that do not know of one another.

Letters: S starts.
"""

import keras
import numpy as np
from keras import ops

from ylg.backends import for_backend
from ylg.gan.lookahead import Lookahead


def descend(losses, start, networks, optimizer, steps, verbose):
    """Runs an optimizer on vectors, each of which has a loss of its own.

    Args:
        losses: function from a tensor (S, ...) to a tensor (S,).
        start: float32 array (S, ...).
        networks: list of the variables that `losses` reads.
        optimizer: a Keras optimizer, unbuilt.
        steps: int.
        verbose: 1 for a progress bar.

    Returns:
        The vectors (steps, S, ...) and their losses (steps, S) before each of
        the steps, as arrays; inf for a loss that is not finite.
    """
    make = step_of_backend()
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


def step_of_backend():
    """What makes a step of `descend`; asked early, it refuses early.

    Raises:
        ValueError: another backend than TensorFlow and JAX.
    """
    return for_backend("Inversion", tensorflow=_tensorflow_step, jax=_jax_step)


def make_optimizer(optimizer, learning_rate, steps):
    """A copy of an optimizer; of None, Lookahead over Adam along a cosine."""
    if optimizer is None:
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        return Lookahead(keras.optimizers.Adam(schedule))
    optimizer = keras.optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


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
