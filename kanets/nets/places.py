"""Places in a functional model, by names, expressions or strides.

A path is a layer's name, behind those of the models it is nested in:
"backbone/block_2_add". Operations of `keras.ops` in a graph have names, too.
"""

import dataclasses
import difflib
import re

import keras

from kanets import compat

EVERY_STRIDE = "every stride"
_LEFT_OUT = (
    keras.layers.ZeroPadding2D,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
)
_ENDS = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)
# A call is a stride where a side of the maps shrinks so many times: more than
# a convolution without padding takes, but in the smallest maps.
_SHRINKS = 1.5
# An inverted residual widens its input so many times or more.
_WIDENS = 3


@dataclasses.dataclass
class Call:
    """One call in a graph: of what, and its tensors."""

    path: str
    operation: object
    inputs: list
    outputs: list

    @property
    def is_input(self):
        return isinstance(self.operation, keras.layers.InputLayer)

    @property
    def maps(self):
        """(H, W, C) of an output that is one tensor (B, H, W, C), or None."""
        if len(self.outputs) != 1 or len(self.outputs[0].shape) != 4:
            return None
        return tuple(self.outputs[0].shape[1:])


def is_graph(layer):
    """Whether a layer is a model whose calls are known, and are all it does."""
    if not isinstance(layer, keras.Model) or _has_own_call(layer):
        return False
    if isinstance(layer, keras.Sequential):
        return layer.built and bool(layer.inputs)
    return isinstance(layer, keras.Function)


def _has_own_call(model):
    owner = next(k for k in type(model).__mro__ if "call" in vars(k))
    return owner.__module__.partition(".")[0] != "keras"


def graph(model):
    """A plain functional model of the same layers, not compiled."""
    if isinstance(model, keras.Sequential):
        (inputs,), (outputs,) = model.inputs, model.outputs
        return keras.Model(inputs, outputs, name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def calls(model, prefix=""):
    """The calls of a model in order; those inside of nested ones are apart.

    Args:
        model: as `is_graph` tells.
        prefix: of the paths.

    Returns:
        A list of lists of `Call`: the model's own, then those of each model
        that is nested in it.
    """
    own = [
        Call(prefix + operation.name, operation, inputs, outputs)
        for operation, inputs, outputs, _ in compat.calls(graph(model))
    ]
    nested = {c.path: c.operation for c in own if is_graph(c.operation)}
    found = [own]
    for path, inner in nested.items():
        found += calls(inner, f"{path}/")
    return found


def choose(model, at):
    """The calls after which something is to stand.

    Args:
        model: as `is_graph` tells.
        at: "every stride"; a path; a regular expression, text or compiled,
            that matches whole paths; or several of these.

    Returns:
        A list of `Call`, each of another layer.

    Raises:
        ValueError: something in `at` that matches nothing, with the nearest
            paths; a layer that is called more than once; one whose output is
            not one tensor (B, H, W, C).
    """
    levels = calls(model)
    chosen = {}
    if isinstance(at, str | re.Pattern):
        at = [at]
    if not isinstance(at, list | tuple | set):
        raise ValueError(
            "at must be a name, an expression or a list of these. "
            f"Received: at={at!r}"
        )
    for written in at:
        if written == EVERY_STRIDE:
            found = [c for level in levels for c in before_strides(level)]
            if not found:
                raise _no_stride(model, levels)
        else:
            found = _matching(written, levels)
        chosen.update({c.path: c for c in found})
    every = [c for level in levels for c in level]
    for path, call in chosen.items():
        _check(call, [c for c in every if c.path == path])
    if not chosen:
        raise ValueError(f"at must name a layer or more. Received: at={at!r}")
    return list(chosen.values())


def before_strides(level):
    """The last calls of each resolution: those before each stride.

    All of the model passes there: not a branch of a block. What pads maps or
    drops some is left out, and so is what has the shape of the model's inputs:
    pictures, rescaled or not. Where a block first widens its maps,
    threefold or more, and then strides (an inverted residual), it is the input
    of the block.

    Args:
        level: list of `Call`, as `calls` has them.
    """
    pictures = {c.maps for c in level if c.is_input}
    found, last = [], None
    for call in _passed_by_all(level):
        if isinstance(call.operation, _ENDS):  # which may keep (1, 1) maps
            break
        if last is not None and _strides(last.maps, call.maps):
            found.append(_before_widening(last, level))
        if not isinstance(call.operation, _LEFT_OUT):
            last = call
    return [c for c in found if not c.is_input and c.maps not in pictures]


def _passed_by_all(level):
    """Calls with maps of known size that every path through them passes."""
    position = {id(t): i for i, c in enumerate(level) for t in c.outputs}
    last_use = [0] * len(level)
    for i, call in enumerate(level):
        for tensor in call.inputs:
            last_use[position[id(tensor)]] = i
    needed, found = 0, []
    for i, call in enumerate(level):
        if needed <= i and call.maps is not None and None not in call.maps:
            found.append(call)
        needed = max(needed, last_use[i])
    return found


def _strides(before, after):
    return any(
        b >= _SHRINKS * a for b, a in zip(before[:2], after[:2], strict=True)
    )


def _before_widening(call, level):
    makers = {id(t): c for c in level for t in c.outputs}
    here = call
    while len(here.inputs) == 1:
        before = makers[id(here.inputs[0])]
        if before.maps is None or before.maps[:2] != call.maps[:2]:
            break
        here = before
        if _WIDENS * here.maps[2] <= call.maps[2]:
            return here
    return call


def _matching(written, levels):
    known = {c.path: c for level in levels for c in level if not c.is_input}
    if isinstance(written, str) and written in known:
        return [known[written]]
    try:
        expression = re.compile(written)
    except (re.error, TypeError) as error:
        raise ValueError(
            f'at must hold names, regular expressions or "{EVERY_STRIDE}" '
            f"({error}). Received: at={written!r}"
        ) from error
    found = [c for path, c in known.items() if expression.fullmatch(path)]
    if not found:
        raise ValueError(
            "at must match layers of the model, those of nested models as "
            f"outer/inner (nearest: {_nearest(expression.pattern, known)}). "
            f"Received: at={expression.pattern!r}"
        )
    return found


def _nearest(pattern, known):
    """Paths, the names or ends of which are nearest to what was written."""
    ends = {path.rpartition("/")[2]: path for path in known}
    ends = {**ends, **{path: path for path in known}}
    found = difflib.get_close_matches(pattern, ends, n=3, cutoff=0)
    return ", ".join(dict.fromkeys(ends[name] for name in found))


def _check(call, same):
    if len(same) > 1:
        raise ValueError(
            "Attention stands after a layer that is called once. "
            f"Received: at, which matches {call.path!r} of {len(same)} calls"
        )
    if call.maps is None:
        shapes = ", ".join(str(tuple(t.shape)) for t in call.outputs)
        raise ValueError(
            "Attention stands after layers that give one tensor (batch, "
            f"height, width, channels). Received: at, which matches "
            f"{call.path!r} of {shapes}"
        )


def _no_stride(model, levels):
    maps = [c.maps for level in levels for c in level if c.maps is not None]
    why = "has none before which all of it passes one layer"
    if any(None in m for m in maps):
        why = "has maps of an open size"
    return ValueError(
        f'at="{EVERY_STRIDE}" needs maps of known sizes and strides; name '
        f"layers instead. Received: model={model.name!r}, which {why}"
    )
