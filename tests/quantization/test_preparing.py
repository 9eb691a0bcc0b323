"""Prepared nets: what they compute, learn, save and refuse."""

import keras
import numpy as np
import pytest
from keras import layers

from kanets import attention, quantization
from kanets.nets.insertion import copied
from kanets.quantization import net as net_module
from kanets.quantization.folding import Folded, Normalized
from kanets.quantization.preparing import net_of
from tests.backends import (
    BACKEND,
    needs_8_bits,
    needs_tensorflow,
    to_numpy,
)
from tests.layer_checks import call_in_a_fresh_process, fill_weights
from tests.quantization import nets

pytestmark = needs_8_bits

NETS = {"blocks": nets.blocks, "nested": nets.nested, "module": nets.module}


def pictures(n, shape=nets.SIZE, seed=0):
    draw = np.random.default_rng(seed).uniform(0, 255, (n, *shape))
    return draw.astype("float32")


def filled(name):
    model = NETS[name]()
    fill_weights(model.weights)
    return model


def outputs(model, x, **arguments):
    return [to_numpy(y) for y in keras.tree.flatten(model(x, **arguments))]


def unrounded(model, monkeypatch):
    """A prepared model that rounds nothing."""
    monkeypatch.setattr(net_module, "fake_quantize", lambda x, *_: x)
    prepared = quantization.prepare(model)
    for step in prepared.layers[-1]._program._steps:
        if isinstance(step.run, Folded):
            step.run.quantize = False
    return prepared


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [False, True])
def test_without_rounding_it_is_the_net(name, training, monkeypatch):
    model = filled(name)
    prepared = unrounded(model, monkeypatch)
    for layer in [*model.layers, *net_of(prepared).layers]:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    x = pictures(3, model.input_shape[1:])
    found = outputs(prepared, x, training=training)
    for y, expected in zip(
        found, outputs(model, x, training=training), strict=True
    ):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(y, expected, atol=1e-5 * scale)
    # Batch norm has seen the same.
    for old, new in zip(model.weights, net_of(prepared).weights, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5, err_msg=old.path)


def test_what_is_folded_and_where_it_rounds():
    program = quantization.prepare(nets.blocks()).layers[-1]._program
    folded = {
        step.run.layer.name: step.run.norm and step.run.norm.name
        for step in program._steps
        if isinstance(step.run, Folded)
    }
    assert folded == {
        "stem": "stem_norm",
        "mix": "mix_norm",
        "project": "project_norm",
        "gate": None,
        "dense": "dense_norm",
        "predictions": None,
    }
    alone = [s.name for s in program._steps if isinstance(s.run, Normalized)]
    assert alone == ["alone_norm"]
    assert set(program.range_names) == {
        *("scale", "stem_relu", "mix", "mix_silu", "project", "add_relu"),
        *("mean", "gate", "gated", "alone_norm", "relu", "predictions"),
    }
    steps = [s for s in program._steps if s.kind == "fixed"]
    fixed = [quantizer for step in steps for quantizer in step.quantizer]
    assert fixed == [(0.0, 255 / 256), (0.0, 255 / 256), None]


def test_ranges_are_means_over_batches():
    model = nets.blocks()
    prepared = quantization.prepare(model, momentum=0.5)
    layer = prepared.layers[-1]
    row = layer.range_names.index("scale")
    expected = None
    for batch in range(4):
        x = pictures(5, seed=batch) * (batch + 1) / 4
        prepared(x, training=True)
        scaled = x / 127.5 - 1
        seen = np.array([scaled.min(), max(scaled.max(), 0)])
        share = max(1 / (batch + 1), 0.5)
        if expected is None:
            expected = seen
        expected = expected + share * (seen - expected)
        found = to_numpy(layer.ranges)[row]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(to_numpy(layer.batches)) == 4
    before = to_numpy(layer.ranges)
    prepared(pictures(5, seed=9), training=False)
    layer.trainable = False
    prepared(pictures(5, seed=9), training=True)
    np.testing.assert_array_equal(to_numpy(layer.ranges), before)


