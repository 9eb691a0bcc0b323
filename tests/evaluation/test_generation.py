"""Distances of a generator's pictures, and of its SavedModel's."""

import keras
import numpy as np
import pytest

import ylg
from kanets import cli, data, evaluation, zoo
from kanets.evaluation.generation import load_extractor
from tests.backends import BACKEND
from tests.photos import write_photos

FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 2, 12, (32, 32), "png")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, activation="softmax")(x)
    folder = tmp_path_factory.mktemp("judge") / "model"
    return zoo.save_model(keras.Model(inputs, x), folder, ["a", "b"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(2, id="classes"),
        pytest.param(None, id="plain", marks=pytest.mark.thorough),
    ],
)
def generator(request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = ylg.gan.generator(
        32, width=2, num_classes=request.param, latent_size=8, num_heads=2
    )
    names = ["blue", "red"] if request.param else None
    folder = tmp_path_factory.mktemp("generator") / "model"
    return zoo.save_model(model, folder, names)


@pytest.mark.thorough
def test_latents_and_classes(generator):
    model = zoo.load_model(generator)
    z = ylg.gan.latents(8, 5, seed=3)
    assert z.shape == (5, 8) and z.dtype == np.float32
    assert abs(ylg.gan.latents(50, 400).mean()) < 0.02
    pictures = ylg.gan.draw(model, z)
    assert pictures.shape == (5, 32, 32, 3)
    if ylg.gan.num_classes(model) is None:
        assert len(model.inputs) == 1
        return
    assert ylg.gan.num_classes(model) == 2
    in_turn = ylg.gan.draw(model, z, [0, 1, 0, 1, 0])
    np.testing.assert_allclose(pictures, in_turn, atol=1e-6)


def test_evaluates(generator, photos, judge, capsys):
    options = {"extractor": str(judge)}
    result = evaluation.evaluate(generator, photos, **options)
    assert result["pictures"] == 24
    model = zoo.load_model(generator)
    fake = ylg.gan.draw(model, ylg.gan.latents(8, 24))
    real = np.concatenate([x for x, _ in data.load_test(photos)])
    expected = ylg.metrics.evaluate(
        real,
        fake,
        ylg.metrics.classifier_features(zoo.load_model(judge)),
        real_range=(0, 255),
    )
    for name in FIGURES:
        assert result[name] == pytest.approx(expected[name], rel=1e-4)
    command = ["evaluate", str(generator), "--data", str(photos)]
    assert cli.main([*command, "--extractor", str(judge)]) == 0
    printed = capsys.readouterr().out
    distance = f"Frechet distance {result['frechet_distance']:.2f}"
    assert distance in printed and "24 pictures" in printed


@pytest.mark.thorough
def test_statistics_of_the_real_pictures_are_kept(
    generator, photos, judge, tmp_path, capsys
):
    kept = tmp_path / "real.npz"
    command = ["evaluate", str(generator), "--data", str(photos)]
    command += ["--extractor", str(judge), "--statistics", str(kept)]
    assert cli.main(command) == 0
    first = capsys.readouterr().out
    written = kept.read_bytes()
    assert cli.main(command) == 0
    assert capsys.readouterr().out == first and kept.read_bytes() == written
    assert "(24 pictures, features of" in first and "kernel" not in first
    write_photos(tmp_path / "more", 2, 13, (32, 32), "png")
    command[3] = str(tmp_path / "more")
    assert cli.main(command) == 1
    assert "must be of count 26" in capsys.readouterr().err


def test_a_file_of_weights_is_the_inception_of_2015(monkeypatch):
    asked = []
    monkeypatch.setattr(
        ylg.metrics, "inception_2015", lambda *a, **k: asked.append((a, k))
    )
    load_extractor("weights.pth")
    load_extractor("graph.pb", "legacy_pytorch")
    assert asked == [
        (("weights.pth",), {}),
        (("graph.pb",), {"resize": "legacy_pytorch"}),
    ]
    with pytest.raises(
        ValueError, match="for the Inception of 2015.*extractor='inception_v3'"
    ):
        load_extractor("inception_v3", "clean")


@pytest.mark.thorough
@pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting is TensorFlow's")
def test_the_savedmodel_draws_the_same(generator, photos, judge, tmp_path):
    bundle = tmp_path / "served"
    assert cli.main(["export", str(generator), "--to", str(bundle)]) == 0
    options = {"extractor": str(judge), "batch_size": 9}
    expected = evaluation.evaluate(generator, photos, **options)
    actual = evaluation.evaluate(bundle, photos, **options)
    for name in FIGURES:
        assert actual[name] == pytest.approx(expected[name], rel=1e-3)


def test_misuse_is_named(generator, photos):
    with pytest.raises(
        ValueError, match="says nothing of pictures.*a generator$"
    ):
        evaluation.predict(generator, [photos])


def test_a_discriminator_has_no_figure(tmp_path, photos):
    inputs = [keras.Input((32, 32, 3)), keras.Input((), dtype="int32")]
    x = keras.layers.GlobalAveragePooling2D()(inputs[0])
    x = keras.layers.Dense(1)(x) + keras.ops.cast(inputs[1], "float32")[:, None]
    folder = zoo.save_model(keras.Model(inputs, x), tmp_path / "judge")
    with pytest.raises(ValueError, match="must take pictures.*judge"):
        evaluation.evaluate(folder, photos)
