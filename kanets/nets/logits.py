"""A net without its softmax, which is what a loss wants to see.

The gradient of a cross-entropy of probabilities is that of their logarithm,
and Keras ends it where they reach 1e-7: a picture that is taken for another
class with more certainty teaches nothing. On TensorFlow Keras looks for the
logits behind a softmax, on other backends it does not.
"""

import keras


def logits_model(model):
    """The logits of a net, as a model to train.

    It has the layers of the net, and their weights, up to a softmax. Where
    that is the activation of the last layer, a copy of the layer takes its
    place: `model.set_weights(logits.get_weights())` brings the net up to date,
    in all cases.

    Args:
        model: a functional `keras.Model` of one output.

    Returns:
        A `keras.Model` of the same inputs and name; `model` itself if its last
        activation is linear; None if that is neither linear nor a softmax.

    Example:

    >>> model = kanets.KANet((32, 32, 3), 0.25, classes=10)
    >>> logits = logits_model(model)
    >>> logits.compile("adam", keras.losses.CategoricalCrossentropy(True))
    """
    head = model.layers[-1]
    activation = getattr(head, "activation", None)
    if activation is keras.activations.linear:
        return model
    if isinstance(head, keras.layers.Softmax) and head.axis == -1:
        return keras.Model(model.input, head.input, name=model.name)
    if activation is not keras.activations.softmax:
        return None
    linear = type(head).from_config({**head.get_config(), "activation": None})
    outputs = linear(head.input)
    linear.set_weights(head.get_weights())
    return keras.Model(model.input, outputs, name=model.name)
