"""timm's weights by the real client, from a hub on 127.0.0.1 that fails."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kanets
from kanets import zoo
from tests.backends import to_numpy
from tests.zoo import tiny_timm
from tests.zoo.hub import PRIVATE

ADDRESS = "hf://timm/tiny.in1k"
FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_timm.install(monkeypatch)


@pytest.fixture
def repository(hub, monkeypatch):
    """The folder behind `ADDRESS`; nobody waits, and nobody is logged in."""
    file_download = pytest.importorskip("huggingface_hub.file_download")
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "")
    return tiny_timm.write(hub.root / "timm" / "tiny.in1k")


def fetched(hub):
    return [path for path in hub.paths if path.endswith(FILE)]


def kept(tmp_path):
    """What of the weights lies in the cache, whole or in part."""
    return sorted(
        path.name for path in (tmp_path / "hub").rglob("*") if _large(path)
    )


def _large(path):
    return path.is_file() and (
        path.name == FILE or path.stat().st_size > 10_000
    )


def refused(*said, address=ADDRESS):
    """One sentence, and no more."""
    with pytest.raises(ValueError) as caught:
        kanets.create_model(address)
    text = str(caught.value)
    assert text.startswith("The Hugging Face Hub did not give this model")
    assert f"Received: {address!r}" in text and "\n" not in text
    assert len(text) < 400
    for part in said:
        assert part in text
    return text


def test_once_fetched_it_is_kept(hub, repository, monkeypatch):
    model = kanets.create_model(ADDRESS)
    expected = tiny_timm.TENSORS["head.bias"]
    found = to_numpy(model.get_layer("predictions").bias)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert any(fetched(hub))
    hub.paths.clear()
    kanets.create_model(ADDRESS)
    assert not fetched(hub)
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.paths.clear()
    assert len(zoo.load_model(ADDRESS).class_names) == 1000
    assert hub.paths == []
    other = "hf://timm/other"
    refused("HF_HUB_OFFLINE is set", address=other)
    assert hub.paths == []


def test_a_cut_download_goes_on(hub, repository, tmp_path, monkeypatch):
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.faults[FILE] = "cut"
    kanets.create_model(ADDRESS)
    half = (repository / FILE).stat().st_size // 2
    assert hub.ranges == [(FILE, half - half % 1024)]
    digest = zoo.sha256(repository / FILE)
    assert set(kept(tmp_path)) == {digest, FILE}


def test_a_wrong_size(hub, repository, tmp_path):
    hub.faults[FILE] = "short"
    size = (repository / FILE).stat().st_size
    refused(f"should be of size {size} but has size {size // 2}")
    assert kept(tmp_path) == []
    kanets.create_model(ADDRESS)


def test_a_wrong_hash(hub, repository, tmp_path):
    hub.faults[FILE] = "altered"
    digest = zoo.sha256(repository / FILE)
    refused(f"expected {digest}", "another call fetches it anew")
    assert kept(tmp_path) == []
    kanets.create_model(ADDRESS)


def test_who_may_not_and_what_is_not_there(hub, repository, monkeypatch):
    tiny_timm.write(hub.root / PRIVATE / "tiny")
    private = f"hf://{PRIVATE}/tiny"
    refused("no such repository", "`hf auth login`", address=private)
    refused("no such repository", address="hf://timm/none")
    refused("no such revision", address=f"{ADDRESS}@v2")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("token is not accepted", address=private)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    kanets.create_model(private)


def test_without_a_network(hub, repository, monkeypatch):
    nowhere = "http://127.0.0.1:9"  # nobody listens there
    constants = sys.modules["huggingface_hub.constants"]
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", nowhere)
        refused(f"{nowhere} is not reached", "the cache does not hold all")
    kanets.create_model(ADDRESS)
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    kanets.create_model(ADDRESS)  # the cache has it


_PROGRAM = """
import pytest
import kanets
from tests.zoo import tiny_timm
with pytest.MonkeyPatch.context() as patch:
    tiny_timm.install(patch)
    print(len(kanets.load_model("hf://timm/tiny.in1k").class_names))
"""


@pytest.mark.thorough
def test_the_environment_names_the_hub(hub, repository, tmp_path):
    """As a user sets it: HF_ENDPOINT, HF_HOME, then HF_HUB_OFFLINE."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
    }
    for more in ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://no.host"}):
        hub.paths.clear()
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[-1] == "1000"
        assert bool(hub.paths) is not bool(more)


def test_the_card_of_what_starts_there(hub, repository, monkeypatch, tmp_path):
    """It tells the net and the licence of the weights."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "training"))
    make_entry = importlib.import_module("make_entry")
    for settings in (
        {"name": ADDRESS, "attention": "kao_kv"},
        {"name": "tiny", "weights": ADDRESS, "attention": "kao_kv"},
    ):
        started = make_entry.started_from(settings, {})
        assert started.source == ADDRESS and started.licence == "mit"
        assert started.settings == {"name": "Tiny", "attention": "kao_kv"}
    assert make_entry.started_from({"name": "KANet"}, {}) is None
    run = tmp_path / "run"
    run.mkdir()
    run.joinpath("recipe.toml").write_text(
        f'[model]\nname = "{ADDRESS}"\nattention = "kao_kv"\n'
    )
    again = make_entry.started_from({"name": str(run)}, {})
    assert again.source == ADDRESS and again.settings == started.settings
