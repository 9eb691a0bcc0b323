"""New heads, new sizes, other arguments, and feature maps."""

import shutil

import keras
import numpy as np
import pytest

import kanets
from kanets import zoo
from tests.backends import counts_once, to_numpy
from tests.zoo.common import (
    NAMES,
    PICTURES,
    SAGAN,
    SEGMENTER,
    make_entry,
    make_gan,
    make_model,
    make_plain,
    make_segmenter,
    predict,
)


def assert_same_weights(model, expected, but=()):
    """The layers are named alike and hold the same numbers."""
    for layer, reference in zip(model.layers, expected.layers, strict=True):
        assert layer.name == reference.name
        if layer.name in but:
            continue
        for weight, value in zip(layer.weights, reference.weights, strict=True):
            np.testing.assert_array_equal(to_numpy(weight), to_numpy(value))


@pytest.fixture(scope="module")
def segmenter(short):
    """Not to be changed by a test."""
    return make_segmenter()


@pytest.fixture(scope="module")
def streets(segmenter, tmp_path_factory):
    """Its folder, likewise."""
    folder = tmp_path_factory.mktemp("saved") / "streets"
    return kanets.save_model(segmenter, folder, NAMES)


def test_a_new_head(folder, model):
    tuned = kanets.create_model(folder, num_classes=5)
    assert tuned.output_shape == (None, 5)
    assert tuned.name == model.name
    assert getattr(tuned, "class_names", None) is None
    assert_same_weights(tuned, model, but=["predictions"])
    body = keras.Model(tuned.input, tuned.get_layer("pool").output)
    reference = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(predict(body), predict(reference), atol=1e-6)
    np.testing.assert_allclose(predict(tuned).sum(-1), 1, atol=1e-5)
    assert norm_momenta(tuned) == {0.9}
    assert norm_momenta(kanets.create_model(folder)) == {0.99}


def norm_momenta(model):
    return {
        layer.momentum
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    }


@pytest.mark.slow
def test_closed_attention_is_fresh_upon_weights_without():
    name, shape = "efficientnet_lite0_imagenet", (32, 32, 3)
    small = {"name": "kao_kv", "num_heads": 2}
    plain = kanets.create_model(name, input_shape=shape)
    tuned = kanets.create_model(
        name, num_classes=3, input_shape=shape, attention=small
    )
    assert tuned.output_shape == (None, 3)
    assert norm_momenta(tuned) == {0.9}
    x = np.random.default_rng(0).uniform(0, 255, (1, *shape))
    means = [
        predict(keras.Model(m.input, m.get_layer("pool").output), x)
        for m in (tuned, plain)
    ]
    np.testing.assert_array_equal(*means)
    assert tuned.get_layer("block_2_attention").mode == "kv"
    with pytest.raises(ValueError, match="layer 'block_3_depthwise' has"):
        kanets.create_model(name, input_shape=shape, variant="lite2")


@pytest.mark.slow
def test_a_new_head_of_as_many_classes_is_new(folder, model):
    tuned = kanets.create_model(folder, num_classes=3)
    assert getattr(tuned, "class_names", None) is None
    kernels = [
        to_numpy(m.get_layer("predictions").kernel) for m in (tuned, model)
    ]
    assert not np.allclose(*kernels)


@pytest.mark.slow
def test_a_new_head_within_a_segmenter(streets, segmenter):
    tuned = kanets.create_model(streets, num_classes=5, input_shape=(24, 20, 3))
    assert tuned.output_shape == (None, 24, 20, 5)
    assert_same_weights(tuned, segmenter, but=["pixels", "predictions"])
    # The same picture, but for the classes.
    layer = "decoder_relu6"
    maps = [
        predict(keras.Model(m.input, m.get_layer(layer).output))
        for m in (kanets.create_model(streets, num_classes=5), segmenter)
    ]
    np.testing.assert_allclose(*maps, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        (24, 20, 3),
        pytest.param((None, None, 3), marks=pytest.mark.slow),
    ],
)
def test_a_new_size(folder, model, shape):
    resized = kanets.create_model(folder, input_shape=shape)
    assert resized.input_shape == (None, *shape)
    assert resized.class_names == NAMES
    assert_same_weights(resized, model)
    if shape[0] is None:
        np.testing.assert_allclose(predict(resized), predict(model), atol=1e-5)
    else:
        picture = np.zeros((1, *shape), "float32")
        assert predict(resized, picture).shape == (1, 3)


