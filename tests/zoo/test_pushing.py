"""Model folders to the Hub: by its library's own interface, without it."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import keras
import numpy as np
import pytest

import kanets
from kanets import cli
from tests.zoo.common import (
    NAMES,
    make_entry,
    make_gan,
    make_plain,
    predict,
)

library = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")

CARD = """---
library_name: keras
license: {licence}
pipeline_tag: image-classification
tags: [keras, kanets]
---

# Insects
"""
MODEL = ["config.json", "labels.txt", "metadata.json", "model.weights.h5"]
ADDRESS = "hf://owner/insects"


@pytest.fixture(scope="module")
def model():
    return make_plain()


@pytest.fixture
def folder(model, tmp_path):
    folder = kanets.save_model(model, tmp_path / "insects", NAMES)
    (folder / "README.md").write_text(CARD.format(licence="apache-2.0"))
    return folder


@pytest.fixture
def api(monkeypatch):
    """`HfApi`, which takes what the real one takes; `uploaded` is a folder."""
    api = mock.create_autospec(library.HfApi, instance=True)
    api.uploaded = {}

    def upload(*, folder_path, **_):
        api.uploaded = {
            path.relative_to(folder_path).as_posix(): path.read_bytes()
            for path in Path(folder_path).rglob("*")
            if path.is_file()
        }

    api.create_repo.side_effect = lambda name, **_: library.RepoUrl(
        f"https://huggingface.co/{name}"
    )
    api.repo_info.return_value = SimpleNamespace(private=True)
    api.upload_folder.side_effect = upload
    monkeypatch.setattr(library, "HfApi", lambda: api)
    return api


def refusal(status):
    """What the library raises for an answer of the Hub."""
    request = mock.Mock(url="https://huggingface.co/api", method="POST")
    response = mock.MagicMock(status_code=status, request=request, headers={})
    return errors.HfHubHTTPError(
        f"{status} Client Error\n\nfor url", response=response
    )


def test_what_is_uploaded(folder, api):
    (folder / "pictures").mkdir()
    (folder / "pictures" / "curve.png").write_bytes(b"png")
    (folder / ".lock").write_text("of another process")
    (folder / ".tmp-x").mkdir()
    (folder / ".tmp-x" / "part").write_text("left by one")
    pushed = kanets.push_model(folder, ADDRESS, message="First")
    assert sorted(api.uploaded) == sorted(
        ["README.md", "pictures/curve.png", *MODEL]
    )
    for name, content in api.uploaded.items():
        assert content == (folder / name).read_bytes()
        assert pushed.files[name] == len(content)
    assert pushed.url == "https://huggingface.co/owner/insects"
    api.create_repo.assert_called_once_with(
        "owner/insects", private=None, exist_ok=True
    )
    _, options = api.upload_folder.call_args
    assert options["repo_id"] == "owner/insects"
    assert options["commit_message"] == "First"
    # Labels of an earlier model would be taken for those of this one.
    assert "labels.txt" in options["delete_patterns"]
    assert "README.md" not in options["delete_patterns"]


def test_what_is_pushed_is_loaded(folder, api, hub, model):
    kanets.push_model(folder, ADDRESS)
    there = hub.root / "owner" / "insects"
    there.mkdir(parents=True)
    for name, content in api.uploaded.items():
        (there / name).write_bytes(content)
    loaded = kanets.load_model(ADDRESS)
    assert loaded.class_names == NAMES
    np.testing.assert_allclose(predict(loaded), predict(model), atol=1e-6)
    plain = keras.saving.load_model(there)  # as Keras's own repositories
    np.testing.assert_allclose(predict(plain), predict(model), atol=1e-6)


def test_the_best_of_a_run_with_its_card(folder, api, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "best")
    (run / "best" / "README.md").rename(run / "README.md")
    (run / "LICENSE").write_text("terms")
    (run / "curve.png").write_bytes(b"png")
    (run / "recipe.toml").write_text("[data]\nroot = '/home/me/secret'")
    kanets.push_model(run, ADDRESS)
    assert sorted(api.uploaded) == sorted(
        ["LICENSE", "README.md", "curve.png", *MODEL]
    )


def test_what_lies_beside_a_folder_that_is_called_best(folder, api, tmp_path):
    shutil.copytree(folder, tmp_path / "desk" / "best")
    (tmp_path / "desk" / "passport.png").write_bytes(b"png")
    kanets.push_model(tmp_path / "desk" / "best", ADDRESS)
    assert "passport.png" not in api.uploaded
    assert "README.md" in api.uploaded


def test_an_entry_is_a_repository(folder, api, directory):
    """With both networks of a GAN, the licence in the entry."""
    gan = make_gan()
    entry = kanets.save_model(gan.generator, directory / "gan_x", NAMES)
    kanets.save_model(gan.discriminator, entry / "discriminator")
    make_entry(entry, task="generation", net="SAGAN")
    (entry / "README.md").write_text(CARD.format(licence="other"))
    pushed = kanets.push_model("gan_x", "hf://owner/gan")
    assert {"entry.json", "discriminator/model.weights.h5"} <= set(pushed.files)
    assert "by kanets" in api.upload_folder.call_args[1]["commit_message"]
    for part in ("discriminator", "."):
        weights = entry / part / "model.weights.h5"
        whole = weights.read_bytes()
        weights.write_bytes(b"altered")
        with pytest.raises(ValueError, match="checksum"):
            kanets.push_model("gan_x", "hf://owner/gan")
        weights.write_bytes(whole)


@pytest.mark.thorough
def test_every_entry_of_the_zoo_can_be_pushed(api):
    for entry in kanets.list_models():
        pushed = kanets.push_model(entry.name, f"hf://owner/{entry.name}")
        assert {"README.md", "entry.json"} <= set(pushed.files)
        # Whole, where the zoo's folder has the weights of another entry.
        told = json.loads(api.uploaded["entry.json"])
        weights = hashlib.sha256(api.uploaded["model.weights.h5"])
        assert not told.get("weights_of")
        assert told["files"]["model.weights.h5"] == weights.hexdigest()


@pytest.mark.parametrize(
    "card, said",
    [
        (None, r"README.md, which begins with.*license: .*\['README.md'\]"),
        ("# Insects\n", "begins with.*without .*license.*library_name"),
        (CARD.replace("license: {licence}\n", ""), r"without \['license'\]"),
        (CARD.format(licence=""), r"without \['license'\]"),
        (CARD.format(licence="other"), "text in LICENSE beside the card"),
        (CARD.format(licence="[a"), "must be YAML.*README.md"),
    ],
)
def test_a_card_and_a_licence_must_be_there(folder, api, card, said):
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_text(card)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        kanets.push_model(folder, ADDRESS)
    assert not api.mock_calls


def test_another_licence_with_its_text(folder, api):
    (folder / "README.md").write_text(CARD.format(licence="other"))
    (folder / "LICENSE").write_text("terms")
    assert "LICENSE" in kanets.push_model(folder, ADDRESS).files


@pytest.mark.parametrize("name", ["metadata.json", "model.weights.h5"])
def test_a_model_must_be_whole(folder, api, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        kanets.push_model(folder, ADDRESS)
    assert not api.mock_calls


def test_a_file_is_no_folder(model, api, tmp_path):
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"kanets.save_model\(model, folder\)"):
        kanets.push_model(tmp_path / "model.keras", ADDRESS)


@pytest.mark.parametrize(
    "address", ["owner/insects", "hf://owner", "hf://owner/insects@v1"]
)
def test_an_address_is_of_two_parts(folder, api, address):
    with pytest.raises(ValueError, match=f"hf://owner/name.*'{address}'"):
        kanets.push_model(folder, address)


def test_private_is_private_or_nothing_is_uploaded(folder, api):
    kanets.push_model(folder, ADDRESS, private=True)
    assert api.create_repo.call_args[1]["private"] is True
    assert api.upload_folder.call_count == 1
    api.repo_info.return_value = SimpleNamespace(private=False)
    with pytest.raises(ValueError, match="public stays so.*owner/insects"):
        kanets.push_model(folder, ADDRESS, private=True)
    assert api.upload_folder.call_count == 1


@pytest.mark.parametrize(
    "error, said",
    [
        (refusal(401), "hf auth login.*401 Client Error for url"),
        (refusal(403), "hf auth login.*403"),
        (refusal(500), "model. Received: 'hf://owner/insects' .500"),
        (errors.LocalTokenNotFoundError("none"), "hf auth login"),
        (OSError("no\nroute to host"), r"Received.*\(no route to host\)"),
    ],
)
@pytest.mark.parametrize("call", ["create_repo", "upload_folder"])
def test_a_refusal_is_one_sentence(folder, api, error, said, call):
    getattr(api, call).side_effect = error
    with pytest.raises(ValueError, match=said) as caught:
        kanets.push_model(folder, ADDRESS)
    assert "\n" not in str(caught.value)


def test_the_command(folder, api, capsys):
    arguments = ["push", str(folder), ADDRESS, "--private", "--message", "Bees"]
    assert cli.main([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["url"] == "https://huggingface.co/owner/insects"
    assert sorted(value["files"]) == sorted(api.uploaded)
    assert api.create_repo.call_args[1]["private"] is True
    assert api.upload_folder.call_args[1]["commit_message"] == "Bees"
    assert cli.main(arguments) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and any("README.md" in line for line in lines)
    total = sum(len(content) for content in api.uploaded.values())
    assert last.split() == [
        *(f"{total:,}", "bytes", "in", "5", "files:"),
        "https://huggingface.co/owner/insects",
    ]
    (folder / "README.md").unlink()
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("kanets: error: ") and error.count("\n") == 1
