"""Recipes of GANs: a run's folder, and runs that survive being killed."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest

from kanets import checkpoints, cli, data, recipes, zoo
from kanets.data import Batches, Steps
from kanets.data.batches import ArrayPictures
from kanets.train.augment import Mirror
from kanets.visualize.sheets import captioned
from tests.photos import write_photos
from tests.test_dashboards import images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 9, 2, (32, 32), "png")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A classifier whose features measure the pictures."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(16)(inputs)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
    x = keras.layers.Dense(2, activation="softmax")(x)
    folder = tmp_path_factory.mktemp("judge") / "model"
    return zoo.save_model(keras.Model(inputs, x), folder, ["a", "b"])


def recipe(photos, **changes):
    fields = {
        "gan": {"width": 2, "latent_size": 8, "num_heads": 2},
        "epochs": 2,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "data": {"source": str(photos / "train"), "validation": 0.0},
        **changes,
    }
    return recipes.from_dict(fields)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(photos, judge, tmp_path, capsys):
    measure = {"extractor": str(judge), "pictures": 16, "every": 2}
    plan = recipe(photos, measure=measure)
    folder = tmp_path / "run"
    stopped = []

    class Stop(Exception):
        pass

    def stop(_):
        if stopped:
            return None

        def leave(epoch, logs):
            if epoch == 1:
                stopped.append(epoch)
                raise Stop

        return keras.callbacks.LambdaCallback(on_epoch_end=leave)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes.gan, "tensorboard", stop)
        with pytest.raises(Stop):
            recipes.train(plan, folder, verbose=0)
    assert not (folder / "result.json").exists()
    result = recipes.train(plan, folder)
    assert "Resuming" in capsys.readouterr().out
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["frechet_distance"] == ""  # measured every second epoch
    assert float(rows[1]["frechet_distance"]) == pytest.approx(
        result["frechet_distance"], rel=1e-4
    )
    assert json.loads((folder / "result.json").read_text()) == result
    # It ends as if it had not been stopped.
    whole = recipes.train(plan, tmp_path / "whole", verbose=0)
    for name in ("generator_loss", "discriminator_loss", "frechet_distance"):
        assert result[name] == pytest.approx(whole[name], rel=1e-2), name
    assert recipes.read(folder / "recipe.toml") == plan
    samples = sorted(path.name for path in (folder / "samples").iterdir())
    assert samples == ["epoch_0001.png", "epoch_0002.png"]
    # A line of class names above each column.
    sheet = captioned(np.zeros((64, 32, 32, 3)), 8, ["class"] * 8)
    drawn = keras.utils.load_img(folder / "samples" / samples[0])
    assert np.shape(drawn) == sheet.shape
    assert images(folder) == {"samples": [0, 1]}
    # Started a third time it is complete, and says so.
    assert recipes.train(plan, folder) == result
    assert "is complete: 2 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another recipe.*batch_size is 4"):
        recipes.train(recipe(photos, batch_size=5), folder, verbose=0)
    # Both networks load, and the command line draws with them.
    for name, shape in (
        ("generator", (None, 32, 32, 3)),
        ("discriminator", (None, 1)),
    ):
        assert zoo.load_model(folder / name).output_shape == shape
    model = zoo.load_model(folder)
    assert model.class_names == ("blue", "red")
    # With more epochs it would go on, with fewer it is another recipe.
    longer = dataclasses.replace(plan, epochs=3)
    recipes.gan.claim(longer, folder, scheduled=False)
    assert recipes.read(folder / "recipe.toml") == longer
    assert not (folder / "result.json").exists()
    assert len(checkpoints.read_progress(folder)[0]) == 2
    with pytest.raises(ValueError, match="another recipe.*epochs is 3, not 2"):
        recipes.train(plan, folder, verbose=0)
    picture = tmp_path / "grid.png"
    command = ["generate", str(folder), "--to", str(picture), "--count", "4"]
    assert cli.main([*command, "--columns", "2"]) == 0
    assert keras.utils.load_img(picture).size == (66, 66)


@pytest.mark.parametrize("name", ["generator_loss", "discriminator_loss"])
def test_a_gan_that_diverges_is_stopped(tmp_path, name):
    networks = recipes.gan._Networks(tmp_path, None, ["a"])
    networks.set_params({"epochs": 3})
    networks.on_epoch_begin(1)
    networks.on_train_batch_end(0, {name: 1.0, "real_logit": 0.5})
    with pytest.raises(FloatingPointError, match=f"epoch 2 of 3.*{name}=-inf"):
        networks.on_train_batch_end(1, {name: -np.inf, "real_logit": 0.5})


def test_toml_round_trip(photos, tmp_path):
    plan = recipe(
        photos,
        gan={"attention": "none", "conditional": False},
        optimize={"beta_1": 0.5, "discriminator_steps": 2},
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan), encoding="utf-8")
    assert recipes.read(path) == plan
    gan = recipes.gan._build(plan, recipes.gan._load(plan))
    assert gan.attention is None and gan.num_classes is None
    assert gan.discriminator_steps == 2
    assert float(gan.generator_optimizer.beta_1) == 0.5


def test_a_section_keeps_what_is_not_said(photos):
    plan = recipe(photos, data={"source": "here"})
    assert plan.data == recipes.Data("here", validation=0.0) != recipes.Data()
    assert recipes.Data("here").validation == 0.1


@pytest.mark.parametrize(
    "changes, message",
    (
        ({"gan": "small"}, "gan='small'"),
        ({"gan": {"image_size": 32}}, r"gan=\{'image_size': 32\}"),
        ({"gan": {"latent": 8}}, r"\(nearest: latent_size\). .*gan=\{'latent'"),
        ({"epochs": 0}, "epochs=0"),
        ({"steps_per_epoch": -1}, "steps_per_epoch=-1"),
        ({"optimize": {"average": 1.0}}, "average=1.0"),
        ({"optimize": {"generator_learning_rate": 0}}, "learning_rate=0"),
        ({"optimize": {"momentum": 0.9}}, r"\['momentum'\]"),
        ({"measure": {"pictures": 1}}, "pictures=1"),
        ({"augment": {}}, r"\['augment'\]"),
        ({"precision": "float8"}, "precision='float8'"),
    ),
)
def test_errors_name_the_value(photos, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(photos, **changes)


def test_sizes_are_checked_before_training(photos, tmp_path):
    plan = recipe(
        photos,
        data={"source": str(photos / "train"), "image_size": [32, 48]},
    )
    with pytest.raises(ValueError, match=r"image_size=\(32, 48\)"):
        recipes.train(plan, tmp_path / "run", verbose=0)
    with pytest.raises(ValueError, match="source=''"):
        recipes.train(recipe(photos, data={}), tmp_path / "x", verbose=0)


def numbered(count, batch_size):
    pixels = np.zeros((count, 2, 2, 3), "uint8")
    pixels[:] = np.arange(count)[:, None, None, None]
    return Batches(
        ArrayPictures(pixels),
        np.arange(count),
        np.arange(count),
        batch_size=batch_size,
        class_names=["number"],
        shuffle=True,
        seed=3,
    )


def test_steps_go_through_all_pictures_and_repeat_by_epoch():
    steps = Steps(numbered(6, 2), 4)  # three batches in a pass
    assert len(steps) == 4
    seen = []
    for _ in range(3):
        seen += [steps[index][1].tolist() for index in range(4)]
        steps.on_epoch_end()
    for start in (0, 3, 6, 9):
        labels = sum(seen[start : start + 3], [])
        assert sorted(labels) == list(range(6))
    assert len({str(seen[start : start + 3]) for start in (0, 3, 6)}) == 3
    again = Steps(numbered(6, 2), 4)
    again.epoch = 2
    assert [again[i][1].tolist() for i in range(4)] == seen[8:]


def test_mirror():
    mirror = Mirror()
    images = np.arange(40 * 4 * 3).reshape(40, 1, 4, 3).astype("float32")
    mirror.reseed(5)
    first, labels = mirror(images, np.arange(40))
    mirror.reseed(5)
    np.testing.assert_array_equal(mirror(images, labels)[0], first)
    np.testing.assert_array_equal(labels, np.arange(40))
    turned = [
        np.array_equal(a, b[:, ::-1])
        for a, b in zip(first, images, strict=True)
    ]
    kept = [np.array_equal(a, b) for a, b in zip(first, images, strict=True)]
    assert np.all(np.logical_xor(turned, kept))
    assert 10 < sum(turned) < 30


def test_too_large_for_memory(photos, monkeypatch):
    class Stream:
        class_names, image_size = ["a"], (32, 32)

    monkeypatch.setattr(data, "gathered", lambda *_, **__: Stream())
    with pytest.raises(ValueError, match="must fit in memory"):
        recipes.gan._load(recipe(photos))