@pytest.mark.slow
def test_another_dtype_policy(folder, model):
    mixed = kanets.create_model(folder, dtype="mixed_bfloat16")
    assert_same_weights(mixed, model)
    assert mixed.class_names == NAMES
    assert {w.dtype for w in mixed.trainable_weights} == {"float32"}
    computes = {x.name: x.compute_dtype for x in mixed.layers[1:]}
    assert set(computes.values()) == {"float32", "bfloat16"}
    # As the net is when it is built in mixed precision.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        native = make_model()
        kept = kanets.create_model(folder)
    finally:
        keras.config.set_dtype_policy(before)
    assert computes == {x.name: x.compute_dtype for x in native.layers[1:]}
    native.set_weights(model.get_weights())
    outputs = mixed(PICTURES, training=False)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(outputs), predict(native), atol=1e-6)
    np.testing.assert_allclose(predict(mixed), predict(model), atol=0.02)
    # A saved layer has its own policy, whatever the global one is.
    assert {x.compute_dtype for x in kept.layers[1:]} == {"float32"}


@pytest.mark.slow
def test_a_dtype_policy_of_a_changed_model(entry, model, tmp_path):
    changes = {"dropout_rate": 0.5, "num_classes": 5}
    mixed = kanets.create_model("kanet_x", dtype="mixed_float16", **changes)
    assert mixed.get_layer("dropout").compute_dtype == "float16"
    assert mixed.get_layer("predictions").compute_dtype == "float32"
    assert mixed.dtype_policy.name == "mixed_float16"
    np.testing.assert_array_equal(
        to_numpy(mixed.get_layer("stem_conv").kernel),
        to_numpy(model.get_layer("stem_conv").kernel),
    )
    folder = kanets.save_model(mixed, tmp_path / "mixed")
    loaded = kanets.load_model(folder)
    np.testing.assert_allclose(predict(loaded), predict(mixed), atol=1e-6)
    back = kanets.create_model(folder, dtype="float32", pretrained=False)
    assert {x.compute_dtype for x in back.layers} == {"float32"}


@pytest.mark.slow
def test_the_end_of_a_segmenter_stays_in_float32(streets):
    mixed = kanets.create_model(streets, dtype="mixed_bfloat16")
    half = [x.name for x in mixed.layers if x.compute_dtype == "bfloat16"]
    end = ["predictions", "predictions_resize", "classifier_activation"]
    assert "dropout" in half and not {*end, "pixels"} & set(half)
    outputs = mixed(PICTURES, training=False)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"


@pytest.mark.parametrize(
    "dtype", ["mixed_bfloat61", "int32", "int8_from_float32", 7]
)
def test_what_is_no_dtype_policy(folder, dtype):
    with pytest.raises(ValueError) as error:
        kanets.create_model(folder, dtype=dtype)
    assert str(error.value) == (
        "dtype must be None or a dtype policy of Keras, such as "
        f'"mixed_bfloat16". Received: dtype={dtype!r}'
    )


@pytest.mark.slow
def test_not_pretrained_has_fresh_weights(folder, model):
    (folder / "model.weights.h5").unlink()
    fresh = kanets.create_model(folder, pretrained=False)
    assert fresh.class_names == NAMES
    kernel = "stem_conv"
    assert not np.allclose(
        to_numpy(fresh.get_layer(kernel).kernel),
        to_numpy(model.get_layer(kernel).kernel),
    )
    small = kanets.create_model(
        folder, pretrained=False, num_classes=2, input_shape=(24, 20, 3)
    )
    assert small.input_shape == (None, 24, 20, 3)
    assert small.output_shape == (None, 2)


def test_an_entry_by_name(entry, model):
    created = kanets.create_model("kanet_x")
    assert created.class_names == NAMES
    np.testing.assert_allclose(predict(created), predict(model), atol=1e-6)


