"""Models that are trained for 8-bit integers, and back."""

import keras

from kanets.nets.insertion import copied
from kanets.quantization.net import MOMENTUM, QuantizationAware
from ylg.backends import for_backend


def prepare(model, momentum=MOMENTUM):
    """A copy of a net that computes as 8-bit integers will, to be trained.

    In it each kernel is rounded to 8 bits with a scale for each output channel,
    with the batch normalisation after it folded in, and what layers give each
    other to 8 bits in a range of its own, which is learned: see
    `kanets.quantization` for what is rounded where. Gradients pass as if
    nothing was rounded. Train it as the net was, at a tenth of the learning
    rate for some epochs; then `kanets.export_litert(..., precision="int8")`
    writes what it computes, and needs no representative pictures.

    Args:
        model: a functional or a built sequential `keras.Model` of layers with
            the channels last: of `keras.applications`, of this package or your
            own. It is not touched.
        momentum: float in [0, 1), of the ranges, which are means over the
            batches of training.

    Returns:
        A functional `keras.Model` of the same inputs, outputs, name and
        `class_names`, not compiled, whose one layer
        (`kanets.quantization.QuantizationAware`) holds the net. It is saved
        and loaded as any other; `strip` gives the net back. Before it has
        seen a batch in training, its outputs mean nothing.

    Raises:
        ValueError: another backend than TensorFlow and JAX; a model that is
            prepared already, is not functional or not
            built, or cannot be copied (see `kanets.insert_attention`); a
            nested model that is called more than once, or is not functional;
            channels first; a layer with weights that is none of those told in
            `kanets.quantization`; a momentum out of its range.

    Cost: one copy of the model. A step of training takes a tenth more on a
    CPU.

    Example:

    >>> net = keras.applications.MobileNetV2(weights=None, alpha=0.35)
    >>> prepared = kanets.quantization.prepare(net)
    >>> # prepared.compile(...), prepared.fit(...), then:
    >>> # kanets.export_litert(prepared, "phone", names, precision="int8")
    """
    check_backend()
    if is_prepared(model):
        raise ValueError(
            "A model is prepared once. Received: "
            f"model={model.name!r}, which is prepared"
        )
    net = copied(model)
    layer = QuantizationAware(net, momentum, name="quantization_aware")
    inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
        net.input,
    )
    return _named(keras.Model(inputs, layer(inputs), name=model.name), model)


def check_backend():
    """Raises a ValueError where no training for 8 bits is written."""
    for_backend("Training for 8 bits", tensorflow=True, jax=True)


def strip(model):
    """The float net of a prepared model, with the weights as trained.

    For exports that are not of 8 bits, for drawing and for further changes.

    Args:
        model: what `prepare` returned, trained or loaded.

    Returns:
        A `keras.Model` of the structure that was prepared, not compiled, that
        shares nothing with `model`.

    Raises:
        ValueError: a model that is not prepared.
    """
    return _named(copied(net_of(model)), model)


def net_of(model):
    """The float net inside of a prepared model, whose weights it has.

    Raises:
        ValueError: a model that is not prepared.
    """
    return _layer(model).net


def is_prepared(model):
    """Whether a model is one that `prepare` made."""
    return any(isinstance(x, QuantizationAware) for x in model.layers)


def check_trained(model):
    """Raises a ValueError unless a prepared model has learned its ranges."""
    if not keras.ops.convert_to_numpy(_layer(model).batches):
        raise ValueError(
            "A prepared model must have seen a batch in training, of which it "
            f"has its ranges. Received: model={model.name!r}, which has none"
        )


def _layer(model):
    layers = [x for x in model.layers if isinstance(x, QuantizationAware)]
    if len(layers) != 1:
        raise ValueError(
            "The model must be one that kanets.quantization.prepare made. "
            f"Received: model={model.name!r}"
        )
    return layers[0]


def _named(copy, model):
    if getattr(model, "class_names", None) is not None:
        copy.class_names = model.class_names
    return copy
