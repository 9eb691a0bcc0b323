"""What a fine-tune chooses by itself, and what it says of it."""

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import recipes, zoo
from kanets.data.survey import survey
from kanets.train.recipes import finetune
from tests.photos import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 pictures to train on, of 9 x 11."""
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 12, 6, (9, 11), "png")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A classifier of 224 x 224 pixels."""
    x = inputs = keras.Input((224, 224, 3))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, activation="softmax", name="predictions")(x)
    folder = tmp_path_factory.mktemp("large") / "model"
    return zoo.save_model(keras.Model(inputs, x), folder, ["cat", "dog"])


def choose(*arguments, **options):
    said = []
    recipe = recipes.finetune_recipe(*arguments, say=said.append, **options)
    return recipe, "\n".join(said)


def test_a_survey_reads_headers_alone(photos, tmp_path):
    assert survey(photos) == (24, 9)
    folder = tmp_path / "photos"
    for name, sides in (("a", (40, 60)), ("b", (50, 90, 0))):
        (folder / name).mkdir(parents=True)
        for side in sides:
            path = folder / name / f"{side}.png"
            if side:
                Image.new("RGB", (side, 100)).save(path)
            else:
                path.write_bytes(b"no picture")
    assert survey(str(folder)) == (5, 55)
    with pytest.raises(ValueError, match="'nowhere'"):
        survey("nowhere")


def test_small_pictures_are_not_made_large(large, photos):
    recipe, said = choose(large, photos)
    assert recipe.data.image_size == (96, 96)
    assert "Pictures of 96 x 96, as they have 9." in said
    assert recipe.augment.crop == 9


class Builder:
    """As TFDS's, of 60,000 pictures of 28 x 28."""

    class info:  # noqa: N801
        supervised_keys = ("image", "label")
        features = {"image": np.zeros((28, 28, 1))}
        splits = {"train": type("Split", (), {"num_examples": 60_000})}


def test_a_survey_of_tensorflow_datasets(monkeypatch):
    monkeypatch.setattr("kanets.data.tfds.find_builder", lambda name: Builder)
    assert survey("tfds:mnist") == (60_000, 28)
    monkeypatch.setitem(
        Builder.info.features,
        "image",
        type("Image", (), {"shape": (None, None, 3)}),
    )
    assert survey("mnist") == (60_000, None)


@pytest.mark.parametrize(
    ("count", "side", "size", "why"),
    [
        (24, 60, 128, "as they have 60"),
        (24, 300, 224, "as the model was trained"),
        (2_500, 300, 160, "as there is no accelerator"),
        (2_500, None, 160, "as there is no accelerator"),
    ],
)
def test_the_size_follows_the_pictures(
    large, photos, monkeypatch, count, side, size, why
):
    monkeypatch.setattr(finetune, "survey", lambda source: (count, side))
    recipe, said = choose(large, photos)
    assert recipe.data.image_size == (size, size)
    assert f"Pictures of {size} x {size}, {why}." in said


def test_an_accelerator_takes_the_models_size(large, photos, monkeypatch):
    monkeypatch.setattr(finetune, "survey", lambda source: (24, 300))
    monkeypatch.setattr(finetune, "accelerators", lambda: ["gpu:0"])
    recipe, said = choose(large, photos)
    assert recipe.data.image_size == (224, 224)
    assert recipe.precision == "mixed_bfloat16"
    assert "mixed_bfloat16, as there is an accelerator." in said
    assert choose(large, photos, precision="float32")[0].precision == "float32"


@pytest.mark.parametrize(
    ("pictures", "epochs"), [(24, 20), (2_500, 8), (50_000, 3)]
)
def test_epochs_follow_the_number_of_pictures(
    large, photos, monkeypatch, pictures, epochs
):
    monkeypatch.setattr(finetune, "survey", lambda source: (pictures, 300))
    recipe, said = choose(large, photos)
    assert recipe.epochs == epochs
    assert f"{epochs} epochs of {pictures:,} pictures: " in said
    assert recipe.patience == max(3, epochs // 3)
    few = pictures < 5_000
    assert recipe.finetune.freeze_norm is few
    assert recipe.optimize.learning_rate == (3e-4 if few else 1e-3)
    assert recipe.optimize.warmup_epochs == (epochs / 5 if few else 1)
    assert ("Batch norm stays as it was trained" in said) is few


def test_the_last_quarter_of_the_epochs_is_of_8_bits(large, photos):
    for epochs, first in ((8, 7), (3, 3), (1, 1)):
        recipe, said = choose(large, photos, epochs=epochs, int8=True)
        assert recipe.quantize.from_epoch == first
        count = epochs - first + 1
        assert f"The last {count} of {epochs} epochs train for 8 bits." in said
    assert choose(large, photos)[0].quantize.from_epoch == 0


def test_segmenters_are_not_for_8_bits(tmp_path):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 1, activation="softmax", name="predictions")(x)
    folder = zoo.save_model(keras.Model(inputs, x), tmp_path / "m", ["a", "b"])
    with pytest.raises(ValueError, match="`int8` is for .*int8=True for .*, a"):
        choose(folder, tmp_path, int8=True)


def test_what_is_given_is_not_chosen(large, photos):
    recipe, said = choose(
        large,
        photos,
        epochs=2,
        frozen_epochs=3,
        image_size=(32, 48),
        learning_rate=0.5,
        layer_decay=0.5,
        batch_size=4,
    )
    assert said.startswith("Batch norm stays") and "\n" not in said
    assert (recipe.epochs, recipe.batch_size) == (2, 4)
    assert recipe.data.image_size == (32, 48)
    assert recipe.optimize.learning_rate == 0.5
    assert recipe.finetune.frozen_epochs == 2
    assert recipe.finetune.layer_decay == 0.5
    assert recipe.finetune.fit_head is True
    with pytest.raises(ValueError, match="learning_rate=0"):
        choose(large, photos, learning_rate=0)


def test_a_model_of_small_pictures_keeps_its_size(photos, tmp_path):
    x = inputs = keras.Input((9, 11, 3))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(2, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs, x)
    model.get_layer("predictions").set_weights(
        [np.zeros((297, 2), "float32"), np.zeros(2, "float32")]
    )
    folder = zoo.save_model(model, tmp_path / "model", ["blue", "red"])
    recipe, said = choose(folder, photos)
    assert recipe.data.image_size == (9, 11) and "Pictures of" not in said