def test_rounding_is_that_of_the_ranges():
    """The steps of a tiny net, one after the other, in NumPy."""
    inputs = keras.Input((4,))
    x = layers.Dense(3, activation="relu", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    fill_weights(model.weights)
    prepared = quantization.prepare(model)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    prepared(x, training=True)
    ranges = to_numpy(prepared.layers[-1].ranges)
    expected = _rounded(x, *ranges[0])
    for row, layer in enumerate(model.layers[1:], 1):
        kernel, bias = (np.array(w) for w in layer.get_weights())
        step = np.abs(kernel).max(0) / 127
        y = expected @ (np.round(kernel / step) * step) + bias
        y = np.maximum(y, 0) if row == 1 else y
        expected = _rounded(y, *ranges[row])
    np.testing.assert_allclose(prepared(x), expected, atol=1e-5)


def _rounded(x, low, high):
    step = (high - low) / 255
    zero = np.floor(0.5 - low / step)
    levels = np.clip(np.floor(x / step + zero + 0.5), 0, 255)
    return (levels - zero) * step


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "blocks", marks=pytest.mark.slow if BACKEND == "jax" else ()
        ),
        pytest.param(
            "module", marks=() if BACKEND == "jax" else pytest.mark.slow
        ),
    ],
)
def test_it_is_trained_saved_and_stripped(name, tmp_path):
    model = filled(name)
    model.class_names = ("a", "b", "c", "d")
    untouched = [np.array(w) for w in model.get_weights()]
    prepared = quantization.prepare(model)
    assert prepared.class_names == model.class_names
    assert quantization.is_prepared(prepared)
    assert not quantization.is_prepared(model)
    shape = model.input_shape[1:]
    x, y = pictures(8, shape), np.eye(4, dtype="float32")[np.arange(8) % 4]
    prepared.compile("adam", "categorical_crossentropy")
    losses = prepared.fit(x, y, epochs=20, batch_size=8, verbose=0).history
    # Dropout draws anew in each epoch.
    assert np.mean(losses["loss"][-5:]) < np.mean(losses["loss"][:5])
    for old, new in zip(untouched, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)

    path = tmp_path / "prepared.keras"
    prepared.save(path)
    expected = to_numpy(prepared(x))
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(to_numpy(loaded(x)), expected)
    if name == "module" and BACKEND == "tensorflow":
        found = call_in_a_fresh_process(path, x)
        np.testing.assert_allclose(found, expected, atol=1e-6)

    stripped = quantization.strip(loaded)
    assert stripped.name == model.name
    assert [type(a) for a in stripped.layers] == [type(a) for a in model.layers]
    assert quantization.strip(prepared).class_names == model.class_names
    for old, new in zip(
        net_of(prepared).weights, stripped.weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(new), to_numpy(old))
    # What is rounded is near to what is not.
    assert np.abs(to_numpy(stripped(x)) - expected).max() < 0.1


def test_every_weight_learns():
    model = filled("blocks")
    prepared = quantization.prepare(model)
    before = [np.array(v) for v in prepared.trainable_variables]
    prepared.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    prepared.train_on_batch(pictures(8), np.eye(4)[np.arange(8) % 4])
    for old, variable in zip(before, prepared.trainable_variables, strict=True):
        # A normalisation after it takes a bias away again.
        if variable.path not in ("mix/bias", "project/bias", "dense/bias"):
            assert not np.array_equal(to_numpy(variable), old), variable.path


def test_frozen_batch_norm_stays():
    model = filled("blocks")
    model.get_layer("stem_norm").trainable = False
    prepared = quantization.prepare(model)
    norm = net_of(prepared).get_layer("stem_norm")
    before = [np.array(w) for w in norm.get_weights()]
    prepared(pictures(4), training=True)
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_mixed_precision_keeps_the_dtypes():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = filled("blocks")
        prepared = quantization.prepare(model)
    finally:
        keras.config.set_dtype_policy(policy)
    x = pictures(2)
    for training in (True, False):
        y = prepared(x, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {w.dtype for w in prepared.layers[-1].weights} == {"float32"}


def attention_kinds():
    program = quantization.prepare(nets.module()).layers[-1]._program
    return {s.name.rpartition("/")[0] for s in program._steps}


def test_attention_is_opened():
    assert "module/attention" in attention_kinds()


def test_attention_that_is_not_of_integers_stays_whole():
    inputs = keras.Input((8, 8, 16))
    x = attention.make("neighborhood", name="looks")(inputs)
    model = keras.Model(inputs, x)
    (step,) = quantization.prepare(model).layers[-1]._program._steps
    assert step.name == "looks" and step.quantizer == [1]


class Beside(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x):
        return x * self.factor


def called_twice():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(inner(inputs)))


