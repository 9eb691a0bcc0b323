"""A net as a list of calls: nested models and modules opened, nothing run."""

import dataclasses

import keras

from kanets import compat
from kanets.attention.base import AttentionLayer
from kanets.layers import AttnModule, BaseModule, BaseSkipModule
from kanets.nets import places
from kanets.quantization import kinds

_MODULES = (BaseModule, BaseSkipModule, AttnModule)


@dataclasses.dataclass(eq=False)
class Step:
    """One call.

    Attributes:
        name: of the layer or operation, behind those it is inside of.
        run: what is called, a layer, an operation or a function.
        args, kwargs: of the call, symbolic tensors and others.
        outputs: list of symbolic tensors.
        kind: one of `kanets.quantization.kinds`.
        quantizer: None, the number of a range, or a pair of floats.
    """

    name: str
    run: object
    args: tuple
    kwargs: dict
    outputs: list
    kind: str = kinds.OTHER
    quantizer: object = None

    @property
    def inputs(self):
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [x for x in leaves if isinstance(x, keras.KerasTensor)]


def trace(model):
    """The calls of a functional model, in order.

    Nested models, the modules of a KANet and attention that consists of what
    8-bit integers can do are opened: what is inside stands in their place.

    Args:
        model: as `kanets.nets.places.is_graph` tells; its layers are what the
            steps run.

    Returns:
        A list of `Step`, and the outputs of the model, symbolic.

    Raises:
        ValueError: a layer that is refused, see `kanets.quantization.kinds`; a
            nested model that is called more than once.
    """
    tracer = _Tracer()
    tracer.follow(model)
    return tracer.steps, keras.tree.map_structure(tracer.find, model.output)


class _Tracer:
    def __init__(self):
        self.steps = []
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
                step.kind = kinds.of_operation(operation, step.name)
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
                    f"ranges of its own. Received: {step.name!r}, called "
                    "several times"
                )
            self._nested.add(id(operation))
            return operation
        if isinstance(operation, _MODULES):
            return _graph(operation.call, step)
        if isinstance(operation, AttentionLayer):
            return _attention(operation, step)
        return None


def _attention(layer, step):
    """The graph of attention, if integers can do all of it."""

    def attend(query):
        return layer.attend(query, None, None, False)

    try:
        graph = _graph(attend, step)
    except Exception:  # an operator may want numbers, not symbols
        return None
    if graph is None:
        return None
    operations = [operation for operation, *_ in compat.calls(graph)]
    found = {id(v) for o in operations for v in getattr(o, "variables", ())}
    # A weight that it reads by itself would be a constant in the graph.
    if not found.issuperset(id(v) for v in layer.variables):
        return None
    return graph if all(map(kinds.is_of_integers, operations)) else None


def _graph(call, step):
    if len(step.inputs) != 1:
        return None
    (x,) = step.inputs
    x = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    return keras.Model(x, call(x))
