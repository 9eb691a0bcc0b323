"""Models over the wire: files, a hub and a mirror, all on 127.0.0.1."""

import hashlib
import shutil
import sys

import numpy as np
import pytest

import kanets
from kanets import zoo
from tests.zoo.common import (
    NAMES,
    make_entry,
    make_gan,
    make_model,
    make_plain,
    predict,
)


@pytest.fixture(scope="module")
def model():
    """Any model will do. Not to be changed by a test."""
    return make_plain()


def cached(tmp_path):
    home = tmp_path / "home" / "kanets"
    return sorted(path.name for path in home.iterdir())


def test_a_keras_file_of_a_url(server, model, tmp_path):
    model.save(server.root / "model.keras")
    digest = zoo.sha256(server.root / "model.keras")
    address = f"{server.url}/model.keras#sha256={digest.upper()}"
    loaded = kanets.load_model(address)
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    kanets.create_model(address, num_classes=2)
    assert server.paths == ["/model.keras"]
    assert cached(tmp_path) == [f"{digest[:16]}-model.keras"]


def test_a_zip_that_macos_made(server, folder, model, tmp_path):
    shutil.copytree(folder, tmp_path / "zip" / "insects")
    (tmp_path / "zip" / "__MACOSX" / "insects").mkdir(parents=True)
    (tmp_path / "zip" / "__MACOSX" / "insects" / "._labels.txt").write_text("")
    (tmp_path / "zip" / ".DS_Store").write_text("")
    file = shutil.make_archive(
        str(server.root / "insects"), "zip", tmp_path / "zip"
    )
    address = f"{server.url}/insects.zip#sha256={zoo.sha256(file)}"
    loaded = kanets.load_model(address)
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)


@pytest.mark.parametrize("inside", [".", "insects"])
def test_a_zip_of_a_url(server, folder, model, tmp_path, inside):
    root = folder if inside == "." else folder.parent
    file = shutil.make_archive(
        str(server.root / "insects"), "zip", root, inside
    )
    address = f"{server.url}/insects.zip#sha256={zoo.sha256(file)}"
    for _ in range(2):
        loaded = kanets.load_model(address)
        assert loaded.class_names == NAMES
        np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
        # What was extracted may be altered: it is extracted again.
        [labels] = (tmp_path / "home" / "kanets").rglob("labels.txt")
        labels.write_text("evil\n")
    assert server.paths == ["/insects.zip"]


def test_a_wrong_hash_is_refused_and_not_kept(server, tmp_path):
    (server.root / "model.keras").write_bytes(b"altered")
    digest = "0" * 64
    actual = hashlib.sha256(b"altered").hexdigest()
    address = f"{server.url}/model.keras#sha256={digest}"
    for _ in range(2):
        with pytest.raises(
            ValueError, match=f"sha256 {actual}, expected {digest}"
        ):
            kanets.load_model(address)
        assert cached(tmp_path) == []
    assert len(server.paths) == 2


def test_what_a_server_does_not_have(server):
    address = f"{server.url}/none.keras#sha256={'0' * 64}"
    with pytest.raises(ValueError, match="download failed.*none.keras.*404"):
        kanets.load_model(address)


def test_a_zip_that_is_none(server):
    (server.root / "model.zip").write_bytes(b"no zip")
    digest = hashlib.sha256(b"no zip").hexdigest()
    with pytest.raises(ValueError, match="no zip file .*model.zip"):
        kanets.load_model(f"{server.url}/model.zip#sha256={digest}")


@pytest.mark.parametrize(
    "tail",
    ["model.keras", "model.keras#sha256=12", f"model.h5#sha256={'0' * 64}"],
)
def test_a_url_names_its_hash_and_kind(server, tail):
    with pytest.raises(ValueError, match=f"<64 hex digits>.*{tail}'"):
        kanets.load_model(f"{server.url}/{tail}")
    assert server.paths == []


def publish(hub, model, name="insects"):
    folder = kanets.save_model(model, hub.root / "owner" / name, NAMES)
    make_entry(folder)
    (folder / "README.md").write_text("not needed")
    return folder


