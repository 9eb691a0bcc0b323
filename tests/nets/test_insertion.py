"""Attention in models that are there: equal at first, and it opens."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import kanets
from kanets import compat, insert_attention
from tests.backends import BACKEND, to_numpy
from tests.layer_checks import fill_weights, random
from tests.nets.insertion_nets import (
    NETS,
    SIZE,
    Body,
    Tied,
    conv,
    plain,
    with_a_body,
    with_nested_models,
    with_shared_layers,
)

QUICK = ("nested", "operations", "shared")  # tried on JAX by make test, too
ON_JAX = [pytest.mark.thorough] if BACKEND == "jax" else []
NOT_SAVED = ("functions", "user")  # what Keras itself refuses to load


def filled(build):
    keras.utils.clear_session()
    model = build()
    fill_weights(model.weights)
    return model


def answers(model, count=2):
    x = [
        random(count, *t.shape[1:], seed=i) for i, t in enumerate(model.inputs)
    ]
    x = (
        x[0]
        if len(x) == 1
        else {t.name: v for t, v in zip(model.inputs, x, strict=True)}
    )
    return [to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def assert_equal(model, copy):
    for before, after in zip(answers(model), answers(copy), strict=True):
        assert np.abs(before).max() > 1e-2
        np.testing.assert_array_equal(after, before)


def inserted(model):
    return [
        layer
        for layer in compat.all_layers(model)
        if isinstance(layer, layers.Layer) and "_attention" in layer.name
    ]


def mechanisms(model):
    kinds = kanets.attention.base.AttentionLayer
    return [m for m in inserted(model) if isinstance(m, kinds)]


@pytest.mark.parametrize(
    "net", [n if n in QUICK else pytest.param(n, marks=ON_JAX) for n in NETS]
)
def test_outputs_are_equal(net, tmp_path):
    build, at, places = NETS[net]
    model = filled(build)
    before = [to_numpy(w) for w in model.weights]
    copy = insert_attention(model, at)
    assert len(mechanisms(copy)) == places
    assert_equal(model, copy)
    # The original is as it was, and shares nothing with its copy.
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)
    assert not {id(x) for x in compat.all_layers(model)} & {
        id(x) for x in compat.all_layers(copy)
    }
    for weight in copy.trainable_weights:
        weight.assign(weight + 1.0)
    assert all(
        np.array_equal(to_numpy(weight), value)
        for weight, value in zip(model.weights, before, strict=True)
    )
    assert [t.shape for t in copy.outputs] == [t.shape for t in model.outputs]
    if net not in NOT_SAVED:
        copy.save(tmp_path / "copy.keras")
        loaded = keras.saving.load_model(tmp_path / "copy.keras")
        for found, expected in zip(answers(loaded), answers(copy), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_order_of_weights_does_not_matter():
    """Equal shapes in another order, and a copy with one weight moved."""
    model = filled(plain)
    copy = insert_attention(model, "sum")
    swapped = copy.get_layer("c2"), copy.get_layer("c3")
    values = [layer.get_weights() for layer in swapped]
    assert values[0][0].shape == values[1][0].shape
    for layer, value in zip(swapped, values[::-1], strict=True):
        layer.set_weights(value)
    assert np.abs(answers(copy)[0] - answers(model)[0]).max() > 1e-3


def test_what_is_inserted_and_where():
    model = filled(plain)
    copy = insert_attention(model, "every stride", {"name": "kao_kv"})
    assert [m.name for m in mechanisms(copy)] == [
        "n1_attention",
        "sum_attention",
    ]
    assert [m.mode for m in mechanisms(copy)] == ["kv", "kv"]
    assert {layer.name for layer in inserted(copy)} == {
        f"{name}_attention{end}"
        for name in ("n1", "sum")
        for end in ("", "_norm", "_add")
    }
    again = insert_attention(copy, "sum_attention_add")
    again = insert_attention(again, re.compile("su.$"))
    assert "sum_attention_1" in [m.name for m in mechanisms(again)]
    assert_equal(model, again)


def test_every_stride_is_before_an_inverted_residual_widens():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 2, "same", name="stem")(x)
    x = layers.Add(name="sum")([x, conv(8, "inside")(x)])
    x = layers.Conv2D(24, 1, name="expand")(x)
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.DepthwiseConv2D(3, 2, name="depthwise")(x)
    x = layers.Conv2D(12, 1, name="project")(x)
    x = layers.Conv2D(24, 1, name="twice")(x)
    model = keras.Model(inputs, layers.MaxPooling2D(name="pool")(x))
    copy = insert_attention(model, "every stride")
    expected = ["sum_attention", "twice_attention"]
    assert [m.name for m in mechanisms(copy)] == expected


def test_models_within_models_stay_so():
    model = filled(with_nested_models)
    copy = insert_attention(model, "middle/inner/sum")
    middle = copy.get_layer("middle")
    assert middle.get_layer("inner").get_layer("sum_attention")
    assert len(compat.calls(copy)) == len(compat.calls(model))
    body = insert_attention(filled(with_a_body), "n").get_layer("body")
    assert type(body) is Body  # nothing is inserted there


def test_layers_called_twice_stay_shared():
    copy = insert_attention(filled(with_shared_layers), "after")
    called = [c[0].name for c in compat.calls(copy)]
    assert called.count("shared") == 2


@pytest.mark.parametrize(
    "net", ["plain", pytest.param("nested", marks=pytest.mark.thorough)]
)
def test_training_opens_the_gate(net):
    build, at, _ = NETS[net]
    model = filled(build)
    frozen = [to_numpy(w) for w in model.weights]
    copy = insert_attention(model, at, train="attention")
    paths = [weight.path for weight in copy.trainable_weights]
    assert paths and all("_attention" in path for path in paths)
    last = [m.weights[-1] for m in mechanisms(copy)]
    assert all(np.all(to_numpy(w) == 0) for w in last)
    x = random(8, *SIZE)
    y = answers(model, 8)[0]
    y += random(*y.shape)
    copy.compile(keras.optimizers.Adam(0.01), "mse")
    losses = copy.fit(x, y, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all(np.abs(to_numpy(w)).max() > 1e-3 for w in last)
    # The body, its moving averages, too, is as it was.
    rest = [w for w in copy.weights if "_attention" not in w.path]
    for weight, value in zip(rest, frozen, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


def test_flags_are_kept():
    model = filled(with_nested_models)
    model.get_layer("first").trainable = False
    model.get_layer("middle").get_layer("tail").trainable = False
    flags = [layer.trainable for layer in compat.all_layers(model)]
    copy = insert_attention(model, "middle/inner/sum")
    assert flags == [layer.trainable for layer in compat.all_layers(model)]

    def trained(net):
        paths = [w.path for w in net.trainable_weights]
        return [p for p in paths if "_attention" not in p]

    assert trained(copy) == trained(model)
    assert len(trained(copy)) < len(copy.trainable_weights)
    # Under what is frozen a layer is trained that says so itself.
    middle = model.get_layer("middle")
    middle.trainable = False
    middle.get_layer("inner").get_layer("c").trainable = True
    copy = insert_attention(model, "middle/inner/sum")
    assert trained(copy) == trained(model) == ["c/kernel", "c/bias"]
    model.trainable = False
    copy = insert_attention(model, "middle/inner/sum")
    assert copy.trainable_weights and not trained(copy)
    assert not insert_attention(model, "first", train="attention").compiled


def test_compile_state_is_not_copied():
    model = filled(plain)
    model.compile("adam", "mse")
    assert not insert_attention(model, "sum").compiled


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_policies_are_those_of_the_layer_before(policy):
    x = inputs = keras.Input(SIZE)
    x = conv(8, "half", dtype=policy)(x)
    x = conv(8, "wide", dtype="float32")(ops.relu(x))
    model = filled(lambda: keras.Model(inputs, x))
    copy = insert_attention(model, [".*relu.*", "half", "wide"])
    policies = {m.name: m.dtype_policy.name for m in mechanisms(copy)}
    assert policies.pop("wide_attention") == "float32"
    assert len(policies) == 2 and set(policies.values()) == {policy}
    assert {str(w.dtype) for w in copy.weights} == {"float32"}
    assert_equal(model, copy)


def test_an_open_gate_and_other_mechanisms():
    model = filled(plain)
    for attention in ("dense", "ylg", {"name": "kao_kv", "projections": ""}):
        assert_equal(model, insert_attention(model, "sum", attention))
    copy = insert_attention(model, "sum", gate=None)
    assert np.abs(answers(copy)[0] - answers(model)[0]).max() > 1e-3


def refused(model, at, match, **arguments):
    with pytest.raises(ValueError, match=match):
        insert_attention(model, at, **arguments)


def test_places_that_are_refused():
    model = filled(plain)
    refused(model, "summ", r"nearest: sum, .*at='summ'")
    refused(model, ["sum", "block_.*"], r"nearest: .*at='block_")
    refused(model, "c(", "at must hold names.*at='c\\('")
    refused(model, [], r"a layer or more.*at=\[\]")
    refused(model, "pictures", "must match layers")
    refused(model, "head", r"one tensor.*'head' of \(None, 4\)")
    refused(with_shared_layers(), "shared", "called once.*'shared' of 2 calls")
    refused(
        with_nested_models(), "sum", r"outer/inner \(nearest: middle/inner/sum"
    )
    open_size = keras.Model(i := keras.Input((None, None, 3)), conv(4, "c")(i))
    refused(open_size, "every stride", "known sizes.*open size")
    refused(
        keras.Model(i := keras.Input(SIZE), conv(4, "c")(i)),
        "every stride",
        "strides.*has none",
    )


def test_models_that_are_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    refused(Subclassed(), "c", "functional.*class Subclassed")
    unbuilt = keras.Sequential([conv(4, "c")])
    refused(unbuilt, "c", "begin it with keras.Input")
    first = layers.Conv2D(4, 1, data_format="channels_first", name="c")
    model = keras.Model(i := keras.Input(SIZE), first(i))
    refused(model, "c", "channels last.*'c' of data_format='channels_first'")

    shared = conv(3, "a")
    tied = Tied(shared, name="b")
    model = keras.Model(i := keras.Input(SIZE), tied(shared(i)))
    refused(model, "b", "two layers share.*kernel.*'a' and 'b'")

    class NoConfig(layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)

        def call(self, x):
            return x

    model = keras.Model(i := keras.Input(SIZE), NoConfig(abs, name="own")(i))
    refused(model, "own", "get_config.*'own' of class NoConfig")


def test_weights_beside_the_graph_are_refused():
    model = keras.Model(i := keras.Input(SIZE), conv(3, "b")(i))
    model.beside = layers.Dense(2, name="beside")
    model.beside.build((None, 2))
    if not any("beside" in weight.path for weight in model.weights):
        pytest.skip("Keras 3.12 does not count them as the model's")
    refused(model, "b", "of its graph.*beside")


def test_arguments_that_are_refused():
    model = filled(plain)
    refused(model, "sum", "train.*'body'", train="body")
    refused(model, "sum", "gate.*'one'", gate="one")
    refused(model, "sum", "nearest: kao_kv", attention="kao_kw")
    refused(
        model,
        "sum",
        "After 'sum'.*num_heads.*3",
        attention={"name": "kao_kv", "num_heads": 3},
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MobileNetV3Small", marks=ON_JAX),
        pytest.param("EfficientNetV2B0", marks=pytest.mark.thorough),
        pytest.param("ConvNeXtTiny", marks=pytest.mark.thorough),
        pytest.param("DenseNet121", marks=pytest.mark.thorough),
    ],
)
def test_keras_applications(name):
    build = getattr(keras.applications, name)
    model = filled(lambda: build(weights=None, input_shape=(32, 32, 3)))
    copy = insert_attention(model, "every stride")
    assert 3 <= len(mechanisms(copy)) <= 5
    before, after = (
        to_numpy(m(128 + random(1, 32, 32, 3))) for m in (model, copy)
    )
    np.testing.assert_array_equal(after, before)
    assert np.ptp(before) > 0


@pytest.mark.parametrize(
    "net, at",
    [
        (
            lambda: kanets.KANet((32, 32, 3), 0.25, classes=3),
            ["stage2_block2", "stage10_block1"],
        ),
        (
            lambda: kanets.MobileNetV4((32, 32, 3), classes=3),
            "every stride",
        ),
    ],
    ids=["KANet", "MobileNetV4"],
)
def test_the_maps_of_levels_are_behind_what_was_inserted(net, at):
    copy = insert_attention(filled(net), at, gate=None)
    maps = kanets.nets.feature_maps(copy)
    changed = {
        level
        for level, tensor in maps.items()
        if compat.producer(tensor).name.endswith("_attention_add")
    }
    read = {
        id(tensor)
        for operation, inputs, _, _ in compat.calls(copy)
        for tensor in inputs
        if "_attention" not in operation.name
    }
    assert len(changed) >= 2
    for level in changed - {"level5"}:
        assert id(maps[level]) in read  # what the rest of the net sees


@pytest.mark.parametrize("at", [5, None, {"a": 1}])
def test_places_are_names(at):
    refused(plain(), at, f"a list of these. Received: at={re.escape(str(at))}")


def test_no_attention_is_refused():
    refused(plain(), "sum", "is made of. Received: None", attention=None)


def test_what_a_layer_derives_from_its_weights_is_right(tmp_path):
    """`Normalization` is adapted, and every kind of copy computes as it."""
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3))
    x = x.astype("float32")
    inputs = keras.Input((8, 8, 3))
    normalization = layers.Normalization()
    normalization.adapt(x)
    y = layers.Conv2D(4, 3, padding="same", name="c")(normalization(inputs))
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dense(3, "softmax", name="predictions")(y)
    model = keras.Model(inputs, y)
    model.class_names = ("a", "b", "c")
    model.save(tmp_path / "m.keras")
    expected = to_numpy(model(x))
    copy = insert_attention(model, "c")
    assert copy.class_names == ("a", "b", "c")
    file = str(tmp_path / "m.keras")
    for other in (
        copy,
        kanets.create_model(file, dtype="float32"),
        kanets.create_model(file, input_shape=(None, None, 3)),
    ):
        np.testing.assert_allclose(to_numpy(other(x)), expected, atol=1e-5)


def norms(model):
    return [
        layer
        for layer in compat.all_layers(model)
        if isinstance(layer, layers.BatchNormalization)
    ]


@pytest.mark.parametrize(
    "attention",
    ["single_head", "cbam", {"name": "multi_query", "key_stride": 2}],
)
def test_norms_within_a_mechanism_have_the_momentum_and_stay_frozen(
    attention, tmp_path
):
    copy = insert_attention(filled(plain), "sum", attention, momentum=0.5)
    inside = [x for x in norms(copy) if x not in copy.layers]
    assert inside and {norm.momentum for norm in inside} == {0.5}
    copy.trainable = False
    copy.save(tmp_path / "copy.keras")
    for model in (
        keras.saving.load_model(tmp_path / "copy.keras"),
        keras.models.clone_model(copy),
    ):
        assert len(norms(model)) == len(norms(copy))
        assert not any(norm.trainable for norm in norms(model))
