"""Nets of keras.applications: the same answers, of plain pixels."""

import functools
import sys

import keras
import numpy as np
import pytest

import kanets
from kanets import cli, data, evaluation, recipes, zoo
from kanets.layers.pixel_scale import PixelScale
from kanets.zoo.applications import PREFIX, application, application_name
from tests.backends import needs_tensorflow
from tests.photos import write_photos

SHAPE = (64, 64, 3)


@pytest.fixture
def offline(monkeypatch):
    """Nets whose weights "imagenet" are random, and fetched from nowhere."""

    def patch(name):
        builder = getattr(keras.applications, name)

        @functools.wraps(builder)
        def build(*, weights, **options):
            if weights is not None:
                assert weights == "imagenet"
                keras.utils.set_random_seed(3)
            return builder(weights=None, **options)

        monkeypatch.setattr(keras.applications, name, build)
        return builder

    return patch


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        # The others' kinds: Caffe's, with channels in another order;
        # PyTorch's, with a scale for each; and pixels as they are.
        pytest.param("ResNet50", marks=pytest.mark.thorough),
        pytest.param("DenseNet121", marks=pytest.mark.slow),
        pytest.param("MobileNetV3Small", marks=pytest.mark.slow),
    ],
)
def test_preprocessing_is_in_the_model(offline, name):
    builder = offline(name)
    keras.utils.set_random_seed(3)
    theirs = builder(
        weights=None, include_top=False, pooling="avg", input_shape=SHAPE
    )
    model = application(name, num_classes=3, input_shape=SHAPE)
    body = keras.Model(model.input, model.get_layer("predictions").input)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE))
    pixels = pixels.astype("float32")
    prepare = sys.modules[builder.__module__].preprocess_input
    expected = theirs.predict(prepare(pixels.copy()), verbose=0)
    found = body.predict(pixels, verbose=0)
    np.testing.assert_allclose(
        found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    scaled = [x for x in model.layers if isinstance(x, PixelScale)]
    assert len(scaled) == (name != "MobileNetV3Small")


def test_which_names_are_nets():
    assert application_name("ResNet50") == PREFIX + "ResNet50"
    assert application_name(PREFIX + "VGG16") == PREFIX + "VGG16"
    for other in ("resnet50", "resnet", "ResNet51", "kanet_qkv_cifar10", "."):
        assert application_name(other) is None
    # A recipe's bare name stays ours.
    assert "MobileNetV2" in recipes.NETS


@pytest.mark.thorough
def test_the_whole_net_has_its_classes(offline):
    offline("MobileNetV2")
    model = kanets.load_model("MobileNetV2")
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert (
        model.class_names[0] == list(data.folders.imagenet_names().values())[0]
    )
    assert zoo.saved_class_names("MobileNetV2") == model.class_names
    half = kanets.create_model(
        "keras.applications.MobileNetV2",
        num_classes=2,
        input_shape=SHAPE,
        dtype="mixed_bfloat16",
    )
    assert half.get_layer("Conv1").compute_dtype == "bfloat16"
    assert half.get_layer("predictions").compute_dtype == "float32"
    assert half.get_layer("bn_Conv1").momentum == 0.9


def test_what_it_does_not_take(offline):
    with pytest.raises(ValueError, match="dtype. Received: 'ResNet50' with {'"):
        kanets.create_model("ResNet50", attention="kao_kv")
    with pytest.raises(ValueError, match="takes num_classes.*'weights': 'x'"):
        kanets.create_model("ResNet50", weights="x")


def test_without_a_network_it_is_one_sentence(monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise Exception("URL fetch failure on\nhttps://storage: None -- x")

    module = sys.modules[keras.applications.MobileNetV2.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", fail)
    photos = write_photos(tmp_path / "photos", 1, 1, (8, 8), "png")
    command = ["predict", "MobileNetV2", str(photos)]
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "needs the network" in err
    assert err.endswith(
        "Received: 'keras.applications.MobileNetV2' (URL fetch failure on "
        "https://storage: None -- x)\n"
    )


@pytest.mark.slow
@needs_tensorflow
def test_it_is_fine_tuned_saved_and_exported(offline, tmp_path, capsys):
    offline("MobileNetV2")
    photos = write_photos(tmp_path / "photos", 4, 2, (40, 40), "png")
    run, bundle = tmp_path / "run", tmp_path / "served"
    command = ["finetune", "MobileNetV2", "--data", str(photos)]
    command += ["--to", str(run), "--epochs", "1", "--batch-size", "4"]
    assert cli.main([*command, "--image-size", "64", "64"]) == 0
    recipe = recipes.read(run / "recipe.toml")
    assert recipe.model["name"] == PREFIX + "MobileNetV2"
    assert kanets.load_model(run).class_names == ("blue", "red")
    assert cli.main(["export", str(run), "--to", str(bundle)]) == 0
    capsys.readouterr()
    ours = evaluation.predict(run, [photos / "val"])
    served = evaluation.predict(bundle, [photos / "val"])
    for (_, ranked), (_, other) in zip(ours, served, strict=True):
        assert dict(other) == pytest.approx(dict(ranked), abs=1e-4)
