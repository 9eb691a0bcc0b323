"""The GANs' commands: what they write, read, and refuse."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

import ylg.official
from kanets import cli, zoo
from kanets.cli.invert import find_discriminator, one_label
from kanets.zoo.gans import load_network, read_labels
from tests.ylg.test_inversion import LATENT, small_networks
from ylg.gan import picture_grid, spherical, to_pixels

NAMES = ("cat", "dog", "2", "red fox")


@pytest.fixture(scope="module")
def networks():
    return small_networks(len(NAMES))


@pytest.fixture(scope="module")
def run(networks, tmp_path_factory):
    """A GAN run's folder, as `kanets train` leaves it."""
    folder = tmp_path_factory.mktemp("gan") / "run"
    for name, network in zip(
        ("generator", "discriminator"), networks, strict=True
    ):
        zoo.save_model(network, folder / name, NAMES)
    return folder


@pytest.fixture(scope="module")
def plain():
    """A generator without classes."""
    return small_networks(None)[0]


def kanets(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def latents(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, LATENT))


def draw(model, z, labels):
    inputs = [np.float32(z), np.asarray(labels, "int32")]
    return model.predict(inputs, verbose=0)


def close(pixels, expected):
    return np.abs(pixels.astype(int) - expected).max() <= 1


def panel(sheet, row, column, captioned_rows):
    """What is drawn at a place of a sheet: pixels, and the line above them."""
    line = 18 * (row in captioned_rows)
    above = 6 + sum(66 + 18 * (n in captioned_rows) for n in range(row))
    left = 6 + 106 * column
    pixels = sheet[above + line :, left:][:60, :100]
    squares = pixels.reshape(6, 10, 10, 10, 3).transpose(0, 2, 1, 3, 4)
    assert not np.ptp(squares, (2, 3)).any(), "of one colour each"
    return squares[:, :, 0, 0], sheet[above:, left:][:line, :100]


