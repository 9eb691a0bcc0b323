"""Trainings shown elsewhere: TensorBoard's pictures, Weights & Biases."""

import importlib.machinery
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import cli, recipes
from kanets.train.recipes import dashboards
from tests.backends import needs_tensorflow
from tests.photos import write_photos
from tests.tiny_net import tiny

pytestmark = needs_tensorflow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 4, 4, (9, 11), "png")


@pytest.fixture
def plan(photos, monkeypatch):
    monkeypatch.setitem(recipes.NETS, "tiny", tiny)
    fields = {"model": {"name": "tiny"}, "epochs": 2, "batch_size": 4}
    return recipes.from_dict({**fields, "data": {"source": str(photos)}})


def images(run):
    """The steps of each picture of a run's TensorBoard, by name."""
    from tensorboard.backend.event_processing import event_accumulator

    folder = str(run / "tensorboard" / "pictures")
    found = event_accumulator.EventAccumulator(folder).Reload()
    return {
        tag: [event.step for event in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_the_report_is_in_tensorboard(plan, tmp_path):
    result = recipes.train(plan, tmp_path / "run", verbose=0, report=True)
    assert result["epochs"] == 2
    drawn = (tmp_path / "run" / "report").glob("*.png")
    expected = {path.stem: [1] for path in drawn}
    assert {"confusion", "classes"} <= set(expected)
    assert images(tmp_path / "run") == expected


def test_pictures_of_each_epoch(tmp_path):
    path = tmp_path / "grid.png"
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    shown = dashboards.Pictures(
        tmp_path, lambda epochs: {"samples": path} if epochs > 1 else {}
    )
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.ones((2, 1))
    model.fit(data, data, epochs=3, verbose=0, callbacks=[shown])
    assert images(tmp_path) == {"samples": [1, 2]}


def test_without_tensorboard_there_are_no_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboards, "_writes", lambda: False)
    dashboards.Pictures(tmp_path).show({"a": tmp_path / "none.png"}, 0)
    assert not list(tmp_path.iterdir())


class StandIn(types.ModuleType):
    """As much of wandb as a run asks for."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.run, self.begun, self.rows, self.ended = None, [], [], []

    class Settings(dict):
        pass

    def init(self, **settings):
        self.begun.append(settings)
        self.run = self
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.run = None
        self.ended.append(kind)


@pytest.fixture
def wandb(monkeypatch):
    wandb = StandIn()

    class WandbMetricsLogger(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert wandb.run is not None
            wandb.rows.append((epoch, *sorted(logs)))

    keras_part = types.ModuleType("wandb.integration.keras")
    keras_part.WandbMetricsLogger = WandbMetricsLogger
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "wandb.integration", keras_part)
    monkeypatch.setitem(sys.modules, "wandb.integration.keras", keras_part)
    return wandb


def test_weights_and_biases_are_asked_for(plan, tmp_path, wandb):
    recipes.train(plan, tmp_path / "quiet", verbose=0)
    assert not wandb.begun and not wandb.rows
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan))
    to = tmp_path / "told"
    command = ["train", str(path), "--to", str(to), "--wandb", "insects"]
    assert cli.main(command) == 0
    [begun] = wandb.begun
    assert (begun["project"], begun["name"]) == ("insects", "told")
    assert begun["config"]["epochs"] == 2 and begun["dir"] == to
    figures = ("accuracy", "loss", "val_accuracy", "val_loss")
    assert wandb.rows == [(0, *figures), (1, *figures)]
    assert wandb.ended == [None]
    # Complete: there is nothing to log.
    recipes.train(plan, to, verbose=0, wandb="insects")
    assert len(wandb.begun) == 1


@pytest.mark.thorough
def test_a_run_has_all_phases_and_says_how_it_ended(
    plan, tmp_path, wandb, monkeypatch
):
    recipes.train(plan, tmp_path / "base", verbose=0)
    phased = recipes.from_dict(
        {
            "model": {"name": str(tmp_path / "base")},
            "finetune": {"new_head": True, "frozen_epochs": 1},
            "epochs": 2,
            "batch_size": 4,
            "data": {"source": plan.data.source},
        }
    )
    recipes.train(phased, tmp_path / "run", verbose=0, wandb="insects")
    assert len(wandb.begun) == 1 and [e for e, *_ in wandb.rows] == [0, 1]

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: Stop())
    with pytest.raises(KeyboardInterrupt):
        recipes.train(plan, tmp_path / "stopped", verbose=0, wandb="insects")
    assert wandb.ended == [None, KeyboardInterrupt]


def test_without_wandb_one_sentence_names_it(
    plan, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(dashboards.importlib.util, "find_spec", lambda _: None)
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan))
    to = tmp_path / "run"
    command = ["train", str(path), "--to", str(to), "--wandb", "insects"]
    assert cli.main(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith('pip install "kanets[wandb]".')
    assert not to.exists()


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="TensorFlow.*wandb='p' on 'jax'"):
        with dashboards.logged_to("p"):
            pass


OFFLINE = """
import sys
from kanets import recipes
from tests.tiny_net import tiny

recipes.NETS["tiny"] = tiny
plan = recipes.read(sys.argv[1])
recipes.train(plan, sys.argv[2], verbose=0, wandb="insects")
"""


def test_wandb_itself_without_a_network(plan, tmp_path):
    pytest.importorskip("wandb", reason="make test-wandb has it")
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan))
    subprocess.run(
        [sys.executable, "-c", OFFLINE, str(path), str(tmp_path / "run")],
        env=os.environ | {"WANDB_MODE": "offline"},
        check=True,
    )
    [log] = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    written = log.read_bytes()
    for part in (b"insects", b"epoch/val_accuracy", b"epoch/learning_rate"):
        assert part in written
