"""The same model with weights and arithmetic of another precision."""

import keras
import numpy as np

from kanets import compat
from kanets.zoo.saving import check_finite

PRECISIONS = ("float32", "float16", "bfloat16")


def in_precision(model, precision):
    """Copies a model into another precision.

    Weights and computation both change; layers that keep parts in float32 by
    themselves, as attention does its softmax, still do.

    Args:
        model: built Keras model of registered or built-in layers.
        precision: "float32", "float16" or "bfloat16"; None for the model as
            it is.

    Returns:
        The copy, or `model` itself for None.

    Raises:
        ValueError: another precision, or a model that cannot be copied, such
            as a subclass without a configuration; weights beyond the
            greatest number of the precision.
    """
    if precision is None:
        return model
    check_precision(precision, PRECISIONS)

    def copy_layer(layer):
        return type(layer).from_config(_with(layer.get_config(), precision))

    try:
        # A model of its own is not compiled, with losses that only it knows.
        inputs, outputs = (
            tensors[0] if len(tensors) == 1 else tensors
            for tensors in (model.inputs, model.outputs)
        )
        plain = keras.Model(inputs, outputs, name=model.name)
        copy = keras.models.clone_model(
            plain, clone_function=copy_layer, recursive=True
        )
        with np.errstate(over="ignore"):  # an error, below
            copy.set_weights(plain.get_weights())
    except (AttributeError, NotImplementedError, TypeError, ValueError) as e:
        raise ValueError(
            "`precision` needs a model whose layers can be copied. "
            f"Received: model={model.name!r}, precision={precision!r}: {e}"
        ) from e
    compat.finalize(copy)
    check_finite(copy, f"{model.name} in {precision}")
    if hasattr(model, "class_names"):
        copy.class_names = model.class_names
    return copy


def check_precision(precision, known):
    """Raises a ValueError unless the precision is one of those known."""
    if precision not in known:
        raise ValueError(
            f"`precision` must be one of {', '.join(known)}. "
            f"Received: precision={precision!r}"
        )


def _with(config, precision):
    """A layer's configuration, those in it too, in another precision."""
    if isinstance(config, list | tuple):
        return type(config)(_with(value, precision) for value in config)
    if not isinstance(config, dict):
        return config
    changed = {}
    for key, value in config.items():
        if key == "dtype" and _is_floating(value):
            value = precision
        elif key.endswith("_initializer"):
            value = "zeros"  # the weights follow; some need float32
        changed[key] = _with(value, precision)
    return changed


def _is_floating(dtype):
    """Whether it is a policy or dtype of floats, not of labels or masks."""
    name = dtype["config"]["name"] if isinstance(dtype, dict) else str(dtype)
    return "float" in name
