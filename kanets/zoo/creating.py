"""Models of the zoo with another head, another size or other arguments."""

import functools
import inspect
import sys

import keras

from kanets import nets, tasks
from kanets.checks import positive_integer
from kanets.data.framing import fit_whole_pictures
from kanets.layers.batch_normalization import set_norm_momentum
from kanets.nets.registry import NETS
from kanets.zoo.applications import application, application_name
from kanets.zoo.entries import ARCHITECTURES
from kanets.zoo.loading import (
    HEADS,
    body_of,
    carry,
    read,
    read_architecture,
)
from kanets.zoo.rebuilding import (
    check_takes_pictures,
    float_policy,
    rebuilt,
)
from kanets.zoo.sources import locate
from kanets.zoo.timm import architecture_of
from kanets.zoo.weights import fill, find_weights

FINETUNING_MOMENTUM = 0.9

# Arguments of builders that are no overrides: `create_model` sets them.
_SET = {
    "classes",
    "input_shape",
    "input_tensor",
    "kwargs",
    "name",
    "num_classes",
    "weights",
}


def create_model(
    name,
    pretrained=True,
    num_classes=None,
    input_shape=None,
    dtype=None,
    weights=None,
    **overrides,
):
    """A model of the zoo, ready to predict or to be fine-tuned.

    Args:
        name: the name of an entry or an architecture, or what `load_model`
            reads, as "hf://timm/<name>" or "keras.applications.<Net>", whose
            new head is on the mean of its last map.
        pretrained: False gives the same architecture with fresh weights.
        num_classes: a new head of so many classes, with fresh weights, and
            momentum 0.9 in batch norm: a few dozen steps are enough for its
            moving statistics to describe the new pictures. None keeps the
            trained head and its class names.
        input_shape: (H, W, C) if another than it was trained at; sizes may
            be None.
        dtype: a Keras dtype policy or its name, such as "mixed_bfloat16", for
            all layers but the head (one of `HEADS`, otherwise the last
            layer) and what follows it, which compute in float32. None keeps
            that of the saved model, whatever the global policy is: a saved
            layer has its own.
        weights: others than the entry's, for it or an architecture: what
            `load_model` reads, a `.weights.h5` file, or timm's, as a
            `.safetensors` file or "hf://timm/<name>". They must fill the
            net, but for attention that it has and they have not, and for
            the head where `num_classes` asks for another size; a line on
            standard error tells what was read. The size of the pictures and
            the scale of their pixels are theirs, and with their head the
            crop and interpolation that fit pictures to it.
        **overrides: arguments of the net's builder, such as `dropout_rate`,
            `classifier_activation` or `output_stride`, in place of those in
            `entry.json`. The pretrained weights must fit what they make,
            in their shapes: whether they mean something there, such as
            another `attention`'s of the same shapes, is yours to say. The
            `attention` of an `EfficientNetLite` or of a conv `MobileNetV4`
            starts closed, and is fresh.

    Returns:
        A `keras.Model`, not compiled, from pixels 0..255 to probabilities, of
        a GAN its generator; with the labels as `class_names` where the head
        has the entry's classes. Without `dtype`, overrides build under the
        global dtype policy.

    Raises:
        ValueError: what `load_model` raises; a `num_classes`, `input_shape`
            or `dtype` that is none, the former two for a generator; an
            architecture with `pretrained` and without `weights`; `weights`
            that are none or do not fit; overrides that the builder does not
            take, that the weights do not fit, or of what is no entry.

    Example:

    >>> model = create_model("kanet_qkv_cifar10", num_classes=2)
    >>> model.output_shape
    (None, 2)

    With timm's config.json, pixels are scaled as its mean and std say, for
    `tf_efficientnet_lite0` (x - 127.5) / 127.5, where the authors' own weights
    have (x - 127) / 128. `include_preprocessing=False` leaves that to you, and
    `classifier_activation=None` gives logits.

    >>> model = create_model(
    ...     "efficientnet_lite0", weights="hf://timm/tf_efficientnet_lite0.in1k"
    ... )  # doctest: +SKIP
    """
    if num_classes is not None:
        num_classes = positive_integer("num_classes", num_classes)
    policy = None if dtype is None else float_policy(dtype)
    if application_name(name) is not None:
        _refuse_more(name, weights, overrides)
        model = application(name, num_classes, input_shape, pretrained)
        return _finished(model, num_classes, policy)
    architectures = {a.name: a for a in ARCHITECTURES}
    architecture = architectures.get(name)
    located = locate(name, foreign=True) if architecture is None else None
    if located is not None and located.is_timm:
        architecture = architecture_of(located.path, name)
        weights = name if weights is None and pretrained else weights
    if weights is not None:
        if architecture is None and not located.part:
            architecture = located.entry
        if not pretrained or architecture is None:
            raise ValueError(
                "weights are for an architecture or an entry, and take the "
                f"place of pretrained=False. Received: weights={weights!r}, "
                f"pretrained={pretrained!r} for {str(name)!r}"
            )
        return _with_weights(
            architecture, weights, num_classes, input_shape, policy, overrides
        )
    if not pretrained and architecture is not None:
        new = _build(architecture, num_classes, input_shape, overrides)
        return rebuilt(new, policy=policy)
    return _of_saved(
        located or locate(name),
        pretrained,
        num_classes,
        input_shape,
        policy,
        overrides,
    )


