"""A net as it is deployed: the same answers by fewer and cheaper operations.

| in the net | deployed |
|---|---|
| a convolution or dense map, then batch normalisation | one with a bias |
| Kronecker attention, then batch normalisation | within its last map |
| batch normalisation, then Kronecker attention | on its H + W means |
| maps side by side, then a 1x1 convolution | a sum of convolutions |
| means of rows and columns | average pooling |
| a map that widens tokens, then their sum | the sum, then a 1x1 convolution |
| products of groups of channels | convolutions of groups |
| products with matrices that resize | the operation of runtimes |

Weights become constants. Runtimes join a convolution and its normalisation by
themselves, as far as they see them; they keep none of the others, each of which
is a pass over maps, some in another layout. Placing maps side by side also
forces one scale of 8-bit integers on all of them.
"""

import inspect

import keras
from keras import ops

from kanets import compat
from kanets.attention import KroneckerAttention, LinearAttention
from kanets.attention.core import hiding_in_integers
from kanets.export.constants import (
    Affine,
    Kronecker,
    Linear,
    MultiScale,
    constant,
    hard_swish,
    resize,
)
from kanets.layers.resize_like import ResizeLike
from kanets.nets import places, tracing
from kanets.quantization import folding, is_prepared, kinds

_MOST_BYTES = 2**30
_HARD_SWISH = ("hard_silu", "hardsilu")  # the function, the operation
_OF_EACH_NUMBER = ("relu", "relu6", "sigmoid", "silu", "tanh", *_HARD_SWISH)


def fold(model, xla=True, integers=False):
    """What a net computes at inference, as it is deployed.

    Every export of a classifier or a segmenter is of this.

    Args:
        model: built Keras model.
        xla: whether XLA may compile it, which errs in TensorFlow's own resizing
            (`kanets.layers.ResizeLike` tells). Without, that takes the place
            of products of matrices, which are slow in 8 bits.
        integers: whether runtimes compute it in 8-bit integers. They have no
            quick hard swish, which becomes what it consists of, and no place
            for the scores by which attention hides: -32 does that there.

    Returns:
        A function of the model's inputs to its outputs, equal but for
        rounding, with the weights of now as constants. It is the model's own
        call in inference mode where that cannot be taken apart: a model that
        is not functional or has a `call` of its own, calls a nested model
        several times, computes in half precision, was prepared for 8 bits,
        has the channels first, or has more than 1 GiB of weights, as a graph
        holds at most 2.

    Cost: a copy of the weights.

    Example:

    >>> model = kanets.KANet((32, 32, 3), 0.25, classes=10)
    >>> answer = kanets.export.fold(model)
    >>> answer(keras.ops.ones((1, 32, 32, 3))).shape
    TensorShape([1, 10])
    """

    answer = _folded(model, xla, integers)
    if not integers:
        return answer

    def in_integers(inputs):
        with hiding_in_integers():
            return answer(inputs)

    return in_integers


def _folded(model, xla, integers):
    def as_it_is(inputs):
        return model(inputs, training=False)

    net = _graph(model)
    if net is None:
        return as_it_is
    try:
        steps, outputs = tracing.trace(net)
    except ValueError:  # a nested model that is called several times
        return as_it_is
    for change in (_constants, _norms, _sums):
        steps = change(steps, outputs)
    for step in steps:
        if not xla and type(step.run) is ResizeLike:
            step.run = resize
        elif integers and kinds.activation(step.run) in _HARD_SWISH:
            step.run = hard_swish

    def answer(inputs):
        return tracing.run(
            steps,
            net.inputs,
            keras.tree.flatten(inputs),
            outputs,
            _at_inference,
        )

    return answer


def _at_inference(step, args, kwargs):
    """Calls a step, which by itself might train, as augmentation does."""
    run = step.run
    if isinstance(run, keras.layers.Layer) and (
        "training" in inspect.signature(run.call).parameters
    ):
        kwargs = {**kwargs, "training": False}
    return run(*args, **kwargs)


def _graph(model):
    """What a model consists of, if all of that is known and in float32."""
    if is_prepared(model) or not places.is_graph(model):
        return None
    net = places.graph(model)
    if 4 * model.count_params() > _MOST_BYTES:
        return None
    is_known = all(
        layer.compute_dtype == layer.variable_dtype == "float32"
        and not getattr(layer, "quantization_mode", None)
        and getattr(layer, "data_format", None) != "channels_first"
        for layer in compat.all_layers(model)
        if layer.weights
    )
    return net if is_known else None


