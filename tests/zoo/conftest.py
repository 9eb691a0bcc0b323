"""Models, made and saved once, and a zoo of one entry."""

import functools
import http.server
import shutil
import threading

import pytest

import kanets
from kanets.nets import kanet
from kanets.zoo import entries
from tests.zoo.common import NAMES, make_entry, make_model
from tests.zoo.hub import Handler


@pytest.fixture(scope="module")
def short():
    """A KANet has one block a stage: half the layers to make and to load."""
    with pytest.MonkeyPatch.context() as patch:
        stages = tuple((*s[:3], 1, *s[4:]) for s in kanet.STAGES)
        patch.setattr(kanet, "STAGES", stages)
        for level, name in kanet.LEVELS.items():
            patch.setitem(kanet.LEVELS, level, f"{name[:-1]}1")
        yield


@pytest.fixture(scope="module")
def model(short):
    """Not to be changed by a test."""
    return make_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """Not to be changed by a test, either: `folder` is a copy of it."""
    folder = tmp_path_factory.mktemp("saved") / "insects"
    return kanets.save_model(model, folder, NAMES)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "insects")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """An empty zoo."""
    path = tmp_path / "zoo"
    path.mkdir()
    monkeypatch.setattr(entries, "models_directory", lambda: path)
    return path


@pytest.fixture
def entry(saved, directory):
    """A zoo with the entry kanet_x; its folder."""
    folder = shutil.copytree(saved, directory / "kanet_x")
    make_entry(folder)
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `server.root`; `server.paths` is what was asked for.

    `server.faults` and `server.ranges` are those of `Handler`.
    """
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(Handler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.root, server.paths = root, []
        server.faults, server.ranges = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server as the hub of `huggingface_hub`."""
    constants = pytest.importorskip("huggingface_hub.constants")
    # What HF_ENDPOINT sets, but for a package that is imported already.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return server
