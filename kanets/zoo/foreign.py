"""Weights under other people's names, into nets of ours, without their code.

A table says what each layer is called there, `{layer: (kind, prefix)}`, as in
`{"stem": ("conv", "conv_stem"), "stem_norm": ("norm", "bn1")}`; a layer within
a layer is "outer/inner". A kind of `KINDS` says which tensor is which variable,
and how its axes lie; `REPLACED` says that the net has another layer there, of
which those tensors are not. So a net brings its table, and nothing else.
"""

import dataclasses

import numpy as np

_BIAS = {"bias": ("bias", (0,))}

# PyTorch's: by our variable's name, the tensor's suffix, and which of its axes
# ours are.
KINDS = {
    "conv": {"kernel": ("weight", (2, 3, 1, 0)), **_BIAS},
    "depthwise": {"kernel": ("weight", (2, 3, 0, 1)), **_BIAS},
    "conv1d": {"kernel": ("weight", (2, 1, 0)), **_BIAS},
    "dense": {"kernel": ("weight", (1, 0)), **_BIAS},
    "scale": {"gamma": ("gamma", (0,))},
    "norm": {
        "gamma": ("weight", (0,)),
        "beta": ("bias", (0,)),
        "moving_mean": ("running_mean", (0,)),
        "moving_variance": ("running_var", (0,)),
    },
}
OWN = "own"  # the kind of tensors called as variables are: "stem/kernel"
REPLACED = "replaced"
IGNORED = "num_batches_tracked"  # how often batch norm was updated
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class Filled:
    """What `fill` did; as text one line.

    Attributes:
        source: where the tensors are from.
        tensors: how many were read into the net.
        layers: names of the layers that they filled.
        ignored: names that were ignored, those of `IGNORED`.
        left_out: names of those that were not used, of `skipped` or of a
            layer that the net has another in place of.
        skipped: optional layers of the table that were not filled.
        fresh: layers of the net that were left as they were.
    """

    source: str
    tensors: int
    layers: tuple
    ignored: tuple
    left_out: tuple
    skipped: tuple
    fresh: tuple

    def __str__(self):
        parts = [f"{self.tensors} tensors filled {len(self.layers)} layers"]
        if self.ignored:
            parts.append(f"ignored {len(self.ignored)} {IGNORED}")
        if self.left_out:
            parts.append(f"not used: {_listed(self.left_out)}")
        if self.fresh:
            parts.append(f"as built: {_listed(self.fresh)}")
        return f"{self.source}: {'; '.join(parts)}"


def fill(model, tensors, names, source, optional=()):
    """Reads tensors into a net by a table of names: all of them, or none.

    What the table does not name, as attention that a net has beside the layers
    it was published with, stays as it was built.

    Args:
        model: a built `keras.Model`.
        tensors: mapping from names to arrays, as a state dict or an `.npz`.
        names: the table, a dict from layers to pairs of a kind and a prefix.
        source: what errors and the report call the tensors.
        optional: layers that need not be there, nor fit: then they stay as
            they were built.

    Returns:
        The `Filled`.

    Raises:
        ValueError: tensors that are missing, left over or of another shape,
            or layers that the net has not; all are told in one error.
    """
    places = variables_by_layer(model)
    ignored = {n for n in tensors if n.rpartition(".")[2] == IGNORED}
    left = set(tensors) - ignored
    wrong = {"without layers": [], "missing": [], "of another shape": []}
    chosen, left_out, filled, skipped = [], [], [], []
    for layer, (kind, prefix) in names.items():
        if kind == REPLACED:
            used = {n for n in left if n.startswith(f"{prefix}.")}
            left_out += sorted(used)
            left -= used
            continue
        triples = _triples(places.get(layer, {}), kind, prefix)
        missing = [name for _, name, _ in triples if name not in left]
        other = [
            f"{name} {tensors[name].shape} for {_wanted(variable, axes)}"
            for variable, name, axes in triples
            if name in left and tensors[name].shape != _wanted(variable, axes)
        ]
        used = {name for _, name, _ in triples}
        if layer in optional and (not triples or missing or other):
            skipped.append(layer)
            used = {
                n for n in left if n.startswith((f"{prefix}.", f"{prefix}/"))
            }
            left_out += sorted(used)
        else:
            wrong["without layers"] += [] if triples else [layer]
            wrong["missing"] += missing
            wrong["of another shape"] += other
            chosen += triples
            filled.append(layer)
        left -= used
    wrong["left over"] = sorted(left)
    if any(wrong.values()):
        found = [f"{what} {_listed(n)}" for what, n in wrong.items() if n]
        raise ValueError(
            "The tensors must be those of the net, by name and shape. "
            f"Received: {str(source)!r} for {model.name!r}, "
            f"{'; '.join(found)}"
        )
    for variable, name, axes in chosen:
        tensor = tensors[name]
        variable.assign(tensor if axes is None else tensor.transpose(axes))
    return Filled(
        source=str(source),
        tensors=len(chosen),
        layers=tuple(filled),
        ignored=tuple(sorted(ignored)),
        left_out=tuple(left_out),
        skipped=tuple(skipped),
        fresh=tuple(place for place in places if place not in set(filled)),
    )


def variables_by_layer(model):
    """The weights of a model: by layer, then by name.

    Returns:
        A dict from layers, those within others as "outer/inner", to dicts
        from the names of their variables to these.
    """
    places = {}
    for layer in model.layers:
        for variable in layer.weights:
            # A model that is no functional one stands in front.
            *above, name = variable.path.split("/")
            inside = above[above.index(layer.name) :]
            places.setdefault("/".join(inside), {})[name] = variable
    return places


def _triples(variables, kind, prefix):
    """Variables of a layer, each with its tensor and the axes of that."""
    if kind == OWN:
        return [(v, f"{prefix}/{name}", None) for name, v in variables.items()]
    triples = []
    for name, variable in variables.items():
        suffix, axes = KINDS[kind][name]
        triples.append((variable, f"{prefix}.{suffix}", axes))
    return triples


def _wanted(variable, axes):
    """The shape of a variable's tensor."""
    if axes is None:
        return tuple(variable.shape)
    return tuple(variable.shape[i] for i in np.argsort(axes))


def _listed(names):
    """Names as a text, the first few of many."""
    text = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{text} and {more} more" if more > 0 else text
