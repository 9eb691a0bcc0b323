"""Multiply-adds of a model, counted in the graph that TensorFlow traces.

The graph holds every product, whatever layer makes it, so that models of
custom layers need no rules of their own. What is no product of sums (norms,
activations, pooling, resizing) is not counted, as in the tables of papers.
"""

import math

import keras

from kanets import compat


def multiply_adds(model, input_shape=None):
    """Multiply-adds of a forward pass for one picture.

    Counted are convolutions (also depthwise and transposed ones), matrix
    products and einsums, from their static shapes. A dilated convolution of a
    size that the dilation does not divide counts with its padding.

    Args:
        model: a `keras.Model`; of several inputs, too.
        input_shape: (H, W, C) for a model of open size, or for another size
            than the model's; of one input only.

    Returns:
        An integer.

    Raises:
        ValueError: another backend than TensorFlow; an open size without
            `input_shape`; `input_shape` for a model of several inputs;
            products in a loop or a branch, whose number is not known.

    Example:

    >>> kanets.nets.multiply_adds(kanets.KANet()) // 10**6
    281
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "multiply_adds needs the TensorFlow backend. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    import tensorflow as tf

    if input_shape is not None and len(model.inputs) > 1:
        raise ValueError(
            "input_shape is for a model of one input. Received: "
            f"input_shape={input_shape}, model={model.name!r} with "
            f"{len(model.inputs)} inputs"
        )

    def specification(tensor):
        shape = tensor.shape[1:] if input_shape is None else input_shape
        if None in shape:
            raise ValueError(
                "A model of open size needs input_shape=(H, W, C). Received: "
                f"input_shape={input_shape}, model={model.name!r} of "
                f"{tuple(tensor.shape)}"
            )
        return tf.TensorSpec((1, *shape), tensor.dtype)

    inputs = keras.tree.map_structure(specification, model.input)
    traced = tf.function(
        lambda x: model(x, training=False), autograph=False
    ).get_concrete_function(inputs)
    return _count(traced.graph)


def _count(graph):
    """Of a graph, with the functions that it calls."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in _PRODUCTS:
            total += _PRODUCTS[operation.type](operation)
            continue
        called = sum(
            _count(compat.function_graph(graph, name))
            for name in _functions(operation)
        )
        if called and not operation.type.endswith("PartitionedCall"):
            raise ValueError(
                "Products in a loop or a branch cannot be counted. "
                f"Received: {operation.name!r} of type {operation.type}"
            )
        total += called
    return total


def _functions(operation):
    """Names of the functions among an operation's attributes."""
    for attribute in operation.node_def.attr.values():
        for function in (attribute.func, *attribute.list.func):
            if function.name:
                yield function.name


def _size(shape):
    if None in shape:
        raise ValueError(
            "Products of an unknown size cannot be counted. "
            f"Received: a tensor of shape {tuple(shape)}"
        )
    return math.prod(shape)


def _convolution(operation):
    kernel = operation.inputs[1].shape
    return _size(operation.outputs[0].shape) * _size(kernel[:-1])


def _depthwise(operation):
    kernel = operation.inputs[1].shape
    return _size(operation.outputs[0].shape) * _size(kernel[:2])


def _transposed(operation):
    kernel, pictures = operation.inputs[1].shape, operation.inputs[2].shape
    return _size(pictures) * _size(kernel[:3])


def _matrix_product(operation):
    transposed = "transpose_a" if operation.type == "MatMul" else "adj_x"
    axis = -2 if operation.get_attr(transposed) else -1
    inner = operation.inputs[0].shape[axis]
    return _size((*operation.outputs[0].shape, inner))


def _einsum(operation):
    if len(operation.inputs) == 1:
        return 0  # a transposition or a sum
    operands, result = operation.get_attr("equation").decode().split("->")
    summed = {}
    for letters, tensor in zip(
        operands.split(","), operation.inputs, strict=True
    ):
        # Axes from both ends: an ellipsis stands in the result, too.
        first, _, last = letters.partition("...")
        shape = tensor.shape.as_list()
        summed.update(zip(first, shape, strict=False))
        summed.update(zip(last[::-1], shape[::-1], strict=False))
    inner = [size for letter, size in summed.items() if letter not in result]
    return _size((*operation.outputs[0].shape, *inner))


_PRODUCTS = {
    "BatchMatMulV2": _matrix_product,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed,
    "DepthwiseConv2dNative": _depthwise,
    "Einsum": _einsum,
    "MatMul": _matrix_product,
}
