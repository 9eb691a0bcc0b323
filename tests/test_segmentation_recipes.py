"""Recipes of segmenters: their nets, their runs, their errors."""

import dataclasses

import keras
import numpy as np
import pytest

from kanets import cli, data, nets, recipes, zoo
from kanets.train.losses import median_frequency_weights
from tests.photos import write_streets

SIZE = (12, 16)
DATA = {"class_names": ["blue", "red"], "ignore_label": 7}


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets"), 7, 3, SIZE)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small segmenter of three classes, to start from."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="scale")(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(3, 1, name="predictions")(x)
    outputs = keras.layers.Softmax(name="probabilities")(x)
    model = keras.Model(inputs, outputs, name="small")
    folder = tmp_path_factory.mktemp("base") / "model"
    return zoo.save_model(model, folder, ["a", "b", "c"])


def recipe(streets, base, **changes):
    fields = {
        "segmenter": {"name": str(base)},
        "epochs": 3,
        "batch_size": 3,
        "data": {"source": str(streets), **DATA},
        "augment": {"crop_size": [8, 8], "scale": 1.5},
        "optimize": {"name": "adamw", "learning_rate": 0.05},
        **changes,
    }
    return recipes.from_dict(fields)


def test_toml_round_trip(tmp_path, streets, base):
    plan = recipe(streets, base, balanced=True)
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan), encoding="utf-8")
    assert recipes.read(path) == plan
    assert isinstance(plan, recipes.SegmentationRecipe)


def test_a_run_learns_and_goes_on(tmp_path, streets, base, capsys):
    plan = recipe(streets, base, finetune={"frozen_epochs": 1}, balanced=True)
    whole = recipes.train(plan, tmp_path / "whole", verbose=0)
    assert whole["val_mean_iou"] > 0.8
    model = zoo.load_model(tmp_path / "whole")
    assert model.class_names == ("blue", "red")
    assert model.output_shape == (None, None, None, 2)
    assert model.get_layer("bn").momentum == 0.9

    # Stopped after two epochs, then the same command again.
    class Stop(Exception):
        pass

    def leave(_):
        def end(epoch, logs):
            if epoch == 2:
                raise Stop

        return keras.callbacks.LambdaCallback(on_epoch_begin=end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes.supervised, "tensorboard", leave)
        with pytest.raises(Stop):
            recipes.train(plan, tmp_path / "parts", verbose=0)
    parts = recipes.train(plan, tmp_path / "parts", verbose=1)
    assert "after epoch 2 of 3" in capsys.readouterr().out
    assert parts["val_mean_iou"] == pytest.approx(whole["val_mean_iou"], 1e-3)
    for a, b in zip(
        zoo.load_model(tmp_path / "parts").get_weights(),
        model.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_net_that_is_surely_wrong_learns(tmp_path, streets, base):
    def build(recipe, train_set, say):
        model = zoo.create_model(str(base), num_classes=2)
        kernel, _ = model.get_layer("predictions").get_weights()
        model.get_layer("predictions").set_weights(
            [0 * kernel, np.array([100.0, 0.0])]
        )
        return model

    plan = recipe(streets, base, epochs=1, precision="float32")
    task = dataclasses.replace(recipes.segmenter.PARTS, build=build)
    recipes.supervised.train(task, plan, tmp_path / "run", verbose=0)
    model = zoo.load_model(tmp_path / "run")
    assert isinstance(model.layers[-1], keras.layers.Softmax)
    _, bias = model.get_layer("predictions").get_weights()
    assert bias[0] < 99.99 and bias[1] > 0.01


def test_balanced_weighs_by_median_frequency(streets, base):
    plan = recipe(streets, base, balanced=True)
    train_set, _ = recipes.segmenter._load(plan)
    loss = recipes.segmenter.PARTS.loss(plan, train_set)
    # Of the pictures as they are, not of this epoch's crops.
    plain, _ = data.load_segmentation(streets, **DATA)
    assert loss.class_weight == median_frequency_weights(plain)
    assert loss.class_weight != [1.0, 1.0]
    plain = dataclasses.replace(plan, balanced=False)
    assert recipes.segmenter.PARTS.loss(plain, train_set).class_weight is None


@pytest.mark.thorough
def test_a_new_net_takes_the_weights_of_a_backbone(tmp_path, streets, base):
    backbone = nets.KANet((32, 32, 3), 0.25, classes=5)
    zoo.save_model(backbone, tmp_path / "backbone")
    plan = recipe(
        streets,
        base,
        segmenter={
            "name": "KANetSegmenter",
            "alpha": 0.25,
            "attention": "none",
            "backbone": str(tmp_path / "backbone"),
        },
    )
    train_set, validation_set = recipes.segmenter._load(plan)
    assert validation_set.num_pictures == 3
    images, labels = train_set[0]
    assert images.shape == (3, 8, 8, 3) and labels.shape == (3, 8, 8)
    model = recipes.segmenter._build(plan, train_set)
    assert model.output_shape == (None, None, None, 2)
    stem = backbone.get_layer("stem_conv").kernel
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, stem)
    assert model.get_layer("decoder_bn").momentum == 0.99  # as ever
    names = {layer.name for layer in model.layers}
    assert "attention" not in names and "predictions" in names


