"""Private hooks of Keras and TensorFlow do what this package relies on."""

import ast
from pathlib import Path

import keras
import numpy as np

from kanets import compat
from tests.backends import needs_tensorflow

PRIVATE = {
    "_flatten_layers",
    "_get_function",
    "_keras_history",
    "_maybe_symbolic_build",
    "_nodes_by_depth",
    "_variant_tensor",
}


def test_all_layers_are_found_inside_of_others():
    inner = keras.Sequential(
        [keras.layers.Dense(3, name="within")], name="inner"
    )
    outer = keras.layers.TimeDistributed(inner, name="outer")
    x = keras.Input((2, 4), name="x")
    model = keras.Model(x, outer(x), name="model")
    names = [layer.name for layer in compat.all_layers(model)]
    assert {"model", "x", "outer", "inner", "within"} <= set(names)
    assert len(names) == len(set(names))


def test_the_producer_of_a_tensor_is_its_layer():
    x = keras.Input((4,))
    first = keras.layers.Dense(3)
    last = keras.layers.Activation("softmax")
    y = first(x)
    assert compat.producer(y) is first
    assert compat.producer(last(y)) is last
    assert isinstance(compat.producer(x), keras.layers.InputLayer)


def test_calls_are_those_of_a_model_and_in_order():
    twice = keras.layers.Dense(4, name="twice")
    x = keras.Input((4,), name="x")
    y = keras.ops.tanh(twice(x))
    model = keras.Model(x, keras.layers.Add(name="sum")([twice(y), x]))
    twice(keras.Input((4,)))  # of no model
    calls = compat.calls(model)
    names = [operation.name for operation, *_ in calls]
    assert names == ["x", "twice", "tanh", "twice", "sum"]
    made = {id(x)}
    for _, inputs, outputs, arguments in calls[1:]:
        assert {id(t) for t in inputs} <= made
        given = keras.tree.flatten(arguments)
        assert [id(t) for t in given] == [id(t) for t in inputs]
        made |= {id(t) for t in outputs}
    assert id(model.output) in made


@needs_tensorflow
def test_the_graph_of_a_function_that_is_called():
    import tensorflow as tf

    @tf.function
    def inner(x):
        return tf.matmul(x, x)

    outer = tf.function(lambda x: inner(x) + 1.0)
    graph = outer.get_concrete_function(tf.TensorSpec((2, 2))).graph
    [call] = [o for o in graph.get_operations() if "Call" in o.type]
    found = compat.function_graph(graph, call.get_attr("f").name)
    [product] = [o for o in found.get_operations() if o.type == "MatMul"]
    assert product.outputs[0].shape == (2, 2)


@needs_tensorflow
def test_a_view_of_a_dataset_is_a_dataset():
    import tensorflow as tf

    class Named(compat.dataset_view()):
        name = "numbers"

    numbers = tf.data.Dataset.range(5)
    view = Named(numbers)
    assert isinstance(view, tf.data.Dataset) and view.name == "numbers"
    assert view.element_spec == numbers.element_spec
    assert view.cardinality() == 5
    assert [int(x) for x in view.map(lambda x: 2 * x)] == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(next(iter(view.batch(5))), np.arange(5))


def test_the_hooks_are_used_nowhere_else():
    root = Path(compat.__file__).parents[1]
    found = {
        (path.relative_to(root).as_posix(), node.attr)
        for package in ("kanets", "ylg")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE
    }
    assert {path for path, _ in found} == {"kanets/compat.py"}
    assert {attribute for _, attribute in found} == PRIVATE
