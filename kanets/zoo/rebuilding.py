"""Graphs of another size, head or precision, without the weights."""

import keras

from kanets import tasks
from kanets.checks import is_positive
from kanets.zoo.loading import HEADS, head_name


def rebuilt(model, num_classes=None, input_shape=None, policy=None):
    """The same graph of another size, head or dtype policy, if asked for."""
    resized = input_shape is not None and (
        (None, *input_shape) != model.input_shape
    )
    if num_classes is None and not resized and policy is None:
        return model
    if resized:
        _check_open_inside(model, input_shape)
    config = model.get_config()
    layers = {layer["config"]["name"]: layer for layer in config["layers"]}
    head = head_name(layers)
    for layer in layers.values():
        layer.pop("build_config", None)
        if resized and layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = (None, *input_shape)
    if num_classes is not None:
        if head is None:
            raise ValueError(
                f"num_classes needs a model with one of the layers {HEADS}. "
                f"Received: {model.name!r} with {list(layers)[-3:]} at its end"
            )
        _set_classes(model, layers[head], num_classes)
    if policy is not None:
        # Layers come in the order of the graph.
        names = list(layers)
        end = len(names) - 1 if head is None else names.index(head)
        for place, layer in enumerate(layers.values()):
            layer["config"] = _with_policy(
                layer["config"],
                policy if place < end else keras.DTypePolicy("float32"),
            )
    new = model.__class__.from_config(config)
    if policy is not None:
        new.dtype_policy = policy  # where compile() looks for float16
    return new


def _set_classes(model, head, num_classes):
    """Makes a head, a layer's configuration, new: of so many classes."""
    settings = head["config"]
    size = next((x for x in ("units", "filters") if x in settings), None)
    if size is None:
        raise ValueError(
            "num_classes needs a head that maps to the classes, as a Dense. "
            f"Received: {model.name!r} with {settings['name']!r} of class "
            f"{head['class_name']}"
        )
    settings[size] = num_classes
    settings["trainable"] = True  # its weights are fresh


def _check_open_inside(model, input_shape):
    """Raises a ValueError if a model within has sizes of its own."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and any(layer.input_shape[1:3]):
            raise ValueError(
                "input_shape needs a model without models of fixed size "
                f"within. Received: input_shape={tuple(input_shape)} for "
                f"{model.name!r} with {layer.name!r} of input shape "
                f"{layer.input_shape}"
            )


def float_policy(dtype):
    """The policy of a name; raises a ValueError for one not of floats."""
    try:
        policy = keras.dtype_policies.get(dtype)
        quantized = policy.quantization_mode is not None
    except (AttributeError, TypeError, ValueError):
        quantized = policy = None
    if policy is None or quantized or "float" not in policy.compute_dtype:
        raise ValueError(
            "dtype must be None or a dtype policy of Keras, such as "
            f'"mixed_bfloat16". Received: dtype={dtype!r}'
        )
    return policy


def check_takes_pictures(model, num_classes, input_shape):
    """Raises a ValueError unless a model can get such a head and size."""
    if not tasks.takes_pictures(model):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            "num_classes and input_shape are for models of pictures alone, "
            "not for the networks of a GAN. Received: "
            f"num_classes={num_classes}, input_shape={input_shape} for "
            f"{model.name!r} of inputs {shapes}"
        )
    channels = model.inputs[0].shape[-1]
    if input_shape is not None and not (
        isinstance(input_shape, tuple | list)
        and len(input_shape) == 3
        and all(side is None or is_positive(side) for side in input_shape)
        and input_shape[-1] == channels
    ):
        raise ValueError(
            f"input_shape must be (height, width, {channels}), positive "
            f"integers or None for an open size. Received: {input_shape!r}"
        )


def _with_policy(config, policy):
    """A layer's configuration, and those within, with another dtype policy."""
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(value, policy) for value in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        floating = "float" in config["config"]["name"]
        return keras.dtype_policies.serialize(policy) if floating else config
    return {k: _with_policy(value, policy) for k, value in config.items()}