@pytest.mark.slow
def test_overrides_keep_the_weights(entry, model):
    created = kanets.create_model(
        "kanet_x", dropout_rate=0.5, classifier_activation=None
    )
    assert created.get_layer("dropout").rate == 0.5
    assert created.class_names == NAMES
    logits = predict(created)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, predict(model), atol=1e-5)
    scaled = kanets.create_model("kanet_x", attention_scale=100.0)
    assert_same_weights(scaled, model)
    assert not np.allclose(predict(scaled), predict(model), atol=1e-7)


def test_overrides_with_a_new_head_and_size(entry, model):
    created = kanets.create_model(
        "kanet_x", num_classes=2, input_shape=(24, 20, 3), dropout_rate=0.5
    )
    assert created.input_shape == (None, 24, 20, 3)
    assert created.output_shape == (None, 2)
    assert getattr(created, "class_names", None) is None
    np.testing.assert_array_equal(
        to_numpy(created.get_layer("stem_conv").kernel),
        to_numpy(model.get_layer("stem_conv").kernel),
    )


@pytest.mark.slow
def test_overrides_may_leave_the_head_out(entry, model):
    body = kanets.create_model("kanet_x", include_top=False, pooling="avg")
    assert getattr(body, "class_names", None) is None
    reference = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(predict(body), predict(reference), atol=1e-6)


@pytest.mark.slow
def test_overrides_that_the_weights_do_not_fit(entry):
    with pytest.raises(
        ValueError,
        match=r"pretrained=False takes any .*{'alpha': 0.5}, where layer "
        r"'stem_conv' has \(3, 3, 3, 16\), trained \(3, 3, 3, 8\)",
    ):
        kanets.create_model("kanet_x", alpha=0.5)
    with pytest.raises(
        ValueError, match="{'attention': None}, where layer 'stage4_block1'"
    ):
        kanets.create_model("kanet_x", attention=None)
    wide = kanets.create_model("kanet_x", pretrained=False, alpha=0.5)
    assert wide.get_layer("stem_conv").filters == 16
    assert wide.input_shape == (None, 16, 16, 3)


@pytest.mark.slow
def test_overrides_of_a_segmenter(streets, segmenter, directory):
    folder = shutil.copytree(streets, directory / "segmenter_x")
    make_entry(
        folder, task="segmentation", net="KANetSegmenter", arguments=SEGMENTER
    )
    created = kanets.create_model(
        "segmenter_x", num_classes=5, classifier_activation=None
    )
    assert created.output_shape == (None, 16, 16, 5)
    assert_same_weights(created, segmenter, but=["predictions"])


def test_what_is_no_override(directory, folder):
    # What is saved does not matter: it is quicker to read.
    entry = kanets.save_model(make_plain(), directory / "kanet_x", NAMES)
    make_entry(entry)
    with pytest.raises(
        ValueError, match=r"arguments of KANet: \['alpha'.*Received: \['alfa'\]"
    ):
        kanets.create_model("kanet_x", alfa=1)
    with pytest.raises(ValueError, match=r"Received: \['classes'\]"):
        kanets.create_model("kanet_x", classes=2)
    with pytest.raises(
        ValueError, match="need the entry.json .*insects' with {'alpha': 1}"
    ):
        kanets.create_model(folder, alpha=1)
    make_entry(entry, net="LaterNet")
    with pytest.raises(ValueError, match="net='LaterNet' of 'kanet_x'"):
        kanets.create_model("kanet_x", alpha=1)


def test_bad_arguments_are_named(tmp_path):
    folder = kanets.save_model(make_plain(), tmp_path / "plain", NAMES)
    for classes in (0, True, 2.5, "5"):
        with pytest.raises(ValueError, match=f"num_classes={classes!r}"):
            kanets.create_model(folder, num_classes=classes)
    for shape in ((96, 96), (0, 16, 3), (16.5, 16, 3), (16, 16, 1), 96):
        with pytest.raises(ValueError, match=r"\(height, width, 3\).*Rec"):
            kanets.create_model(folder, input_shape=shape)
    inputs = keras.Input((4, 4, 3))
    outputs = keras.layers.Flatten(name="flat")(inputs)
    keras.Model(inputs, outputs, name="plain").save(tmp_path / "plain.keras")
    with pytest.raises(
        ValueError, match="'predictions'.* Received: 'plain' .*'flat'"
    ):
        kanets.create_model(tmp_path / "plain.keras", num_classes=2)


