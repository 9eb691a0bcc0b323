"""Weights for `create_model`: of a file, an entry or the Hub, timm's, too.

timm publishes `model.safetensors`, tensors under its own names, which the nets'
tables in `kanets.nets.registry` translate, and beside it `config.json`, which
`kanets.zoo.timm` reads.
"""

import dataclasses

import keras

from kanets.checks import one_line
from kanets.zoo import foreign
from kanets.zoo.loading import read
from kanets.zoo.saving import check_class_names, check_finite
from kanets.zoo.sources import locate
from kanets.zoo.timm import described


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights with what their owner says of them.

    Attributes:
        source: where they are from, as it was asked for.
        tensors: arrays by name.
        names: the table that reads them; see `kanets.zoo.foreign`. None: they
            are called as ours are, and must be all of the net's.
        input_shape: (H, W, C) of the pictures they are for, or None.
        scaling: attributes of a `kanets.layers.PixelScale`, by name, as far
            as they are known.
        class_names: labels, or None.
        preparation: how pictures were prepared, as text.
    """

    source: str
    tensors: dict
    names: dict | None = None
    input_shape: tuple | None = None
    scaling: dict = dataclasses.field(default_factory=dict)
    class_names: tuple | None = None
    preparation: str = ""


def find_weights(weights, name, table, builds, prepare=None):
    """The weights that `create_model` is asked for.

    Args:
        weights: a `.safetensors` file with timm's names or a folder with one,
            a `.weights.h5` file, or what `load_model` reads; "hf://" is
            either.
        name: of the net they are for.
        table: timm's names of its layers, or None.
        builds: functions that make the net as a `.weights.h5` file may have
            it, the likeliest first.
        prepare: function of timm's tensors and the (H, W, C) they are for, or
            None, to the tensors that the table names.

    Returns:
        The `Published`.

    Raises:
        ValueError: nothing there, nothing that can be read, or timm's tensors
            for a net without a table.
    """
    if str(weights).endswith(".weights.h5"):
        return _of_keras(weights, _loaded(weights, name, builds), table)
    located = locate(weights, foreign=True)
    if not located.is_timm:
        return _of_keras(weights, read(located), table)
    if table is None:
        raise ValueError(
            "timm's weights are for the nets that have a table of its names "
            "in kanets.nets.registry. Received: "
            f"weights={str(weights)!r} for {name!r}"
        )
    published = _of_timm(weights, located.path, table)
    if prepare is None:
        return published
    tensors = prepare(published.tensors, published.input_shape)
    return dataclasses.replace(published, tensors=tensors)


def fill(model, published, optional):
    """Fills a net with them, and scales its pixels as they were.

    Args:
        model: the net, built.
        published: the `Published`; where they are known its labels become the
            model's, if the head is theirs.
        optional: heads that need not fit; see `kanets.zoo.foreign.fill`.

    Returns:
        A text of what was read.
    """
    names = published.names
    if names is None:
        theirs = {name.rpartition("/")[0] for name in published.tensors}
        heads = theirs.intersection(optional)
        layers = [*foreign.variables_by_layer(model), *heads]
        names = {layer: (foreign.OWN, layer) for layer in layers}
    tensors = _resized(model, published.tensors)
    filled = foreign.fill(model, tensors, names, published.source, optional)
    layer = _rescaling(model)
    for attribute, value in published.scaling.items():
        if hasattr(layer, attribute):
            setattr(layer, attribute, value)
    check_finite(model, published.source)
    if published.class_names is not None and not filled.skipped:
        check_class_names(model, published.class_names, published.source)
        model.class_names = published.class_names
    return f"{filled}{published.preparation}"


def _resized(model, tensors):
    """Tensors called as ours are, of the sizes of a net's learned positions."""
    tensors = dict(tensors)
    for layer in model.layers:
        names = [f"{layer.name}/{weight.name}" for weight in layer.weights]
        if hasattr(layer, "resized") and tensors.keys() >= set(names):
            values = layer.resized([tensors[name] for name in names])
            tensors.update(zip(names, values, strict=True))
    return tensors


def _loaded(weights, name, builds):
    """The first of the nets that a `.weights.h5` file fits."""
    for build in builds:
        model = build()
        try:
            model.load_weights(weights)
            return model
        except Exception as error:  # whatever a damaged or wrong file breaks
            reason, cause = one_line(error), error
    raise ValueError(
        f"The weights must be those of {name!r}. Received: "
        f"weights={str(weights)!r} ({reason})"
    ) from cause


def _of_keras(weights, model, table):
    """Those of a model of ours, which may have more than the table names."""
    layers = foreign.variables_by_layer(model)
    names = None
    if table is not None:
        own = [n for n, (kind, _) in table.items() if kind != foreign.REPLACED]
        names = {layer: (foreign.OWN, layer) for layer in [*own, *layers]}
    scaling = _rescaling(model)
    return Published(
        source=str(weights),
        tensors={
            f"{layer}/{name}": keras.ops.convert_to_numpy(variable)
            for layer, variables in layers.items()
            for name, variable in variables.items()
        },
        names=names,
        input_shape=tuple(model.inputs[0].shape[1:]),
        scaling={
            name: getattr(scaling, name)
            for name in ("scale", "offset", "crop", "interpolation")
            if hasattr(scaling, name)
        },
        class_names=getattr(model, "class_names", None),
    )


def _of_timm(weights, path, table):
    import safetensors.numpy  # for those who have such files

    try:
        tensors = safetensors.numpy.load_file(path)
    except Exception as error:  # whatever a damaged file breaks
        raise ValueError(
            "This is no .safetensors file that NumPy can hold. Received: "
            f"{str(path)!r} ({one_line(error)})"
        ) from error
    published = Published(str(weights), tensors, table)
    found = described(path)
    if found is None:
        return dataclasses.replace(
            published,
            preparation="; without config.json, pixels are scaled as the net "
            "does by itself",
        )
    return dataclasses.replace(
        published,
        input_shape=found.input_shape,
        scaling=found.scaling,
        class_names=found.class_names,
        preparation=found.text,
    )


def _rescaling(model):
    layers = (x for x in model.layers if isinstance(x, keras.layers.Rescaling))
    return next(layers, None)
