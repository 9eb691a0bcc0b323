"""One update of some variables by one optimizer, on TensorFlow and on JAX.

Keras has no gradient of its own. Everything else of a training step is
written once, with `keras.ops`, in `SAGAN`.
"""

import keras

from ylg.backends import for_backend


def gradient_step(loss, variables, optimizer, model):
    """Moves `variables` down the gradient of a loss.

    Args:
        loss: function without arguments that returns (scalar, auxiliary
            tensors); it may assign to variables of `model`.
        variables: list of trainable variables of `model`.
        optimizer: a built optimizer of them. It scales the loss for half
            precision, if it is one that does.
        model: the `keras.Model` whose variables the loss reads and assigns.

    Returns:
        (loss, auxiliary tensors), the loss not scaled.

    Raises:
        ValueError: another backend.
    """
    return step_of_backend()(loss, variables, optimizer, model)


def step_of_backend():
    """What `gradient_step` calls; asked early, it refuses early.

    Raises:
        ValueError: another backend than TensorFlow and JAX.
    """
    return for_backend(
        "Training a GAN", tensorflow=_tensorflow_step, jax=_jax_step
    )


def run_stateless(model, state, step):
    """Runs a step that assigns to variables inside JAX's stateless trainer.

    Args:
        model: a compiled `keras.Model`.
        state: the four lists of values that Keras's JAX trainer passes.
        step: function without arguments that returns the logs.

    Returns:
        (logs, new state), as the trainer expects.
    """
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    pairs = [
        pair
        for variables, values in zip(groups, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    with keras.StatelessScope(pairs) as scope:
        logs = step()
    return logs, tuple(
        [scope.get_current_value(v) for v in variables] for variables in groups
    )


def _tensorflow_step(loss, variables, optimizer, model):
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            "A GAN trains on one device here: replicas would draw the same "
            f"latents. Received: a strategy of {replicas} replicas"
        )
    with tf.GradientTape() as tape:
        value, auxiliary = loss()
        scaled = optimizer.scale_loss(value)
    gradients = tape.gradient(scaled, [v.value for v in variables])
    optimizer.apply(gradients, variables)
    return value, auxiliary


def _jax_step(loss, variables, optimizer, model):
    import jax

    others = {id(v) for v in variables}
    others = [v for v in model.variables if id(v) not in others]

    def pure(values):
        # A scope hides the one around it: all variables are listed.
        fixed = [(v, v.value) for v in others]
        given = list(zip(variables, values, strict=True))
        with keras.StatelessScope([*fixed, *given]) as scope:
            value, auxiliary = loss()
        changed = [scope.get_current_value(v) for v in others]
        return scale(value), (value, auxiliary, changed)

    scale = optimizer.scale_loss
    values = [v.value for v in variables]
    gradients, (value, auxiliary, changed) = jax.grad(pure, has_aux=True)(
        values
    )
    values, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], gradients, values
    )
    for variable, new in (
        *zip(others, changed, strict=True),
        *zip(variables, values, strict=True),
        *zip(optimizer.variables, state, strict=True),
    ):
        variable.assign(new)
    return value, auxiliary
