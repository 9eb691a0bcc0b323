"""The body of a segmenter: fresh, or of a net that is there already.

A KANet's is built anew and takes the weights; any other net's is copied, with
the strides and dilations of the output stride. Nothing is shared with what is
given.
"""

import pkgutil
from itertools import zip_longest

import keras

from kanets import compat
from kanets.nets import kanet
from kanets.nets.efficientnet_lite import PYRAMID
from kanets.nets.insertion import carry_flags
from kanets.nets.parts import signed_scale

MAPS = ("level2", "level5")  # those a segmenter reads
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
OF_A_KANET = {
    "strides": (2, 2, 2, 2, 2),
    "backbone_attention": "kao_qkv",
    "include_preprocessing": True,
}


def segmenter_body(backbone, input_shape, alpha, output_stride, **of_a_kanet):
    """What a segmenter's maps come from.

    Args:
        backbone: as in `KANetSegmenter`.
        input_shape: (H, W, 3), sizes may be None.
        alpha: width of a KANet's body.
        output_stride: 8 or 16.
        **of_a_kanet: `strides`, `backbone_attention` and
            `include_preprocessing` of `KANetSegmenter`.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to a dict of the maps of
        "level2" and "level5".

    Raises:
        ValueError: as `KANetSegmenter`.
    """
    if isinstance(backbone, str):
        backbone = None if backbone == "kanet" else _named(backbone)
    inputs = keras.Input(input_shape, name="pixels")
    if backbone is None or is_kanet(_checked(backbone)):
        body = _kanet(inputs, alpha, output_stride, **of_a_kanet)
        if backbone is not None:
            _copy_weights(backbone, body)
        return body
    maps = _maps(backbone)
    for name, value in of_a_kanet.items():
        given = tuple(value) if isinstance(value, list) else value
        if given != OF_A_KANET[name]:
            raise ValueError(
                f"{name} is for the body of a KANet, and another has its own. "
                f"Received: {name}={value!r}, backbone={backbone.name!r}"
            )
    body = _copied(keras.Model(backbone.input, maps), inputs, output_stride)
    _check_output_stride(body, output_stride)
    return body


def is_kanet(model):
    """Whether a model is a KANet or has the body of one."""
    names = {layer.name for layer in model.layers}
    return names.issuperset(kanet.LEVELS.values())


def body_layers(model):
    """The layers of a net that are not new when it starts from another.

    Args:
        model: a segmenter of `KANetSegmenter`, or a net with a head.

    Returns:
        A list of layers: those before the pyramid, or all.
    """
    if PYRAMID not in {layer.name for layer in model.layers}:
        return list(model.layers)
    return keras.Model(model.input, model.get_layer(PYRAMID).input).layers


def _named(name):
    """The model of a name; the zoo stands above the nets, so is asked here."""
    architectures = pkgutil.resolve_name("kanets.zoo.entries:ARCHITECTURES")
    if name in {a.name for a in architectures}:
        name = f"{name}_imagenet"
    policy = keras.config.dtype_policy()
    dtype = None if policy.name == "float32" else policy
    return pkgutil.resolve_name("kanets.zoo:create_model")(name, dtype=dtype)


def _checked(backbone):
    if not isinstance(backbone, keras.Model):
        raise ValueError(
            "backbone must be a name or a keras.Model. "
            f"Received: backbone={backbone!r}"
        )
    return backbone


def _kanet(
    inputs,
    alpha,
    output_stride,
    strides,
    backbone_attention,
    include_preprocessing,
):
    x = inputs
    if include_preprocessing:
        x = signed_scale(x)
    x = kanet.make_body(x, alpha, strides, output_stride, backbone_attention)
    levels = kanet.feature_maps(keras.Model(inputs, x))
    return keras.Model(inputs, {name: levels[name] for name in MAPS})


def _maps(backbone):
    """Maps by level, of an EfficientNetLite or of a feature model."""
    if not isinstance(backbone.output, dict):
        try:
            found = kanet.feature_maps(backbone)
        except ValueError:
            found = {}
    else:
        found = backbone.output
    if not found.keys() >= set(MAPS):
        raise ValueError(
            "backbone must be a net of the zoo's kinds or a model from pixels "
            f"to a dict with the maps {' and '.join(MAPS)}. "
            f"Received: backbone={backbone.name!r}"
        )
    return {name: found[name] for name in MAPS}


