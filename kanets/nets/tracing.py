"""A net as a list of calls: nested models and modules opened, nothing run."""

import dataclasses

import keras

from kanets import compat
from kanets.attention.base import AttentionLayer
from kanets.layers.inverted_residual import (
    AttnModule,
    BaseModule,
    BaseSkipModule,
)
from kanets.nets import places

_MODULES = (BaseModule, BaseSkipModule, AttnModule)


@dataclasses.dataclass(eq=False)
class Step:
    """One call.

    Attributes:
        name: of the layer or operation, behind those it is inside of.
        run: what is called, a layer, an operation or a function.
        args, kwargs: of the call, symbolic tensors and others.
        outputs: list of symbolic tensors.
        kind: of `kanets.quantization`, which says what it is.
        quantizer: of the same, a list with one for each output.
    """

    name: str
    run: object
    args: tuple
    kwargs: dict
    outputs: list
    kind: str = ""
    quantizer: object = None

    @property
    def inputs(self):
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [x for x in leaves if isinstance(x, keras.KerasTensor)]


def trace(model, open_attention=None):
    """The calls of a functional model, in order.

    Nested models and the modules of a KANet are opened: what is inside stands
    in their place.

    Args:
        model: as `kanets.nets.places.is_graph` tells; its layers are what the
            steps run.
        open_attention: function from a step that runs a layer of attention to
            the functional model that it consists of, or to None where it is
            to be one step; by default all are.

    Returns:
        A list of `Step`, and the outputs of the model, symbolic.

    Raises:
        ValueError: a nested model that is called more than once.
    """
    tracer = _Tracer(open_attention or (lambda step: None))
    tracer.follow(model)
    return tracer.steps, keras.tree.map_structure(tracer.find, model.output)


def run(steps, tensors, given, outputs, call):
    """Computes what steps give for some numbers.

    Args:
        steps: list of `Step`, none before those it takes something from.
        tensors: list of symbolic tensors that are given.
        given: list of their values.
        outputs: structure of symbolic tensors.
        call: function from a step, its arguments and its keywords, with
            values in the places of tensors, to what it gives.

    Returns:
        The values of `outputs`, in their structure.
    """
    values = {id(t): x for t, x in zip(tensors, given, strict=True)}

    def value(leaf):
        return values.get(id(leaf), leaf)

    for step in steps:
        args, kwargs = keras.tree.map_structure(value, (step.args, step.kwargs))
        results = keras.tree.flatten(call(step, args, kwargs))
        values.update(
            (id(t), x) for t, x in zip(step.outputs, results, strict=True)
        )
    return keras.tree.map_structure(value, outputs)


def readers(steps, outputs):
    """The steps that take each tensor, by its id; None where it leaves."""
    found = {}
    for step in steps:
        for tensor in step.inputs:
            found.setdefault(id(tensor), []).append(step)
    for tensor in keras.tree.flatten(outputs):
        found.setdefault(id(tensor), []).append(None)
    return found


def only_reader(readers, step):
    """The one step that takes what another gives, or None."""
    found = readers.get(id(step.outputs[0]), [])
    return found[0] if len(found) == len(step.outputs) == 1 else None


def take_activation(step, name):
    """Takes the activation of a step's layer out: it is the step returned."""
    (outputs,) = step.outputs
    step.outputs = [like(outputs)]
    return Step(
        f"{step.name}_{name}",
        step.run.activation,
        (*step.outputs,),
        {},
        [outputs],
    )


def like(tensor):
    """Another symbolic tensor of the same shape and dtype."""
    return keras.KerasTensor(tensor.shape, tensor.dtype)


def graph_of(call, step):
    """What a step computes as a functional model of its one input, or None."""
    if len(step.inputs) != 1:
        return None
    (x,) = step.inputs
    x = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    return keras.Model(x, call(x))


class _Tracer:
    def __init__(self, open_attention):
        self.steps = []
        self._open_attention = open_attention
        self._same = {}  # id of a tensor: it, and the one that it is
        self._nested = set()

    def find(self, leaf):
        """A tensor as the steps know it; what is none as it is."""
        return self._same.get(id(leaf), (leaf, leaf))[1]

    def follow(self, model, prefix=""):
        """Adds the steps of a model whose inputs are known or its own."""
        for operation, _, outputs, arguments in compat.calls(
            places.graph(model)
        ):
            if isinstance(operation, keras.layers.InputLayer):
                continue
            args, kwargs = keras.tree.map_structure(self.find, arguments)
            # Keras, too, has each layer do as the outermost model does.
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
            step = Step(
                prefix + operation.name, operation, args, kwargs, outputs
            )
            inside = self._inside(step)
            if inside is None:
                self.steps.append(step)
                continue
            self._alias(inside.inputs, step.inputs)
            self.follow(inside, f"{step.name}/")
            self._alias(outputs, map(self.find, inside.outputs))

    def _alias(self, tensors, others):
        for tensor, other in zip(tensors, others, strict=True):
            self._same[id(tensor)] = tensor, other

    def _inside(self, step):
        """The graph that a step's operation consists of, or None."""
        operation = step.run
        if places.is_graph(operation):
            if id(operation) in self._nested:
                raise ValueError(
                    "A nested model must be called once, as each call has "
                    f"tensors of its own. Received: {step.name!r}, called "
                    "several times"
                )
            self._nested.add(id(operation))
            return operation
        if isinstance(operation, _MODULES):
            return graph_of(operation.call, step)
        if isinstance(operation, AttentionLayer):
            return self._open_attention(step)
        return None
