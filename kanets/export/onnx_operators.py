"""Operators that the converter to ONNX writes as no runtime wants them.

ONNX Runtime computes what follows a convolution in its blocked layout only
where it knows the operator: pieces cost a change of layout each. And it has no
`Erfc`, as ONNX has none. ONNX divides integers towards zero, where TensorFlow
rounds down, as sizes that are negative on the way need it.
"""

import collections

import numpy as np


def floor_divide(context, node, name, args):
    """`FloorDiv` for tf2onnx, which has a division towards zero for it."""
    x, y = node.input
    if not _is_integer(context, node):
        quotient = context.make_node("Div", [x, y]).output[0]
        return _replace(context, node, "Floor", [quotient])
    rest = context.make_node("Mod", [x, y]).output[0]
    _replace(
        context, node, "Div", [context.make_node("Sub", [x, rest]).output[0], y]
    )


def floor_modulo(context, node, name, args):
    """`FloorMod` for tf2onnx, of the divisor's sign."""
    x, y = node.input
    if _is_integer(context, node):
        return _replace(context, node, "Mod", [x, y])
    quotient = context.make_node("Div", [x, y]).output[0]
    floor = context.make_node("Floor", [quotient]).output[0]
    product = context.make_node("Mul", [floor, y]).output[0]
    _replace(context, node, "Sub", [x, product])


# Of `tf2onnx.convert.from_function`.
HANDLERS = {"FloorDiv": (floor_divide, []), "FloorMod": (floor_modulo, [])}


def _is_integer(context, node):
    from onnx import TensorProto

    floats = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
    return context.get_dtype(node.input[0]) not in floats


def _replace(context, node, kind, inputs):
    shapes, dtypes = node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    context.make_node(
        kind,
        inputs,
        name=node.name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
    )


def mend(model):
    """`fuse_hard_swish` and `replace_erfc`, in place."""
    fuse_hard_swish(model)
    replace_erfc(model)


def replace_erfc(model):
    """Makes 1 - `Erf` of `Erfc`, as of GELU's, in place.

    Args:
        model: an `onnx.ModelProto`.
    """
    from onnx import helper, numpy_helper

    graph, one = model.graph, "erfc/one"
    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        [output] = node.output
        erf = f"{output}/erf"
        nodes.append(helper.make_node("Erf", list(node.input), [erf]))
        nodes.append(helper.make_node("Sub", [one, erf], [output], node.name))
    if len(nodes) > len(graph.node):
        constant = numpy_helper.from_array(np.float32(1), one)
        graph.initializer.append(constant)
        nodes = [
            type(node).FromString(node.SerializeToString()) for node in nodes
        ]
        del graph.node[:]
        graph.node.extend(nodes)


def fuse_hard_swish(model):
    """Makes `HardSwish` of x · clip(x + 3, 0, 6) / 6, in place.

    Args:
        model: an `onnx.ModelProto` of opset 14 or later.

    Returns:
        int, how many there were.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses = collections.Counter(
        [name for node in graph.node for name in node.input]
        + [output.name for output in graph.output]
    )

    def made_of(name, kind, constant):
        """What a node of a kind makes this of, with a constant, for one."""
        node = makers.get(name)
        if node is None or node.op_type != kind or uses[name] != 1:
            return None
        for one, other in (node.input, reversed(node.input)):
            value = values.get(other)
            if value is not None and np.allclose(value, constant, 1e-6):
                return one
        return None

    def clipped(name):
        node = makers.get(name)
        if node is None or node.op_type != "Clip" or uses[name] != 1:
            return None
        limits = [values.get(limit) for limit in node.input[1:]]
        if len(limits) != 2 or any(limit is None for limit in limits):
            return None
        return node.input[0] if limits == [0, 6] else None

    found = 0
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        for x, share in (tuple(node.input), tuple(reversed(node.input))):
            limited = made_of(share, "Mul", 1 / 6)
            raised = limited and clipped(limited)
            if raised and made_of(raised, "Add", 3) == x:
                whole = helper.make_node(
                    "HardSwish", [x], list(node.output), node.name
                )
                node.CopyFrom(whole)
                found += 1
                break
    _remove_unused(graph)
    return found


def _remove_unused(graph):
    """Removes nodes whose outputs nothing takes, and their constants."""
    while True:
        used = {name for node in graph.node for name in node.input}
        used |= {output.name for output in graph.output}
        unused = [n for n in graph.node if used.isdisjoint(n.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for constant in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(constant)
