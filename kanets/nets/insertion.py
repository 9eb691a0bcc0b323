"""Attention put into a model that is there already, pretrained or not.

The model is copied layer by layer, and each layer's weights are carried to
its own copy: neither names nor the order of weights decide.
"""

import keras

from kanets import compat
from kanets.attention import table
from kanets.attention.checks import check_choice
from kanets.layers.attention_branch import residual_attention
from kanets.nets import places

TRAIN = ("all", "attention")


def insert_attention(
    model, at, attention="kao_qkv", gate="zero", train="all", momentum=0.9
):
    """A copy of a functional model with attention in it, as it answers now.

    After each layer that `at` names stands y = x + attention(norm(x)), a
    branch that starts closed (`kanets.layers.residual_attention`): outputs are
    equal before and after, to the last bit, and the branch opens while the
    copy is trained. The given model is not touched, and shares nothing with
    the copy but the functions of `Lambda` layers.

    Args:
        model: a functional or a built sequential `keras.Model`, of one or
            more inputs and outputs: of `keras.applications`, KerasHub or your
            own, channels last.
        at: after which layers. A name; a regular expression that matches whole
            names; "every stride", the last layer of each resolution, before
            each stride, that all of the net passes (the input of a block that
            first widens its maps threefold or more; not after the last
            stride); or a list of these. A layer inside of a nested model is
            "outer/inner", to any depth.
        attention: a name of `kanets.attention.names()`, a dictionary with
            arguments, or a function that makes a layer, as in
            `kanets.layers.residual_attention`.
        gate: "zero", or None for branches that start open.
        train: "all" keeps what is trained and what is frozen; "attention"
            freezes all but what is inserted (frozen batch normalisation runs
            in inference mode, as always in Keras). What is inserted is
            trained in both cases.
        momentum: of the new normalisations, as in `residual_attention`.

    Returns:
        A functional `keras.Model` of the same name and the same structure of
        inputs and outputs, not compiled. It is saved and loaded as any other.
        New layers are called "<layer>_attention", with "_norm" and "_add"
        (and "_scale", see `residual_attention`), and a number where such
        a name is taken; what a name, a dictionary or a factory makes has that
        name and the dtype policy of the layer before, what another callable
        makes its own. Where they stand behind an output,
        that output's name is theirs. Layers that are called several times are
        so in the copy, and nested models remain nested; where something is
        inserted in one, or in a model of a class of its own, the copy is a
        plain functional model.

    Raises:
        ValueError: a model that is not functional or not built; `at` that
            matches nothing (the nearest names are told), a layer of more than
            one call, or an output that is not one tensor (B, H, W, C);
            channels first; layers that cannot be copied: without a
            configuration, with weights that it does not tell of (LoRA), or
            that share a weight with another; weights outside of the graph;
            an unknown `attention`, `gate` or `train`; what the mechanism
            refuses, with the layer's name.

    Cost: one copy of the model.

    Example:

    >>> net = keras.applications.MobileNetV3Small(weights=None)
    >>> net = kanets.insert_attention(net, "expanded_conv_[0-9]+_add")
    """
    check_choice(TRAIN, train=train)
    check_choice(("zero", None), gate=gate)
    table.check(attention)
    check_graph(model)
    chosen = places.choose(model, at)
    _check_channels_last(model)
    arguments = {"gate": gate, "momentum": momentum}
    copier = _Copier(model, chosen, train, attention, arguments)
    copy = copier.model(model)
    copier.carry()
    _carry_names(model, copy)
    return copy


def copied(model):
    """A copy of a functional model that shares no weight with it.

    Args:
        model: as in `insert_attention`.

    Returns, Raises: as `insert_attention`.
    """
    check_graph(model)
    copier = _Copier(model, [], "all", None, {})
    copy = copier.model(model)
    copier.carry()
    _carry_names(model, copy)
    return copy


def _carry_names(model, copy):
    """Of the classes, where an entry or a run has them."""
    if hasattr(model, "class_names"):
        copy.class_names = model.class_names