def test_a_sheet_names_the_classes(run, networks, tmp_path, capsys):
    path = tmp_path / "new" / "samples.png"
    kanets("generate", run, "--to", path, "--count", 6, "--columns", 4)
    assert "6 pictures, 430 x 156 pixels" in capsys.readouterr().out
    expected = to_pixels(draw(networks[0], latents(6), [0, 1, 2, 3, 0, 1]))
    sheet, names = read(path), {}
    for place, picture in enumerate(expected):
        row, column = divmod(place, 4)
        pixels, above = panel(sheet, row, column, [0])
        assert close(pixels, picture)
        assert row or above.min() < 100, "written"
        names[row, column] = above.tobytes()
    assert len({names[0, column] for column in range(4)}) == 4

    # Not a class to each column: all are named.
    options = ["--count", 3, "--columns", 2, "--labels", "red fox, cat, 0"]
    kanets("generate", run, "--to", path, *options, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == {"picture": str(path), "count": 3, "size": [218, 174]}
    sheet = read(path)
    _, first = panel(sheet, 0, 0, [0, 1])
    _, second = panel(sheet, 0, 1, [0, 1])
    pixels, third = panel(sheet, 1, 0, [0, 1])
    expected = to_pixels(draw(networks[0], latents(3), [3, 0, 0]))
    assert close(pixels, expected[2])
    assert second.tobytes() == third.tobytes() == names[0, 0]
    assert first.tobytes() == names[0, 3]

    kanets("interpolate", run, "--to", path, "--rows", 2, "--steps", 2)
    sheet = read(path)
    for row in range(2):
        _, name = panel(sheet, row, 0, [0, 1])
        assert name.tobytes() == names[0, row]
        assert panel(sheet, row, 1, [0, 1])[1].min() == 255


@pytest.fixture(scope="module")
def nameless(networks, tmp_path_factory):
    """The run's generator, whose classes have no names."""
    folder = tmp_path_factory.mktemp("nameless") / "generator"
    return zoo.save_model(networks[0], folder)


def test_generate(nameless, networks, tmp_path, capsys):
    run, path = nameless, tmp_path / "new" / "samples.png"
    kanets("generate", run, "--to", path, "--count", 6, "--columns", 4)
    expected = draw(networks[0], latents(6), [0, 1, 2, 3, 0, 1])
    assert close(read(path), picture_grid(expected, 4))
    assert "6 pictures, 46 x 14 pixels" in capsys.readouterr().out
    options = ["--count", 3, "--labels", "3, 0", "--seed", 7, "--json"]
    kanets("generate", run, "--to", path, *options)
    found = json.loads(capsys.readouterr().out)
    assert found == {"picture": str(path), "count": 3, "size": [34, 6]}
    expected = draw(networks[0], latents(3, 7), [3, 0, 3])
    assert close(read(path), picture_grid(expected, 3))


def test_interpolate(nameless, networks, tmp_path, capsys):
    run, path = nameless, tmp_path / "ways.png"
    kanets("interpolate", run, "--to", path, "--rows", 2, "--steps", 3)
    assert "2 ways of 3 pictures, 34 x 14" in capsys.readouterr().out
    ends = latents(4)
    z = [*spherical(ends[0], ends[1], 3), *spherical(ends[2], ends[3], 3)]
    expected = draw(networks[0], z, [0, 0, 0, 1, 1, 1])
    assert close(read(path), picture_grid(expected, 3))
    options = ["--rows", 1, "--steps", 2, "--label", "1"]
    kanets("interpolate", run, "--to", path, *options)
    expected = draw(networks[0], ends[:2], [1, 1])
    assert close(read(path), picture_grid(expected, 2))


def test_invert(run, networks, tmp_path, capsys):
    target = to_pixels(draw(networks[0], latents(1, 50), [1]))[0]
    wide = np.pad(target, ((0, 0), (4, 4), (0, 0)))  # cropped away again
    Image.fromarray(wide).save(tmp_path / "dog.png")
    to = tmp_path / "out"
    options = ["--label", "dog", "--starts", 2, "--steps", 3, "--to", to]
    kanets("invert", run, tmp_path / "dog.png", *options)
    assert sorted(path.name for path in to.iterdir()) == [
        "inversion.png",
        "latents.npy",
        "losses.csv",
        "reconstruction_1.png",
        "reconstruction_2.png",
        "saliency.png",
        "target.png",
    ]
    np.testing.assert_array_equal(read(to / "target.png"), target)
    z = np.load(to / "latents.npy")
    image = to_pixels(draw(networks[0], z, [1, 1]))
    assert close(read(to / "reconstruction_1.png"), image[0])
    assert close(read(to / "reconstruction_2.png"), image[1])
    with (to / "losses.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "reconstruction_1", "reconstruction_2"]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    best = [min(float(row[i]) for row in rows) for i in (1, 2)]
    assert 0 < best[0] <= best[1]
    assert f"-> {best[0]:.4g}; target.png" in capsys.readouterr().out


def test_where_the_discriminator_is(run, tmp_path):
    def load(*arguments):
        source = find_discriminator(*map(str, arguments))
        return load_network(source, "discriminator").name

    alone = tmp_path / "alone"
    alone.symlink_to(run / "generator")
    assert load(run) == load(run / "generator") == "discriminator"
    assert load(alone, run) == load(alone, run / "discriminator")
    with pytest.raises(ValueError, match="give --discriminator.*alone"):
        load(alone)


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_a_name_of_the_zoo_is_the_entry(role, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sagan_cifar10").symlink_to(run)
    here = load_network(run, role)
    found = load_network("sagan_cifar10", role)
    assert found.count_params() != here.count_params()


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_official_checkpoint(role, tmp_path, monkeypatch):
    (tmp_path / "model.ckpt-90.index").touch()
    monkeypatch.setattr(
        ylg.official, f"load_{role}", lambda path: (role, str(path))
    )
    for path in (tmp_path, tmp_path / "model.ckpt-90"):
        assert load_network(path, role) == (role, str(path))


def test_load_network_errors(run, tmp_path):
    (tmp_path / "log.csv").touch()
    with pytest.raises(ValueError, match=r"generator/ in it.*\['log.csv'\]"):
        load_network(tmp_path, "generator")
    with pytest.raises(ValueError, match="No such model folder.*'nothing'"):
        load_network("nothing", "generator")
    with pytest.raises(ValueError, match="must be a generator.*discriminator'"):
        load_network(run / "discriminator", "generator")
    with pytest.raises(ValueError, match="must be a discriminator.*generator'"):
        load_network(run / "generator", "discriminator")


def test_labels(run, plain):
    model = load_network(run, "generator")
    assert read_labels(None, model) == [0, 1, 2, 3]
    assert read_labels("dog", model) == [1]
    assert read_labels("3,cat , 2,1,red fox", model) == [3, 0, 2, 1, 3]
    for text in ("4", "-1", "Dog", "1,,2", "²"):
        with pytest.raises(ValueError, match=r"cat, dog, 2, red.*0\.\.3"):
            read_labels(text, model)
    with pytest.raises(ValueError, match="Received: 'wolf'"):
        read_labels("cat,wolf", model)
    assert read_labels(None, plain) is None
    with pytest.raises(ValueError, match="no classes.*Received: '0'"):
        read_labels("0", plain)


def test_a_number_is_a_name_first(networks):
    model = networks[0]
    model.class_names = ("3", "2", "1", "0")
    assert read_labels("0,1", model) == [3, 2]
    del model.class_names
    assert read_labels("0,1", model) == [0, 1]
    with pytest.raises(ValueError, match=r"be a number in 0\.\.3.*'cat'"):
        read_labels("cat", model)


def test_label_of_an_inversion(run, plain):
    model = load_network(run, "generator")
    assert one_label("dog", model) == 1
    assert one_label(None, plain) is None
    for text in (None, "cat,dog"):
        with pytest.raises(ValueError, match=f"give --label.*fox.*{text}"):
            one_label(text, model)


def test_without_classes(plain, tmp_path):
    zoo.save_model(plain, tmp_path / "generator")
    kanets("generate", tmp_path, "--to", tmp_path / "a.png", "--count", 1)
    assert read(tmp_path / "a.png").shape == (6, 10, 3)
    way = ("--rows", 1, "--steps", 2)
    kanets("interpolate", tmp_path, "--to", tmp_path / "b.png", *way)
    assert read(tmp_path / "b.png").shape == (6, 22, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("generate", "--count", 0), "--count must be 1 or more.*0"),
        (("generate", "--columns", -1), "--columns must be 1 or more.*-1"),
        (("generate", "--to", "samples.txt"), "--to must be.*'samples.txt'"),
        (("interpolate", "--rows", 0), "--rows must be 1 or more.*0"),
        (("interpolate", "--steps", 1), "--steps must be 2 or more.*1"),
        (("interpolate", "--to", "way"), "--to must be.*'way'"),
        (("invert", "no.png", "--starts", 0), "--starts must be 1 or more.*0"),
        (("invert", "no.png", "--steps", 0), "--steps must be 1 or more.*0"),
        (("invert", "no.png"), "cannot be read.*'no.png'"),
    ],
)
def test_errors(arguments, message, capsys):
    name, *rest = map(str, arguments)
    to = () if "--to" in rest else ("--to", "samples.png")
    assert cli.main([name, "nothing", *rest, *to]) == 1
    assert re.search(f"kanets: error: .*{message}", capsys.readouterr().err)