@pytest.mark.thorough
def test_the_body_learns_more_slowly(tmp_path, streets, base):
    backbone = nets.EfficientNetLite((32, 32, 3), classes=5)
    zoo.save_model(backbone, tmp_path / "backbone")
    section = {"alpha": 0.25, "backbone": str(tmp_path / "backbone")}
    plan = recipe(
        streets,
        base,
        segmenter={"name": "KANetSegmenter", **section},
        finetune={"body_factor": 0.25},
    )
    train_set, _ = recipes.segmenter._load(plan)
    model = recipes.segmenter._build(plan, train_set)
    for name in ("block_3_project_norm", "decoder_bn"):
        assert model.get_layer(name).momentum == 0.9
    optimizer = recipes.supervised._optimizer(plan, model, 1, 1)
    factors = optimizer.factors
    body = {v.path for v in model.get_layer("block_3_project").weights}
    assert {factors[path] for path in body} == {0.25}
    assert set(factors) == {
        v.path
        for v in model.trainable_variables
        if v.path.startswith(("stem", "block_"))
    }
    # Of a model that is loaded: all but its head, with the decay per layer.
    finetune = {"body_factor": 0.5, "layer_decay": 0.5}
    plan = recipe(streets, base, finetune=finetune)
    model = zoo.load_model(base)
    factors = recipes.supervised._optimizer(plan, model, 1, 1).factors
    found = {path: factors[path] for path in ("conv/kernel", "bn/gamma")}
    assert found == {"conv/kernel": 0.125, "bn/gamma": 0.25}
    assert factors["predictions/kernel"] == 1.0


@pytest.mark.thorough
def test_finetune_knows_a_segmenter(tmp_path, streets, base, capsys):
    (streets / "classes.txt").write_text("blue\nred\n")
    run = tmp_path / "run"
    command = ["finetune", str(base), "--data", str(streets), "--to", str(run)]
    options = ["--epochs", "1", "--batch-size", "4", "--ignore-label", "7"]
    options += ["--image-size", "6", "10", "--precision", "mixed_bfloat16"]
    assert cli.main([*command, *options]) == 0
    output = capsys.readouterr().out
    assert "A new head for 2 classes: the model has others." in output
    assert "Compiling the training step of the head alone" in output
    assert "validation mean iou" in output
    tuned = zoo.load_model(run)
    assert tuned.class_names == ("blue", "red")
    assert tuned.input_shape == (None, 6, 10, 3)
    computes = {layer.name: layer.compute_dtype for layer in tuned.layers}
    assert computes["conv"] == "bfloat16"
    assert computes["predictions"] == computes["probabilities"] == "float32"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"segmenter": {}}, "segmenter must be a section with a name"),
        ({"finetune": {"body_factor": 0}}, r"body_factor must be in \(0, 1\]"),
        ({"balanced": 1.5}, "balanced must be one of"),
        ({"augment": {"scale": 0.5}}, "augment.scale must be 1 or more"),
        ({"augment": {"crop_size": [8]}}, r"crop_size=\(8,\)"),
        ({"augment": {"crop_size": 8}}, "crop_size=8"),
        ({"data": {"ignore_label": -1}}, "ignore_label=-1"),
        ({"finetune": {"fit_head": True}}, "fit_head must be false for a seg"),
        ({"optimize": {"label_smoothing": 0.1}}, "0 for a segmenter"),
        ({"precision": "float16"}, "precision must be one of .*='float16'"),
        (
            {
                "segmenter": {"name": "KANetSegmenter"},
                "finetune": {"frozen_epochs": 1},
            },
            "frozen_epochs must be 0 for a net that is not loaded",
        ),
        (
            {"segmenter": {"name": "x", "classifier_activation": "none"}},
            "gives probabilities",
        ),
        (
            {"segmenter": {"name": "KANetSegmenter", "output_strides": 8}},
            r"nearest: output_stride\). Received: segmenter=\{'output_strides'",
        ),
        (
            {"segmenter": {"name": "kanet_lite0_camvid", "alpah": 1}},
            r"\(nearest: alpha\). Received: segmenter=\{'alpah': 1\}",
        ),
    ],
)
def test_bad_values_are_named(streets, base, changes, text):
    with pytest.raises(ValueError, match=text):
        recipe(streets, base, **changes)


def test_a_source_is_needed(tmp_path, base):
    plan = recipe("", base)
    with pytest.raises(ValueError, match="images/ and labels/.*source=''"):
        recipes.train(plan, tmp_path / "run", verbose=0)