class _Copier:
    """Copies a graph, models in models, and puts attention at its places."""

    def __init__(self, model, chosen, train, attention, arguments):
        self._original = model
        self._chosen = {id(call.operation): call.path for call in chosen}
        self._attention = attention
        self._arguments = arguments
        levels = places.calls(model)
        self._taken = {c.operation.name for level in levels for c in level}
        # To Keras a layer's own flag counts, and that of the outermost model.
        self._body_trains = train == "all" and model.trainable
        self._copies = {}  # id of an original: its copy
        self._leaves = []  # (original, copy)
        self._places = {}  # id of a copy: the path of its original

    def model(self, model):
        """The copy of a model whose calls are known."""
        plain = places.graph(model)
        return keras.models.clone_model(
            plain,
            input_tensors=keras.tree.map_structure(_new_input, plain.input),
            clone_function=self._operation,
            call_function=self._call,
        )

    def _operation(self, operation):
        if id(operation) not in self._copies:
            copy = self._copy(operation)
            self._copies[id(operation)] = copy
            if id(operation) in self._chosen:
                self._places[id(copy)] = self._chosen[id(operation)]
        return self._copies[id(operation)]

    def _copy(self, operation):
        if places.is_graph(operation) and self._is_rebuilt(operation):
            return self.model(operation)
        try:
            copy = _from_config(operation)
        except Exception as error:
            raise ValueError(
                "A layer is copied by its get_config and from_config. "
                f"Received: layer {operation.name!r} of class "
                f"{type(operation).__name__}, where that fails: {error}"
            ) from error
        if isinstance(operation, keras.layers.Layer):
            self._leaves.append((operation, copy))
        return copy

    def _is_rebuilt(self, model):
        """If a change or a plain class; else its class knows how."""
        plain = places.graph(model)
        if type(model) is type(plain):
            return True
        inside = places.calls(model)
        return any(
            id(c.operation) in self._chosen for level in inside for c in level
        )

    def _call(self, operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        path = self._places.get(id(operation))
        if path is None:
            return outputs
        (x,) = keras.tree.flatten(outputs)
        try:
            y = residual_attention(
                x,
                self._attention,
                dtype=_policy(operation, x),
                name=self._new_name(operation.name),
                **self._arguments,
            )
        except ValueError as error:
            raise ValueError(f"After {path!r}: {error}") from error
        return keras.tree.map_structure(lambda _: y, outputs)

    def _new_name(self, name):
        name = wanted = f"{name}_attention"
        number = 0
        endings = ("", "_norm", "_scale", "_add")
        while self._taken & {name + ending for ending in endings}:
            number += 1
            name = f"{wanted}_{number}"
        self._taken |= {name + ending for ending in endings}
        return name

    def carry(self):
        """Gives the copies the weights and flags of their originals."""
        owners = {}
        for layer, copy in self._leaves:
            for variable in layer.variables:
                owner = owners.setdefault(id(variable), layer.name)
                if owner != layer.name:
                    raise ValueError(
                        "A weight that two layers share would be two in a "
                        f"copy. Received: {variable.path!r} of layers "
                        f"{owner!r} and {layer.name!r}"
                    )
            _carry_weights(layer, copy)
            carry_flags(layer, copy, self._body_trains)
        for variable in self._original.weights:
            if id(variable) not in owners:
                raise ValueError(
                    "The weights of a model must be those of the layers of "
                    f"its graph. Received: model={self._original.name!r} "
                    f"with {variable.path!r} beside them"
                )


def _from_config(operation):
    config = operation.get_config()
    if not isinstance(operation, keras.layers.Lambda):
        return type(operation).from_config(config)
    # Its Python function is at hand: nothing is loaded that is not trusted.
    copy = type(operation).from_config(config, safe_mode=False)
    copy.function, copy.mask = operation.function, operation.mask
    return copy


def _carry_weights(layer, copy):
    old, new = layer.variables, copy.variables
    shapes = [[tuple(v.shape) for v in variables] for variables in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "A layer must tell in its configuration of all its weights. "
            f"Received: layer {layer.name!r} of class {type(layer).__name__}, "
            f"with weights {shapes[0]}, of whose configuration a layer with "
            f"{shapes[1]} is made"
        )
    for source, target in zip(old, new, strict=True):
        # JAX deletes the array that a step of training began with.
        target.assign(keras.ops.copy(source))
    compat.finalize(copy)


def carry_flags(layer, copy, may_train=True):
    """Freezes in a layer's copy what is frozen in it, to any depth."""
    pairs = zip(compat.all_layers(layer), compat.all_layers(copy), strict=False)
    for old, new in pairs:  # the outer before the inner, whom it sets, too
        new.trainable = may_train and old.trainable


def _new_input(tensor):
    layer = compat.producer(tensor)
    return type(layer).from_config(layer.get_config()).output


def _policy(operation, tensor):
    """That of the layer before, if it gives what it computes in."""
    policy = getattr(operation, "dtype_policy", None)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if type(policy) is keras.DTypePolicy and policy.compute_dtype == dtype:
        return policy
    is_half = dtype in ("float16", "bfloat16")
    return keras.DTypePolicy(f"mixed_{dtype}" if is_half else dtype)


def check_graph(model):
    """Raises a ValueError unless the calls of a model's layers are known."""
    if places.is_graph(model):
        return
    kind = type(model).__name__
    if isinstance(model, keras.Sequential):
        kind = "Sequential, not built: build it, or begin it with keras.Input"
    raise ValueError(
        "model must be a functional or a built sequential keras.Model, whose "
        f"layers' calls are known. Received: model of class {kind}"
    )


def _check_channels_last(model):
    for level in places.calls(model):
        for call in level:
            if getattr(call.operation, "data_format", None) == "channels_first":
                raise ValueError(
                    "Attention is for maps with the channels last. Received: "
                    f"layer {call.path!r} of "
                    f"data_format={call.operation.data_format!r}"
                )