def of(layer):
    inputs = keras.Input(nets.SIZE)
    return keras.Model(inputs, layer(inputs))


def of_quantized(mode):
    layer = layers.Dense(4, name="in_int")
    model = of(layer)
    layer.quantize(mode)
    return model


class Linear(Beside):
    """A layer of one's own, by the name of an activation."""


def OwnCall(layer, name):  # noqa: N802
    """A functional model whose calls are not all that it does."""

    class OwnCall(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs / 10, training=training)

    inputs = keras.Input(nets.SIZE)
    return OwnCall(inputs, layer(inputs), name=name)


class Subclass(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: of(Beside(name="beside")), "'beside' of class Beside"),
        (lambda: of(Linear(name="mine")), "'mine' of class Linear"),
        (
            lambda: of(layers.SeparableConv2D(4, 3, name="twofold")),
            "must be a Conv2D, DepthwiseConv2D, Dense, .*'twofold' of class "
            "SeparableConv2D",
        ),
        (
            lambda: of(layers.BatchNormalization(axis=1, name="rows")),
            "normalization of the last axis.*'rows'",
        ),
        (called_twice, "called once.* Received: 'inner', called several"),
        (
            lambda: of(OwnCall(layers.Dense(4), name="own")),
            "'own' of class OwnCall",
        ),
        (
            lambda: of_quantized("int8"),
            "its weights are floats.*'in_int' of quantization_mode='int8'",
        ),
        (
            lambda: of(
                layers.Dense(4, activity_regularizer="l2", name="costly")
            ),
            "'costly' with activity_regularizer=<",
        ),
        (Subclass, "must be a functional.*Received: model of class Subclass"),
        (
            lambda: quantization.prepare(called_once()),
            "prepared once. Received: model='one', which is",
        ),
        (
            lambda: of(
                layers.ZeroPadding2D(data_format="channels_first", name="p")
            ),
            "channels last. Received: layer 'p'",
        ),
    ],
)
def test_what_cannot_be_prepared(make, text):
    with pytest.raises(ValueError, match=text):
        quantization.prepare(make())


def called_once():
    return keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="one")


def test_other_errors():
    with pytest.raises(ValueError, match=r"in \[0, 1\). Received: momentum=1"):
        quantization.prepare(called_once(), momentum=1.0)
    with pytest.raises(ValueError, match="that .*prepare made. Received: mod"):
        quantization.strip(called_once())
    with pytest.raises(ValueError, match="seen a batch in training"):
        quantization.check_trained(quantization.prepare(called_once()))


def test_a_copy_shares_nothing():
    model = filled("nested")
    copy = copied(model)
    assert not {id(v) for v in copy.weights} & {id(v) for v in model.weights}
    for old, new in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(new), to_numpy(old))


@needs_tensorflow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["kao_kv", "coordinate", "neighborhood"])
def test_other_mechanisms(name):
    model = nets.kanet(name)
    prepared = quantization.prepare(model)
    x = pictures(2, (32, 32, 3))
    assert np.isfinite(to_numpy(prepared(x, training=True))).all()


def test_each_output_of_a_step_has_a_range():
    class Both(layers.Layer):
        def call(self, x):
            return x * 0.01, x * 100.0

    inputs = keras.Input((4,))
    small, large = Both(name="both")(inputs)
    model = keras.Model(inputs, [small, large])
    prepared = quantization.prepare(model)
    names = prepared.layers[-1].range_names
    assert {"both_0", "both_1"} <= set(names)
    x = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype("float32")
    prepared(x, training=True)
    for found, expected in zip(prepared(x), model(x), strict=True):
        scale = np.abs(to_numpy(expected)).max()
        np.testing.assert_allclose(found, expected, atol=0.03 * scale)


def test_a_normalisation_of_another_dtype():
    inputs = keras.Input(nets.SIZE)
    x = layers.BatchNormalization(dtype="mixed_float16")(inputs)
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(x)
    prepared = quantization.prepare(keras.Model(inputs, x))
    x = pictures(2) / 255
    prepared(x, training=True)
    assert np.isfinite(to_numpy(prepared(x))).all()