def _copied(model, inputs, output_stride):
    """A copy of a body, dilated to an output stride."""
    changes = _dilations(model, output_stride)

    def copy(layer):
        config = {**layer.get_config(), **changes.get(layer.name, {})}
        return type(layer).from_config(config)

    body = keras.models.clone_model(model, inputs, clone_function=copy)
    weights = {layer.name: layer.weights for layer in model.layers}
    for layer in body.layers:
        if layer.weights:
            for new, old in zip(
                layer.weights, weights[layer.name], strict=True
            ):
                new.assign(old)
    compat.finalize(body)
    return body


def _dilations(model, output_stride):
    """What an output stride changes in a net's convolutions.

    Strides beyond it become 1, and kernels behind them see what they saw: their
    cells lie as far apart as the strides had brought them (DeepLab's rule). A
    convolution whose borders a layer pads has them padded as widely on both
    sides. Other layers that reduce a picture stay as they are.

    Args:
        model: functional; maybe of an output stride of its own.
        output_stride: 8 or 16; a greater one of the net's own changes nothing.

    Returns:
        A dict from a layer's name to the changes of its configuration.
    """
    changes = {}
    known = {id(x): (1, 1) for x in keras.tree.flatten(model.inputs)}
    for layer, inputs, outputs, _ in compat.calls(model):
        reached, dilation = map(
            max, zip(*[known[id(x)] for x in inputs or outputs], strict=True)
        )
        stride = _stride(layer)
        if isinstance(layer, CONVOLUTIONS):
            rate = layer.dilation_rate[0] * dilation
            if reached == output_stride:
                stride, dilation = 1, dilation * stride
            new = {"strides": (stride,) * 2, "dilation_rate": (rate,) * 2}
            if layer.kernel_size == (1, 1):
                del new["dilation_rate"]
            if any(value != getattr(layer, key) for key, value in new.items()):
                changes[layer.name] = new
                padding = compat.producer(inputs[0])
                if isinstance(padding, keras.layers.ZeroPadding2D):
                    sides = [rate * (k // 2) for k in layer.kernel_size]
                    changes[padding.name] = {"padding": tuple(sides)}
        known |= {id(x): (reached * stride, dilation) for x in outputs}
    return changes


def _stride(layer):
    strides = getattr(layer, "strides", 1)
    return max(strides) if isinstance(strides, tuple) else strides


def _check_output_stride(body, output_stride):
    size = [n or 16 * output_stride for n in body.input.shape[1:3]]
    shapes = body.compute_output_shape((1, *size, 3))
    reached = shapes["level5"][1:3]
    if any(
        abs(cells - side / output_stride) >= 1
        for cells, side in zip(reached, size, strict=True)
    ):
        raise ValueError(
            "output_stride must be what the backbone reduces pictures by, or "
            "what strides of its convolutions bring them to on the way. "
            f"Received: output_stride={output_stride}, of a picture "
            f"{tuple(size)} level5 {tuple(reached)}"
        )


def _copy_weights(backbone, body):
    found = {layer.name: layer for layer in backbone.layers}
    for layer in body.layers:
        if not layer.weights:
            continue
        given = found.get(layer.name)
        for has, needs in zip_longest(_summary(given), _summary(layer)):
            if has != needs:
                raise ValueError(
                    "backbone must be a KANet of this alpha and this "
                    f"backbone_attention. Received: backbone={backbone.name!r}"
                    f", whose layer {layer.name!r} has {has}, not {needs}"
                )
        for new, old in zip(layer.weights, given.weights, strict=True):
            new.assign(old)
        carry_flags(given, layer)
    ours = {layer.name for layer in body.layers}
    for layer in keras.Model(backbone.input, _maps(backbone)).layers:
        if layer.weights and layer.name not in ours:
            raise ValueError(
                "backbone must be a KANet of its own layers alone; attention "
                "is inserted into the segmenter that is made of it. Received: "
                f"backbone={backbone.name!r}, with a layer {layer.name!r}"
            )


def _summary(layer):
    """What must agree: kind, settings of the attention, weights' shapes.

    A layer of one's own is a dictionary, too, of another name in each module.
    """
    if layer is None:
        return [None]
    config = layer.get_config()
    keys = ("attention", "attention_scale", "attention_activation")
    settings = [config[key] for key in keys if key in config]
    return [
        type(layer).__name__,
        *(s for s in settings if not isinstance(s, dict) or "name" in s),
        *(tuple(weight.shape) for weight in layer.weights),
    ]
