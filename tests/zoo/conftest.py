"""Models, made once, and a zoo of one entry."""

import pytest

import kanets
from kanets.zoo import entries
from tests.zoo.common import NAMES, make_entry, make_model


@pytest.fixture(scope="module")
def model():
    """Not to be changed by a test."""
    return make_model()


@pytest.fixture
def folder(model, tmp_path):
    return kanets.save_model(model, tmp_path / "insects", NAMES)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """An empty zoo."""
    path = tmp_path / "zoo"
    path.mkdir()
    monkeypatch.setattr(entries, "models_directory", lambda: path)
    return path


@pytest.fixture
def entry(model, directory):
    """A zoo with the entry kanet_x; its folder."""
    folder = kanets.save_model(model, directory / "kanet_x", NAMES)
    make_entry(folder)
    return folder
