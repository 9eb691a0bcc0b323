"""A net without its softmax, which is what a loss wants to see.

The gradient of a cross-entropy of probabilities is that of their logarithm,
and Keras ends it where they reach 1e-7: a picture that is taken for another
class with more certainty teaches nothing. On TensorFlow Keras looks for the
logits behind a softmax, on other backends it does not.
"""

import keras

from kanets import compat

# A softmax undoes a log-softmax, so that counts as logits.
_LOGITS = ("linear", "log_softmax", "logsoftmax")
_TRANSPARENT = ("cast", "dropout", "flatten", "identity", "reshape")


def logits_model(model):
    """The logits of a net, as a model to train.

    It has the layers of the net, and their weights, up to a softmax. Where
    that is the activation of the last layer, a copy of the layer takes its
    place: `model.set_weights(logits.get_weights())` brings the net up to date,
    in all cases.

    Args:
        model: a functional `keras.Model` of one output.

    Returns:
        A `keras.Model` of the same inputs and name; `model` itself if it
        returns logits; None if it ends neither in these nor in a softmax of
        the last axis.

    Example:

    >>> model = kanets.KANet((32, 32, 3), 0.25, classes=10)
    >>> logits = logits_model(model)
    >>> logits.compile("adam", keras.losses.CategoricalCrossentropy(True))
    """
    layer, name = _last_activation(model)
    if name in _LOGITS:
        return model
    if name != "softmax" or layer is not compat.producer(model.outputs[0]):
        return None
    if not hasattr(layer, "activation"):  # a softmax and nothing else
        if layer.axis != -1:
            return None
        return keras.Model(model.input, layer.input, name=model.name)
    config = {**layer.get_config(), "activation": None}
    linear = type(layer).from_config(config)
    outputs = linear(layer.input)
    linear.set_weights(layer.get_weights())
    return keras.Model(model.input, outputs, name=model.name)


def outputs_logits(model, probabilities=("softmax", "sigmoid")):
    """Tells from the last activation whether the outputs need a softmax.

    Args:
        model: a `keras.Model`.
        probabilities: the activations after which they need none.

    Raises:
        ValueError: it is none of those whose outputs are known.
    """
    _, name = _last_activation(model)
    if name in _LOGITS or name in probabilities:
        return name in _LOGITS
    raise ValueError(
        "`from_logits` must be given where the model does not end in a "
        f"{', '.join(probabilities)} or linear activation. Received: "
        f"from_logits=None, model={model.name!r}, which ends in {name}"
    )


def as_probabilities(logits, ops=keras.ops):
    """Of logits: of a single one that of its class, else those of all.

    Args:
        logits: float tensor (..., classes).
        ops: what has `sigmoid` and `softmax`: `keras.ops` or `tf.nn`.
    """
    return (ops.sigmoid if logits.shape[-1] == 1 else ops.softmax)(logits)


def _last_activation(model):
    """The layer or operation with a model's last activation, and its name."""
    layer = name = None
    outputs = getattr(model, "outputs", None)
    while outputs:
        layer = compat.producer(outputs[0])
        outputs = getattr(layer, "outputs", None)  # a model as a layer
        if outputs:
            continue
        activation = getattr(layer, "activation", layer)
        name = getattr(activation, "__name__", type(activation).__name__)
        name = name.lower()
        is_bare = activation is layer or type(layer).__name__ == "Activation"
        if is_bare and name in (*_TRANSPARENT, "linear"):
            outputs = [layer.input]
    return layer, name