def test_a_repository_of_the_hub(hub, model):
    publish(hub, model)
    for address in ("hf://owner/insects", "hf://owner/insects@v1"):
        loaded = kanets.load_model(address)
        assert loaded.class_names == NAMES
        np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    asked = [path for path in hub.paths if path.endswith("model.weights.h5")]
    assert asked and not any("README" in path for path in hub.paths)


@pytest.mark.thorough
def test_an_entry_of_the_hub_takes_overrides(hub):
    """The repository's entry says what it was built with."""
    publish(hub, make_model())
    wide = kanets.create_model("hf://owner/insects", dropout_rate=0.5)
    assert wide.get_layer("dropout").rate == 0.5


def test_altered_weights_of_the_hub_are_refused(hub, model):
    folder = publish(hub, model)
    (folder / "model.weights.h5").write_bytes(b"altered")
    with pytest.raises(ValueError, match="do not match their checksum"):
        kanets.load_model("hf://owner/insects")


@pytest.mark.parametrize("address", ["owner/none", "owner/insects@v2"])
def test_what_the_hub_does_not_have(hub, model, address):
    publish(hub, model)
    with pytest.raises(
        ValueError, match=f"did not give this model.*hf://{address}"
    ) as caught:
        kanets.load_model(f"hf://{address}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["hf://owner", "hf://owner/name/part"])
def test_an_address_of_the_hub_has_two_parts(address):
    with pytest.raises(ValueError, match=f"hf://owner/name .*'{address}'"):
        kanets.load_model(address)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        kanets.load_model("hf://owner/name")


def test_a_folder_as_the_mirror(entry, model, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    monkeypatch.setenv("KANETS_MIRROR", str(mirror))
    with pytest.raises(ValueError, match="missing.*mirror/kanet_x/model.w"):
        kanets.load_model("kanet_x")
    (mirror / "kanet_x").mkdir(parents=True)
    weights = mirror / "kanet_x" / "model.weights.h5"
    (entry / "model.weights.h5").rename(weights)
    loaded = kanets.load_model("kanet_x")
    assert loaded.class_names == NAMES
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    weights.write_bytes(b"altered")
    with pytest.raises(ValueError, match="checksum.*mirror/kanet_x"):
        kanets.load_model("kanet_x")


def test_the_mirror_is_of_the_zoo_alone(folder, tmp_path, monkeypatch):
    make_entry(folder)
    monkeypatch.setenv("KANETS_MIRROR", str(tmp_path / "mirror"))
    assert kanets.load_model(folder).class_names == NAMES


@pytest.mark.thorough
def test_a_url_as_the_mirror(server, directory, tmp_path, monkeypatch):
    """With both networks of a GAN; one with weights that are wrong."""
    gan = make_gan()
    folder = kanets.save_model(gan.generator, directory / "gan_x", NAMES)
    kanets.save_model(gan.discriminator, folder / "discriminator", NAMES)
    make_entry(folder, task="generation", net="SAGAN")
    monkeypatch.setenv("KANETS_MIRROR", f"{server.url}/weights/")
    served = server.root / "weights" / "gan_x"
    shutil.copytree(folder, served)
    for weights in folder.rglob("*.weights.h5"):
        weights.unlink()
    inputs = [np.ones((2, 4), "float32"), np.array([0, 2], "int32")]
    expected = predict(gan.generator, inputs)
    for _ in range(2):
        loaded = kanets.load_model("gan_x")
        np.testing.assert_allclose(predict(loaded, inputs), expected, atol=1e-5)
    assert server.paths == ["/weights/gan_x/model.weights.h5"]
    assert len(cached(tmp_path)) == 1
    (served / "discriminator" / "model.weights.h5").write_bytes(b"altered")
    with pytest.raises(ValueError, match="discriminator/model.*expected"):
        kanets.load_model("gan_x/discriminator")
    assert len(cached(tmp_path)) == 1
