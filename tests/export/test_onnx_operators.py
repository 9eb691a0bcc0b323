"""Operators in pieces, and one that ONNX has not, in its files."""

import keras
import numpy as np
import pytest

import kanets
from kanets.export import runtimes
from kanets.export.onnx_operators import HANDLERS, fuse_hard_swish
from tests.backends import needs_tensorflow

onnx = pytest.importorskip("onnx", reason="onnx is an extra")


def model(seen=(), limit=6.0, constant=3.0, turned=False):
    """x · clip(x + 3, 0, limit) / 6, with more outputs if something is seen."""
    helper = onnx.helper
    sides = ("share", "x") if turned else ("x", "share")
    nodes = [
        helper.make_node("Add", ["x", "three"], ["raised"]),
        helper.make_node("Clip", ["raised", "zero", "six"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "sixth"], ["share"]),
        helper.make_node("Mul", list(sides), ["y"], "product"),
    ]
    constants = {"three": constant, "zero": 0, "six": limit, "sixth": 1 / 6}
    info = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, 4])
        for name in ("x", "y", *seen)
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        info[:1],
        info[1:],
        [
            onnx.numpy_helper.from_array(np.float32(value), name)
            for name, value in constants.items()
        ],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def ran(model):
    runtime = pytest.importorskip("onnxruntime")
    x = np.linspace(-5, 5, 12, dtype="float32").reshape(3, 4)
    session = runtime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("turned", [False, True])
def test_hard_swish(turned):
    whole = model(turned=turned)
    expected = ran(whole)
    assert fuse_hard_swish(whole) == 1
    [node] = whole.graph.node
    assert (node.op_type, node.name) == ("HardSwish", "product")
    assert not whole.graph.initializer
    onnx.checker.check_model(whole)
    np.testing.assert_allclose(ran(whole), expected, atol=1e-6)
    assert np.ptp(expected) > 4


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 5.0},
        {"constant": 2.0},
        {"seen": ["share"]},
        {"seen": ["raised"]},
    ],
)
def test_what_is_something_else_stays(changes):
    """Another function, or a part that something else takes, too."""
    other = model(**changes)
    before = other.SerializeToString()
    assert fuse_hard_swish(other) == 0
    assert other.SerializeToString() == before


@needs_tensorflow
def test_the_exact_gelu(tmp_path):
    """TensorFlow computes it with erfc."""
    x = inputs = keras.Input((4, 6, 3))
    x = keras.layers.Rescaling(1 / 32, -4)(x)
    x = keras.layers.Activation("gelu")(x)
    x = keras.layers.Activation("gelu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, "softmax")(x)
    model = keras.Model(inputs, x)
    kernel = np.array([[1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    model.layers[-1].set_weights([kernel, np.zeros(2)])
    kanets.export_onnx(model, tmp_path / "net", ["a", "b"])
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 4, 6, 3))
    pictures = pictures.astype("float32")
    found = runtimes.load(tmp_path / "net")(images=pictures)["probabilities"]
    expected = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(expected) > 0.1


@needs_tensorflow
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_divisions_round_down(dtype):
    """As TensorFlow's do, of numbers and divisors of both signs."""
    import tensorflow as tf

    convert = pytest.importorskip("tf2onnx.convert", reason="onnx is an extra")
    runtime = pytest.importorskip("onnxruntime")
    spec = [tf.TensorSpec((None,), dtype, name) for name in ("x", "y")]
    function = tf.function(lambda x, y: (x // y, x % y), spec)
    made, _ = convert.from_function(
        function, spec, opset=17, custom_op_handlers=HANDLERS
    )
    x, y = np.meshgrid(np.arange(-7, 8), [-3, -2, 2, 5])
    x, y = x.ravel().astype(dtype), y.ravel().astype(dtype)
    session = runtime.InferenceSession(made.SerializeToString())
    quotient, rest = session.run(None, {"x": x, "y": y})
    np.testing.assert_array_equal(quotient, x // y)
    np.testing.assert_array_equal(rest, x % y)