def _of_saved(located, pretrained, num_classes, input_shape, policy, overrides):
    """What was saved, or that architecture, as it was or changed."""
    entry = located.entry
    if overrides and (entry is None or located.part):
        raise ValueError(
            "Overrides need the entry.json of the model, for what it was "
            f"built with. Received: {str(located.path)!r} with {overrides}"
        )
    if overrides:
        located = body_of(located)
    model = read(located) if pretrained else read_architecture(located)
    class_names = getattr(model, "class_names", None)
    if num_classes is not None or input_shape is not None:
        check_takes_pictures(model, num_classes, input_shape)
    if overrides:
        # A generator's builder takes no shape.
        shape = model.input_shape[1:] if input_shape is None else input_shape
        new = _build(entry, num_classes, shape, overrides)
        new = rebuilt(new, policy=policy)
    else:
        new = rebuilt(model, num_classes, input_shape, policy)
    if pretrained and new is not model:
        closed = bool(overrides) and bool(NETS[entry.net].closed)
        carry(model, new, num_classes is not None, overrides, closed)
    if pretrained and num_classes is not None:
        set_norm_momentum(new, FINETUNING_MOMENTUM)
        fit_whole_pictures(new)
    has_head = num_classes is None and overrides.get("include_top", True)
    if class_names is not None and has_head:
        new.class_names = class_names
    return new


def _refuse_more(name, weights, overrides):
    given = {**overrides, **({} if weights is None else {"weights": weights})}
    if given:
        raise ValueError(
            "A net of keras.applications takes num_classes, input_shape and "
            f"dtype. Received: {str(name)!r} with {given}"
        )


def _finished(model, num_classes, policy):
    """A new model in another precision, and ready for a new head."""
    new = rebuilt(model, policy=policy)
    if new is not model:
        carry(model, new)
        names = getattr(model, "class_names", None)
        if names is not None:
            new.class_names = names
    if num_classes is not None:
        set_norm_momentum(new, FINETUNING_MOMENTUM)
    return new


def feature_model(source, levels=None, input_shape=None):
    """A model from pixels to the feature maps of a net.

    Args:
        source: a `keras.Model`, or what `load_model` reads.
        levels: a name or names of levels, of "level1", the finest, to
            "level5" (of an `SHViT` "level6"); None is all.
        input_shape: (H, W, C) if another than the model's; sizes may be None.

    Returns:
        A `keras.Model` from pixels (B, H, W, C) to a dict from the levels to
        maps (B, h, w, c). It shares the weights of `source` if that is a
        model and `input_shape` None.

    Raises:
        ValueError: an unknown level; a model without levels; what
            `load_model` raises.

    Example:

    >>> pyramid = feature_model("kanet_qkv_cifar10", ["level3"])
    >>> pyramid.output["level3"].shape
    (None, 8, 8, 16)
    """
    model = source if isinstance(source, keras.Model) else create_model(source)
    if input_shape is not None:
        check_takes_pictures(model, None, input_shape)
        resized = rebuilt(model, input_shape=input_shape)
        if resized is not model:
            carry(model, resized)
        model = resized
    maps = nets.feature_maps(model)
    if levels is None:
        levels = list(maps)
    levels = [levels] if isinstance(levels, str) else list(levels)
    for level in levels:
        if level not in maps:
            raise ValueError(
                f"levels must be of {list(maps)}. Received: {level!r}"
            )
    return keras.Model(
        model.input,
        {level: maps[level] for level in levels},
        name=f"{model.name}_features",
    )


def _arguments(architecture, overrides):
    """What an architecture is built with; raises for what it does not take."""
    if architecture.net not in NETS:
        raise ValueError(
            f"net must be one of {list(NETS)}. Received: "
            f"net={architecture.net!r} of {architecture.name!r}"
        )
    builder = NETS[architecture.net].builder
    known = [p for p in inspect.signature(builder).parameters if p not in _SET]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ValueError(
            f"Overrides must be arguments of {architecture.net}: {known}. "
            f"Received: {unknown}"
        )
    return {**architecture.arguments, **overrides}


def _build(architecture, num_classes, input_shape, overrides):
    """An architecture, with other arguments, by its builder."""
    arguments = _arguments(architecture, overrides)
    builder = NETS[architecture.net].builder
    classes = architecture.num_classes if num_classes is None else num_classes
    shape = architecture.input_shape if input_shape is None else input_shape
    task = tasks.TASKS[architecture.task]
    return task.build(builder, shape, classes, arguments)


def _with_weights(
    architecture, source, num_classes, input_shape, policy, overrides
):
    """An architecture with the weights of somewhere else."""

    def build(classes, shape):
        return _build(architecture, classes, shape, overrides)

    def prepare(tensors, shape):
        shape = architecture.input_shape if shape is None else shape
        return net.prepared(tensors, shape, arguments)

    arguments = _arguments(architecture, overrides)
    net = NETS[architecture.net]
    found = find_weights(
        source,
        architecture.name,
        net.timm_names(arguments),
        [
            functools.partial(build, classes, input_shape)
            for classes in dict.fromkeys([num_classes, None])
        ],
        prepare,
    )
    shape = found.input_shape if input_shape is None else input_shape
    model = build(num_classes, shape)
    if num_classes is not None or input_shape is not None:
        check_takes_pictures(model, num_classes, input_shape)
    model = rebuilt(model, policy=policy)
    has_top = overrides.get("include_top", True)
    optional = set() if num_classes is None and has_top else set(HEADS)
    if not has_top:  # as are the layers between the body and the head
        built = {layer.name for layer in model.layers}
        named = found.names or {}
        optional |= {n for n in named if n.partition("/")[0] not in built}
    report = fill(model, found, optional)
    if num_classes is not None:
        set_norm_momentum(model, FINETUNING_MOMENTUM)
        fit_whole_pictures(model)
    print(report, file=sys.stderr)
    return model
