"""Nets as they are deployed: the same answers by fewer operations."""

import collections

import keras
import numpy as np
import pytest
from keras import layers

import kanets
from kanets.export import fold
from kanets.export.precision import in_precision
from kanets.layers import (
    AttnModule,
    AttnSkipModule,
    BaseSkipModule,
    BatchNormalization,
    ResizeLike,
)
from tests.backends import BACKEND
from tests.quantization import nets


def trained(model, seed=0):
    """The model with weights as training leaves them: none at its start."""
    random = np.random.default_rng(seed)
    for w in model.weights:
        if "variance" in w.path:
            w.assign(random.uniform(0.5, 1.5, w.shape))
        elif "gamma" in w.path:
            w.assign(random.uniform(0.8, 1.2, w.shape))
        elif len(w.shape) == 1:
            w.assign(random.normal(0, 0.1, w.shape))
        elif not np.any(keras.ops.convert_to_numpy(w)):  # a closed start
            w.assign(random.normal(0, 0.1, w.shape))
    return model


def pictures(model, size=None):
    size = size or model.input_shape[1:3]
    random = np.random.default_rng(1)
    return random.uniform(0, 255, (3, *size, 3)).astype("float32")


def assert_equal(model, size=None, **options):
    x = pictures(model, size)
    expected = keras.tree.flatten(model(x, training=False))
    found = keras.tree.flatten(fold(model, **options)(x))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        one, other = (keras.ops.convert_to_numpy(t) for t in (one, other))
        np.testing.assert_allclose(one, other, 0, 1e-5 * np.abs(other).max())


def blocks(attention, size=(12, 10), **arguments):
    """The modules of a KANet, and logits."""
    arguments["attention"] = attention
    x = inputs = keras.Input((*size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(x)
    x = keras.ops.relu6(BatchNormalization()(x))
    x = BaseSkipModule(8, expansion=3)(x)
    x = AttnSkipModule(8, expansion=3, **arguments)(x)
    x = AttnModule(12, expansion=3, strides=2, **arguments)(x)
    x = layers.Dense(6)(layers.GlobalAveragePooling2D()(x))
    return trained(keras.Model(inputs, x, name="blocks"))


def body():
    """Two inverted residuals, of which attention takes a place between."""
    x = inputs = keras.Input((12, 10, 3))
    for number in range(2):
        x = layers.Conv2D(8, 1, use_bias=False, name=f"expand_{number}")(x)
        x = BatchNormalization(name=f"norm_{number}")(x)
        x = layers.ReLU(6.0, name=f"relu_{number}")(x)
        x = layers.DepthwiseConv2D(3, 1 + number, "same")(x)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x), name="body")


@pytest.mark.parametrize(
    "attention",
    [
        "kao_qkv",
        "kao_kv",
        "kao_rectified",
        {"name": "kao_qkv", "projections": ""},
        {"name": "kao_kv", "projections": "", "num_heads": 2},
        {"name": "kao_qkv", "projections": "qkvo", "use_bias": True},
        {"name": "kao_kv", "projections": "qkvo", "num_heads": 2},
        {"name": "kao_rectified", "projections": "qkv"},
        {
            "name": "kao_rectified",
            "key_dim": 1,
            "num_heads": 2,
            "use_bias": True,
        },
        "dense_pool",
        None,
    ],
    ids=repr,
)
def test_modules_answer_the_same(attention):
    assert_equal(blocks(attention))


@pytest.mark.parametrize("literal", [True, False])
def test_modules_of_open_size_answer_the_same(literal):
    net = blocks("kao_qkv", (None, None), attention_norm=not literal)
    assert_equal(net, (20, 14))


@pytest.mark.thorough
def test_a_kanet_answers_the_same():
    net = kanets.KANet((24, 20, 3), 0.25, classes=6, classifier_activation=None)
    assert_equal(trained(net))


@pytest.mark.parametrize(
    "attention",
    [
        "kao_qkv",
        {"name": "kao_qkv", "projections": "vo"},
        {"name": "kao_kv", "projections": "qv"},
        {"name": "kao_kv", "projections": "v"},  # queries need the norm
        {"name": "linear", "num_heads": 2, "kernel_sizes": [3, 5]},
        "squeeze_excitation",
    ],
    ids=repr,
)
def test_inserted_attention_answers_the_same(attention):
    net = kanets.insert_attention(body(), "relu_[01]", attention)
    assert_equal(trained(net))


def test_other_nets_answer_the_same():
    assert_equal(trained(nets.blocks()))
    parts = [keras.Input((9, 7, 3)), layers.Conv2D(4, 3), layers.Flatten()]
    assert_equal(keras.Sequential(parts))


@pytest.mark.thorough
def test_a_segmenter_answers_the_same():
    lite = kanets.EfficientNetLite((40, 32, 3), "lite0", include_top=False)
    net = trained(kanets.KANetSegmenter((40, 32, 3), classes=3, backbone=lite))
    assert_equal(net)
    assert_equal(net, xla=False)


def test_maps_are_resized_the_same():
    x, other = keras.Input((5, 9, 4)), keras.Input((12, 7, 2))
    net = keras.Model([x, other], ResizeLike()([x, other]))
    inputs = [keras.random.normal((2, *t.shape[1:])) for t in net.inputs]
    expected = keras.ops.convert_to_numpy(net(inputs))
    found = keras.ops.convert_to_numpy(fold(net, xla=False)(inputs))
    np.testing.assert_allclose(found, expected, 0, 1e-5)


