"""What a net computes when it is quantized: its steps, and where they round.

Each number that a layer of 8-bit integers gives to another is rounded once,
after a ReLU where one follows; batch normalisation is part of the convolution
before it, where nothing else sees that convolution's maps.
"""

import keras
from keras import ops

from kanets import compat
from kanets.nets import tracing
from kanets.nets.tracing import Step
from kanets.quantization import kinds
from kanets.quantization.folding import Folded, Normalized


class Program:
    """The steps of a functional model, in order, and its ranges.

    Args:
        model: as in `kanets.quantization.prepare`.

    Attributes:
        range_names: list of str, of what each range is of.
    """

    def __init__(self, model):
        self._model = model
        steps, self._outputs = tracing.trace(model, _open_attention)
        for step in steps:
            step.kind = kinds.of_operation(step.run, step.name)
        self._inputs = [
            Step(tensor.name, _as_it_is, (tensor,), {}, [tensor])
            for tensor in model.inputs
        ]
        steps = [part for step in steps for part in _parts(step)]
        self._steps = self._folded(steps)
        self.range_names = self._place()

    def run(self, inputs, quantize, training):
        """Computes the outputs of the model.

        Args:
            inputs: as of the model.
            quantize: function from a tensor and one of `Step.quantizer` to
                the tensor rounded.
            training: bool.

        Returns:
            The outputs, in the structure of the model's.
        """

        def call(step, args, kwargs):
            if isinstance(step.run, Folded | Normalized):
                kwargs = {"training": training}
            results = keras.tree.flatten(step.run(*args, **kwargs))
            return [
                x if quantizer is None else quantize(x, quantizer)
                for x, quantizer in zip(results, step.quantizer, strict=True)
            ]

        return tracing.run(
            [*self._inputs, *self._steps],
            self._model.inputs,
            keras.tree.flatten(inputs),
            self._outputs,
            call,
        )

    def _folded(self, steps):
        """The steps, with normalisations in what they are folded into."""
        readers = tracing.readers(steps, self._outputs)
        kept, taken = [], set()
        for step in steps:
            if id(step) in taken:
                continue
            if step.kind == kinds.LINEAR:
                after = tracing.only_reader(readers, step)
                norm = None
                if after is not None and after.kind == kinds.NORM:
                    norm = after.run
                    taken.add(id(after))
                    step.kwargs, step.outputs = after.kwargs, after.outputs
                step.run = Folded(step.run, norm)
            elif step.kind == kinds.NORM:
                step.run = Normalized(step.run)
            kept.append(step)
        return kept

    def _place(self):
        """Gives the steps one for each output; the names of the ranges."""
        readers = tracing.readers(self._steps, self._outputs)
        names, of_tensor = [], {}
        for step in [*self._inputs, *self._steps]:
            step.quantizer = [
                self._quantizer(step, number, readers, of_tensor, names)
                for number in range(len(step.outputs))
            ]
            sources = step.quantizer
            if step.kind == kinds.EXACT and step.inputs:
                source = of_tensor.get(id(step.inputs[0]))
                sources = [source] * len(step.outputs)
            of_tensor.update(zip(map(id, step.outputs), sources, strict=True))
        return names

    def _quantizer(self, step, number, readers, of_tensor, names):
        if step.kind == kinds.EXACT or not all(map(_is_float, step.outputs)):
            return None
        after = readers.get(id(step.outputs[number]), [])
        if step.kind == kinds.FIXED:
            # A loss learns nothing of a probability that is rounded to 0.
            if after == [None]:
                return None
            return kinds.FIXED_RANGES[kinds.activation(step.run)]
        if step in self._inputs or step.kind == kinds.PIXELS:
            if after and all(s and s.kind == kinds.PIXELS for s in after):
                return None
        only = tracing.only_reader(readers, step)
        if only is not None and only.kind == kinds.RELU:
            return None
        if step.kind == kinds.SAME:
            found = of_tensor.get(id(step.inputs[0]))
            if found is not None:
                return found
        several = len(step.outputs) > 1
        names.append(f"{step.name}_{number}" if several else step.name)
        return len(names) - 1


def _open_attention(step):
    """The graph of attention, if integers can do all of it."""
    layer = step.run
    if len(step.outputs) != 1:  # its weights, too
        return None
    if any(None in tensor.shape[1:] for tensor in step.inputs):
        return None  # sizes would be constants in the graph

    def attend(query):
        return layer.attend(query, None, None, False)

    try:
        graph = tracing.graph_of(attend, step)
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


def _parts(step):
    """A step, or those of a layer with an activation, and of a SiLU."""
    if step.kind == kinds.SILU:
        return _silu(step)
    function = getattr(step.run, "activation", None)
    if step.kind != kinds.LINEAR or function is None:
        return [step]
    name = kinds.activation(function)
    if name == "linear":
        return [step]
    active = tracing.take_activation(step, name or "activation")
    active.kind = kinds.of_activation(name)
    return [step, *_parts(active)]


def _silu(step):
    """x sigmoid(x), of which both factors are rounded."""
    (x,), (y,) = step.inputs, step.outputs
    gate = tracing.like(x)
    return [
        Step(
            f"{step.name}_sigmoid",
            keras.activations.sigmoid,
            (x,),
            {},
            [gate],
            kinds.FIXED,
        ),
        Step(step.name, ops.multiply, (x, gate), {}, [y]),
    ]


def _as_it_is(x):
    return x


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