@pytest.mark.slow
@counts_once
def test_generators_have_their_size_and_classes(directory):
    gan = make_gan()
    folder = kanets.save_model(gan.generator, directory / "gan_x", NAMES)
    kanets.save_model(gan.discriminator, folder / "discriminator", NAMES)
    make_entry(
        folder,
        task="generation",
        net="SAGAN",
        arguments=SAGAN,
        input_shape=(32, 32, 3),
    )
    created = kanets.create_model("gan_x", seed=1)
    latents = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    inputs = [latents, np.array([0, 2], "int32")]
    expected = predict(gan.generator, inputs)
    np.testing.assert_allclose(predict(created, inputs), expected, atol=1e-5)
    assert created.class_names == NAMES
    with pytest.raises(ValueError, match="an architecture or an entry"):
        kanets.create_model("gan_x/discriminator", weights="gan_x")
    for change in ({"num_classes": 2}, {"input_shape": (64, 64, 3)}):
        for name in ("gan_x", "gan_x/discriminator"):
            with pytest.raises(ValueError, match="networks of a GAN"):
                kanets.create_model(name, **change)
    with pytest.raises(
        ValueError, match="{'width': 4}, where layer 'dense' has"
    ):
        kanets.create_model("gan_x", width=4)
    with pytest.raises(ValueError, match="need the entry.json"):
        kanets.create_model("gan_x/discriminator", width=4)


@pytest.mark.slow
def test_feature_models(entry, model):
    maps = {
        name: predict(keras.Model(model.input, tensor))
        for name, tensor in kanets.nets.feature_maps(model).items()
    }
    for source in (model, entry, "kanet_x"):
        pyramid = zoo.feature_model(source)(PICTURES, training=False)
        assert list(pyramid) == list(maps)
        for name, value in pyramid.items():
            np.testing.assert_allclose(to_numpy(value), maps[name], atol=1e-5)
    two = zoo.feature_model(model, ["level5", "level3"], (24, 20, 3))
    assert two.input_shape == (None, 24, 20, 3)
    shapes = {name: tensor.shape for name, tensor in two.output.items()}
    assert shapes == {"level5": (None, 6, 5, 32), "level3": (None, 6, 5, 8)}
    np.testing.assert_array_equal(
        to_numpy(two.get_layer("stem_conv").kernel),
        to_numpy(model.get_layer("stem_conv").kernel),
    )


def test_levels_that_a_model_does_not_have(model):
    with pytest.raises(ValueError, match="of .*'level5'.*'level6'"):
        zoo.feature_model(model, ["level1", "level6"])
    inputs = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match="model='other'"):
        zoo.feature_model(keras.Model(inputs, inputs, name="other"))


def test_a_new_head_upon_a_frozen_one_is_trained(tmp_path):
    plain = make_plain()
    plain.trainable = False
    folder = kanets.save_model(plain, tmp_path / "frozen", NAMES)
    tuned = kanets.create_model(folder, num_classes=5)
    paths = [weight.path for weight in tuned.trainable_weights]
    assert paths == ["predictions/kernel", "predictions/bias"]


def test_a_head_without_a_size_is_named(tmp_path):
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(len(NAMES), 4, name="logits")(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Activation("softmax", name="predictions")(x)
    net = keras.Model(inputs, x, name="convolved")
    folder = kanets.save_model(net, tmp_path / "convolved", NAMES)
    with pytest.raises(
        ValueError, match="'convolved' with 'predictions' of class Activation"
    ):
        kanets.create_model(folder, num_classes=2)


@pytest.mark.parametrize("size", [(6, 6, 3), (None, None, 3)])
def test_a_model_of_fixed_size_within_is_named(tmp_path, size):
    inner = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()],
        name="inner",
    )
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Dense(len(NAMES), name="predictions")(inner(inputs))
    net = keras.Model(inputs, x, name="outer")
    folder = kanets.save_model(net, tmp_path / "outer", NAMES)
    with pytest.raises(ValueError, match="'outer' with 'inner' of input shape"):
        kanets.create_model(folder, input_shape=size)