def _constants(steps, outputs):
    """Layers with weights as what holds their weights now."""
    found = []
    for step in steps:
        layer = step.run
        is_plain = len(step.inputs) == len(step.outputs) == 1
        if not is_plain:  # as of masks
            found.append(step)
            continue
        if type(layer) in folding.KINDS:
            found.append(step)
            if layer.activation is not keras.activations.linear:
                found.append(tracing.take_activation(step, "activation"))
            step.run = Linear(layer)
            continue
        if type(layer) is KroneckerAttention:
            axes = len(step.inputs[0].shape) - 2
            step.run, step.kwargs = Kronecker(layer, axes), {}
        elif type(layer) is LinearAttention:
            step.run, step.kwargs = MultiScale(layer), {}
        elif type(layer) in folding.NORMS and folding.is_of_last_axis(layer):
            scale, offset = map(constant, folding.scale_and_offset(layer))
            step.run, step.kwargs = Affine(scale, offset), {}
        found.append(step)
    return found


def _norms(steps, outputs):
    """Normalisations inside of what comes before them, or after."""
    readers = tracing.readers(steps, outputs)
    makers = {id(t): step for step in steps for t in step.outputs}
    kept = []
    for step in steps:
        if not isinstance(step.run, Affine):
            kept.append(step)
            continue
        (x,) = step.inputs
        before, after = makers.get(id(x)), tracing.only_reader(readers, step)
        if (
            before is not None
            and isinstance(before.run, Linear | Kronecker)
            and tracing.only_reader(readers, before) is step
        ):
            before.run.normalize(step.run.scale, step.run.offset)
            before.outputs = step.outputs
            makers[id(step.outputs[0])] = before
        elif (
            after is not None
            and isinstance(after.run, Kronecker)
            and after.run.takes_normalized
        ):
            after.run.take_normalized(step.run.scale, step.run.offset)
            after.args = (x,)
        else:
            kept.append(step)
    return kept


def _sums(steps, outputs):
    """Maps side by side that become one by 1x1 convolutions, as a sum."""
    readers = tracing.readers(steps, outputs)
    replaced, gone = {}, set()
    for step in steps:
        parts = _side_by_side(step)
        chain = parts and _to_pointwise(step, readers)
        if chain:
            residual = _added(chain[-1], readers)
            if id(residual) in gone:  # it ends another chain
                residual = None
            after = [residual] if residual else []
            gone.update(map(id, (step, *chain, *after)))
            last = (*chain, *after)[-1]
            replaced[id(last)] = _sum(parts, chain, residual)
    kept = []
    for step in steps:
        kept += replaced.get(id(step), [] if id(step) in gone else [step])
    return kept


def _side_by_side(step):
    """The maps whose channels a step puts one behind the other, or None."""
    if type(step.run).__name__ != "Concatenate":  # an operation or a layer
        return None
    parts = step.inputs
    ranks = {len(tensor.shape) for tensor in parts}
    channels = [tensor.shape[-1] for tensor in parts]
    if ranks != {4} or step.run.axis not in (-1, 3) or None in channels:
        return None
    return parts


def _to_pointwise(step, readers):
    """The steps to a 1x1 convolution that only moves channels; or None."""
    chain = []
    while (step := tracing.only_reader(readers, step)) is not None:
        chain.append(step)
        run = step.run
        if isinstance(run, Linear):
            if run.is_pointwise:
                return chain
            if not folding.is_depthwise(run.layer):
                return None
            if run.layer.depth_multiplier != 1:
                return None
        elif kinds.activation(run) not in _OF_EACH_NUMBER:
            return None
    return None


def _added(step, readers):
    """The step that adds maps of one shape to what a step gives, or None."""
    after = tracing.only_reader(readers, step)
    if after is None or type(after.run).__name__ != "Add":
        return None
    shapes = {tuple(tensor.shape) for tensor in after.inputs}
    return after if len(after.inputs) == 2 and len(shapes) == 1 else None


def _sum(parts, chain, residual):
    """Steps that take each of the maps through a chain, and add them up.

    What is added to the chain's end is added to its first part: runtimes do
    that within a convolution, if they see that the shapes agree.
    """
    steps, start = [], 0
    last = chain[-1].outputs[0]
    ends = (
        []
        if residual is None
        else [t for t in residual.inputs if t is not last]
    )
    for part in parts:
        stop = start + part.shape[-1]
        for link in chain:
            run, result = link.run, link.outputs[0]
            channels = stop - start
            if link is chain[-1]:
                channels = result.shape[-1]
            if isinstance(run, Linear):
                run = run.part(start, stop, with_bias=start == 0)
            result = keras.KerasTensor((*result.shape[:-1], channels))
            steps.append(tracing.Step(link.name, run, (part,), {}, [result]))
            part = result
        ends.append(part)
        if len(ends) == 2:
            both = keras.KerasTensor(last.shape)
            name = f"{chain[-1].name}_sum"
            steps.append(tracing.Step(name, ops.add, tuple(ends), {}, [both]))
            ends = [both]
        start = stop
    steps[-1].outputs = (residual or chain[-1]).outputs
    return steps
