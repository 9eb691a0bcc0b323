"""timm's repositories as models: how they see, what they tell, what is made."""

import dataclasses
import io
import json
import tomllib

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import cli, evaluation, recipes, zoo
from kanets.data.framing import picture_size
from kanets.data.pictures import read_picture
from kanets.evaluation.verify import verify
from tests.backends import needs_tensorflow, to_numpy
from tests.photos import write_photos
from tests.zoo import tiny_timm


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_timm.install(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_timm.write(tmp_path_factory.mktemp("timm") / "tiny")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A JPEG of 75 x 50 with a gradient and noise."""
    pixels = np.mgrid[0:75, 0:50].sum(0)[..., None] * [2.0, 1.0, 0.5]
    pixels += np.random.default_rng(0).normal(0, 20, pixels.shape)
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    pixels = np.clip(pixels, 0, 255).astype("uint8")
    Image.fromarray(pixels).save(path, quality=95)
    return path


def timms(photo):
    """What timm's evaluation makes of a file: torchvision's arithmetic."""
    image = Image.fromarray(read_picture(photo))
    image = image.resize((40, 60), Image.Resampling.BICUBIC)  # 32 / 0.8
    pixels = np.asarray(image)[14:46, 4:36] / 255  # the centre of 60 and 40
    config = tiny_timm.CONFIG["pretrained_cfg"]
    return (pixels - config["mean"]) / config["std"]


def probabilities(scaled):
    """The net, by hand, of scaled pixels (32, 32, 3)."""
    t = tiny_timm.TENSORS
    patches = scaled.reshape(8, 4, 8, 4, 3)
    maps = np.einsum("yixjc,ocij->yxo", patches, t["stem.weight"])
    maps = (maps - t["bn.running_mean"]) / np.sqrt(t["bn.running_var"] + 1e-3)
    maps = maps * t["bn.weight"] + t["bn.bias"]
    logits = t["head.weight"] @ maps.mean((0, 1)) + t["head.bias"]
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def test_it_sees_as_timm_does_and_names_classes(folder, photo, capsys):
    model = kanets.load_model(folder)
    assert model.class_names[0] == "tench" and len(model.class_names) == 1000
    size = picture_size(model)
    assert size == (32, 32)
    assert (size.crop, size.interpolation) == (0.8, "bicubic")
    [(_, found)] = evaluation.predict(folder, [photo], top_k=1000)
    expected = probabilities(timms(photo))
    best = np.argsort(-expected)[:3]
    assert [n for n, _ in found[:3]] == [model.class_names[i] for i in best]
    found = dict(found)
    scores = [found[name] for name in model.class_names]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    error = capsys.readouterr().err
    assert "32x32, bicubic, the centre 80.0% of the side; licence: mit" in error
    assert zoo.saved_class_names(folder) == model.class_names


def test_how_it_sees_is_saved(folder, tmp_path):
    model = kanets.create_model(folder)
    kanets.save_model(model, tmp_path / "saved")
    model.save(tmp_path / "model.keras")
    others = (
        kanets.load_model(tmp_path / "saved"),
        kanets.create_model(
            "tiny", weights=tmp_path / "model.keras", input_shape=(64, 48, 3)
        ),
    )
    for other, expected in zip(others, [(32, 32), (64, 48)], strict=True):
        size = picture_size(other)
        assert size == expected and size.crop == 0.8
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    found = to_numpy(others[0](pixels.astype("float32")))
    scaled = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    np.testing.assert_allclose(found[0], probabilities(scaled[0]), atol=1e-5)


def test_a_new_head_sees_whole_pictures(folder):
    """As `fit()` shows them to it."""
    model = kanets.create_model(folder, num_classes=3)
    assert model.output_shape == (None, 3)
    assert not hasattr(picture_size(model), "crop")
    assert getattr(model, "class_names", None) is None
    scale = model.get_layer("preprocessing")
    np.testing.assert_allclose(scale.scale, np.array([2, 4, 5]) / 255)


def test_without_its_weights(folder):
    model = kanets.create_model(folder, pretrained=False, num_classes=4)
    assert model.name == "tiny" and model.output_shape == (None, 4)


@needs_tensorflow
@pytest.mark.thorough
def test_exports_see_as_timm_does(folder, photo, tmp_path):
    model = kanets.load_model(folder)
    expected = probabilities(timms(photo))
    saved = kanets.export_savedmodel(model, tmp_path / "served")
    _, _, found = kanets.load_savedmodel(saved)([photo.read_bytes()])
    np.testing.assert_allclose(found[0], expected, atol=2e-3)  # one level
    png = io.BytesIO()
    Image.fromarray(read_picture(photo)).save(png, "PNG")
    (tmp_path / "photo.png").write_bytes(png.getvalue())
    pytest.importorskip("ai_edge_litert")
    lite = kanets.export.export_litert(model, tmp_path / "lite")
    told = json.loads((lite / "preprocessing.json").read_text())
    assert told == {
        "image_size": [32, 32],
        "crop": 0.8,
        "interpolation": "bicubic",
    }
    [(_, found)] = evaluation.predict(lite, [photo], top_k=1000)
    found = [dict(found)[name] for name in model.class_names]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    same = verify(lite, model, photo)
    assert same["greatest_difference"] < 1e-5
    (lite / "preprocessing.json").write_text("{}")
    with pytest.raises(ValueError, match="crop and interpolation.*preproc"):
        evaluation.predict(lite, [photo])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "resnet50"}, "list --hub.*architecture='resnet50'"),
        ({"architecture": ""}, "list --hub.*architecture=''"),
        ({"pretrained_cfg": {}}, "must have mean, std and input_size"),
        (
            {
                "pretrained_cfg": {
                    **tiny_timm.CONFIG["pretrained_cfg"],
                    "crop_mode": "squash",
                }
            },
            "crop_mode='squash'",
        ),
        (
            {
                "pretrained_cfg": {
                    **tiny_timm.CONFIG["pretrained_cfg"],
                    "interpolation": "lanczos",
                }
            },
            "interpolation='lanczos'",
        ),
    ],
)
def test_repositories_that_are_of_no_use(tmp_path, changes, said):
    folder = tiny_timm.write(tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=said):
        kanets.load_model(folder)


def test_a_file_alone_does_not_tell_its_net(folder, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="weights=.*with no config.json"):
        kanets.load_model(file)
    model = kanets.create_model("tiny", weights=file)
    assert getattr(model, "class_names", None) is None


def test_labels_of_a_repository(tmp_path):
    labels = [f"class {i}" for i in range(998)] + ["n01440764", "n01443537"]
    folder = tiny_timm.write(tmp_path / "tiny", label_names=labels)
    names = kanets.load_model(folder).class_names
    assert names[0] == "class 0" and names[-2:] == ("tench", "goldfish")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 8, 4, (40, 40), "png")


def test_finetune_from_timms_weights(folder, photos, tmp_path):
    """Closed attention, all of it in the recipe; and it goes on."""
    recipe = recipes.finetune_recipe(
        folder, photos, attention="kao_qkv", epochs=1, image_size=(32, 32)
    )
    recipe = dataclasses.replace(
        recipe, finetune=dataclasses.replace(recipe.finetune, fit_head=False)
    )
    run = tmp_path / "run"
    result = recipes.train(recipe, run, verbose=0)
    assert recipes.read(run / "recipe.toml") == recipe
    told = tomllib.loads((run / "recipe.toml").read_text())
    assert told["model"] == {"name": str(folder), "attention": "kao_qkv"}
    model = kanets.load_model(run)
    assert model.class_names == ("blue", "red")
    attends = model.get_layer("attention")
    assert isinstance(attends, kanets.attention.KroneckerAttention)
    assert not hasattr(picture_size(model), "crop")
    assert recipes.train(recipe, run, verbose=0) == result


@pytest.mark.thorough
def test_the_command_from_timms_weights(folder, photos, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["finetune", str(folder), "--data", str(photos), "--to", str(run)]
    command += ["--attention", "kao_qkv", "--epochs", "1"]
    command += ["--image-size", "32", "32"]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert recipes.read(run / "recipe.toml") == recipes.finetune_recipe(
        folder, photos, attention="kao_qkv", epochs=1, image_size=(32, 32)
    )
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "is complete: 1 of 1 epochs" in capsys.readouterr().out
    command[command.index("kao_qkv")] = "kao_qk"
    assert cli.main([*command[:-1], "48"]) == 1
    assert "kao_qkv" in capsys.readouterr().err


def test_a_recipe_takes_a_net_and_its_weights(folder, photos, tmp_path):
    recipe = recipes.from_dict(
        {
            "model": {"name": "tiny", "weights": str(folder)},
            "epochs": 1,
            "batch_size": 8,
            "data": {"source": str(photos), "image_size": [32, 32]},
            "optimize": {"learning_rate": 1e-9},
            "finetune": {"freeze_norm": True},
        }
    )
    recipes.train(recipe, tmp_path / "run", verbose=0)
    stem = kanets.load_model(tmp_path / "run").get_layer("stem").kernel
    expected = tiny_timm.TENSORS["stem.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(to_numpy(stem), expected, atol=1e-5)
    with pytest.raises(ValueError, match="nearest: attention.*'atention'"):
        recipes.from_dict({"model": {"name": "tiny", "atention": "kao_kv"}})


def test_attention_of_a_segmenter_is_refused(photos, tmp_path):
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Conv2D(2, 1, activation="softmax")(inputs)
    model = keras.Model(inputs, outputs)
    folder = kanets.save_model(model, tmp_path / "model", ["a", "b"])
    with pytest.raises(ValueError, match="attention='kao_kv'.*a segmenter"):
        recipes.finetune_recipe(folder, photos, attention="kao_kv")