def test_a_hard_swish_in_integers_is_the_same():
    x = inputs = keras.Input((6, 5, 3))
    x = layers.Conv2D(8, 3, activation="hard_swish")(x)
    x = keras.ops.hard_silu(layers.DepthwiseConv2D(3)(x))
    x = layers.Activation("hard_swish")(layers.Dense(4)(x))
    net = trained(keras.Model(inputs, x))
    assert_equal(net, integers=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121", "NASNetMobile"])
def test_nets_of_keras_answer_the_same(name):
    make = getattr(keras.applications, name)
    net = make(
        weights=None,
        input_shape=(64, 48, 3),
        classes=7,
        classifier_activation=None,
    )
    assert_equal(trained(net))


def _subclass():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3)

        def call(self, x):
            return self.head(keras.ops.mean(x, axis=(1, 2)))

    model = Own()
    model(np.zeros((1, 12, 10, 3)))
    return model


def _functional_with_a_call():
    class Own(keras.Model):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training=training)

    inputs = keras.Input((12, 10, 3))
    return Own(inputs, layers.Conv2D(3, 1)(inputs))


def _called_twice():
    inputs = keras.Input((12, 10, 3))
    inner = keras.Sequential([keras.Input((12, 10, 3)), layers.Conv2D(3, 1)])
    return keras.Model(inputs, inner(inner(inputs)))


def _quantized():
    net = keras.Sequential([keras.Input((12, 10, 3)), layers.Dense(4)])
    net.layers[-1].quantize("int8")
    return net


@pytest.mark.parametrize(
    "make",
    [
        _subclass,
        _functional_with_a_call,
        _called_twice,
        _quantized,
        lambda: in_precision(nets.blocks(), "float16"),
    ],
    ids=[
        "subclass",
        "own call",
        "called twice",
        "8 bits of Keras",
        "half precision",
    ],
)
def test_what_cannot_be_taken_apart_is_called(make):
    model = make()
    x = pictures(model, (12, 10))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    found = keras.ops.convert_to_numpy(fold(model)(x))
    np.testing.assert_array_equal(found, expected)


def test_the_weights_are_those_of_then():
    net = blocks("kao_qkv")
    x, answer = pictures(net), fold(net)
    before = keras.ops.convert_to_numpy(answer(x))
    for w in net.weights:
        w.assign(w + 0.1)
    after = keras.ops.convert_to_numpy(answer(x))
    np.testing.assert_array_equal(before, after)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's graphs")
def test_operations_that_are_gone():
    import tensorflow as tf

    def operations(answer, net):
        signature = [tf.TensorSpec((1, *net.input_shape[1:]))]
        function = tf.function(answer, signature, autograph=False)
        graph = function.get_concrete_function().graph
        return collections.Counter(op.type for op in graph.get_operations())

    net = blocks("kao_qkv")
    before = operations(lambda x: net(x, training=False), net)
    after = operations(fold(net), net)
    names = "FusedBatchNormV3", "Mean", "ConcatV2", "Cast", "AvgPool"
    assert [before[name] for name in names] == [12, 5, 5, 1, 1]
    # What is left: tokens of rows and columns; the pool of a stride.
    assert [after[name] for name in names] == [0, 1, 2, 1, 5]
    computed = [
        sum(n for kind, n in found.items() if kind != "Const")
        for found in (before, after)
    ]
    assert computed[1] < 0.6 * computed[0]
    for attention in ("kao_qkv", {"name": "kao_kv", "projections": "qkvo"}):
        net = kanets.insert_attention(body(), "relu_[01]", attention)
        assert operations(fold(trained(net)), net)["FusedBatchNormV3"] == 0


def test_two_sums_that_meet_in_one_addition():
    inputs = keras.Input((6, 5, 3))
    halves = [
        layers.Conv2D(4, 1, name=f"half_{number}")(inputs)
        for number in range(4)
    ]
    sides = [
        layers.Conv2D(3, 1, name=f"side_{number}")(
            layers.Concatenate()(halves[2 * number : 2 * number + 2])
        )
        for number in range(2)
    ]
    assert_equal(trained(keras.Model(inputs, layers.Add()(sides))))


def test_nothing_is_augmented():
    inputs = keras.Input((12, 10, 3))
    x = layers.RandomFlip()(inputs)
    x = layers.RandomRotation(0.5)(layers.Dropout(0.5)(x))
    net = keras.Model(inputs, layers.Conv2D(4, 3)(x))
    assert_equal(trained(net))


@pytest.mark.parametrize("shape", [(6, 8), (4, 5, 8), (3, 4, 5, 8)])
@pytest.mark.parametrize("mode", ["qkv", "kv"])
def test_normalised_attention_of_any_grid(shape, mode):
    inputs = keras.Input(shape)
    x = kanets.attention.KroneckerAttention(
        mode, projections="qkvo", use_bias=True
    )(inputs)
    net = trained(keras.Model(inputs, layers.BatchNormalization()(x)))
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    expected = keras.ops.convert_to_numpy(net(x, training=False))
    found = keras.ops.convert_to_numpy(fold(net)(x))
    np.testing.assert_allclose(
        found, expected, 0, 1e-5 * np.abs(expected).max()
    )


def test_a_model_with_a_call_of_its_own_inside():
    inputs = keras.Input((12, 10, 3))
    x = _functional_with_a_call()(inputs)
    assert_equal(trained(keras.Model(inputs, layers.ReLU()(x))))
