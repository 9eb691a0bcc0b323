"""Recipes: plain data, and runs that survive being killed."""

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kanets import (
    checkpoints,
    cli,
    data,
    quantization,
    recipes,
    tasks,
    zoo,
)
from tests.backends import BACKEND, needs_8_bits, needs_tensorflow, to_numpy
from tests.photos import write_photos
from tests.tiny_net import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch):
    monkeypatch.setitem(recipes.NETS, "tiny", tiny)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that differ in colour: 12 training, 6 validation each."""
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 12, 6, (9, 11), "png")


def recipe(photos, **changes):
    fields = {
        "model": {"name": "tiny"},
        "epochs": 3,
        "batch_size": 5,
        "data": {"source": str(photos)},
        "augment": {"crop": 1},
        "optimize": {"learning_rate": 0.1, "weight_decay": 0.01},
        **changes,
    }
    return recipes.from_dict(fields)


class Stop(Exception):
    pass


class StopAt(keras.callbacks.Callback):
    """Breaks a run in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop_epoch, self.epoch = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.stop_epoch and batch == 2:
            raise Stop


def interrupted(monkeypatch, epoch, run):
    """Runs until `epoch`, then leaves in the middle of it."""
    with monkeypatch.context() as patch:
        patch.setattr(
            recipes.supervised, "tensorboard", lambda _: StopAt(epoch)
        )
        with pytest.raises(Stop):
            run()


def weights(directory):
    return zoo.load_model(directory).get_weights()


@pytest.fixture(scope="module")
def short_run(photos, tmp_path_factory):
    """A run of one epoch; not to be changed."""
    folder = tmp_path_factory.mktemp("short") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.NETS, "tiny", tiny)
        recipes.train(recipe(photos, epochs=1), folder, verbose=0)
    return folder


@pytest.fixture
def run(short_run, tmp_path):
    """A copy of it."""
    return shutil.copytree(short_run, tmp_path / "run it")


def test_toml_round_trip(tmp_path, photos):
    first = recipe(
        photos,
        data={"source": 'odd "name" é', "image_size": [8, 9]},
        finetune={"frozen_epochs": 1, "layer_decay": 0.8},
        jit_compile=False,
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(first), encoding="utf-8")
    assert recipes.read(path) == first


def test_none_and_tuples_survive_toml(tmp_path, photos):
    # TOML knows neither, and a resumed run compares with what it reads.
    plan = recipe(photos, epochs=1, model={"name": "tiny", "extra": None})
    plan = dataclasses.replace(
        plan, data=dataclasses.replace(plan.data, image_size=[9, 11])
    )
    first = recipes.train(plan, tmp_path / "run", verbose=0)
    assert recipes.train(plan, tmp_path / "run", verbose=0) == first


def test_a_failed_start_does_not_claim_the_folder(tmp_path, photos):
    wrong = recipe(photos / "nowhere", epochs=1)
    with pytest.raises(ValueError, match="nowhere"):
        recipes.train(wrong, tmp_path / "run", verbose=0)
    recipes.train(recipe(photos, epochs=1), tmp_path / "run", verbose=0)
    nothing = recipe("", epochs=1, data={})
    with pytest.raises(ValueError, match="folder or a TFDS name"):
        recipes.train(nothing, tmp_path / "other", verbose=0)


def test_every_recipe_of_the_repository_is_valid():
    paths = [*ROOT.glob("training/*.toml"), *ROOT.glob("kanets/sample/*.toml")]
    assert paths
    for path in paths:
        assert recipes.read(path).epochs > 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"epochs": 0},
            "epochs must be 1 or more. Received: epochs=0",
        ),
        ({"epochs": True}, "Received: epochs=True"),
        ({"batch_size": 2.5}, "Received: batch_size=2.5"),
        ({"precision": "half"}, "Received: precision='half'"),
        ({"jit_compile": "yes"}, "Received: jit_compile='yes'"),
        ({"keep": "all"}, "Received: keep='all'"),
        ({"epoch": 3}, r"fields of a recipe are .*Received: \['epoch'\]"),
        ({"model": {}}, "model must be a section with a name"),
        ({"model": "KANet"}, "Received: model='KANet'"),
        ({"optimize": {"name": "adam"}}, "Received: name='adam'"),
        ({"optimize": {"learning_rate": -1}}, "Received: learning_rate=-1"),
        ({"optimize": {"average": 1.0}}, "Received: average=1.0"),
        ({"optimize": {"average": 1.5}}, "Received: average=1.5"),
        ({"optimize": {"learning_rate": "0.1"}}, "learning_rate='0.1'"),
        ({"optimize": {"label_smoothing": -0.1}}, "label_smoothing=-0.1"),
        ({"optimize": {"warmup_epochs": -1}}, "warmup_epochs=-1"),
        ({"augment": {"mixup": -1.0}}, "augment.mixup .*mixup=-1.0"),
        ({"augment": {"crop": 1.5}}, "augment.crop .*crop=1.5"),
        ({"finetune": {"layer_decay": 0}}, "layer_decay=0"),
        ({"seed": -1}, "seed must be 0 or more. Received: seed=-1"),
        ({"data": "cifar10"}, "must be a section. Received: data='cifar10'"),
        ({"finetune": {"new_head": "no"}}, "new_head must be .*new_head='no'"),
        ({"optimize": {"rate": 1}}, r"\[optimize\].*Received: \['rate'\]"),
        ({"finetune": {"frozen_epochs": 4}}, "is 3. Received: frozen_epochs=4"),
        ({"epoch": 3}, r"\(nearest: epochs\). Received: \['epoch'\]"),
        ({"optimise": {}}, r"\(nearest: optimize\). Received: \['optimise'\]"),
        ({"segmentr": {}}, r"\(nearest: segmenter\). Received: \['segmentr'\]"),
        ({"augment": {"mixip": 1}}, r"\(nearest: mixup\). Received: \['mixip'"),
        ({"model": {"name": 3}}, "a section with a name.* Received: model="),
        (
            {"model": {"name": "tiny", "widht": 8}},
            r"model must be a section with fields among \['extra', 'name', "
            r"'width'\] \(nearest: width\). Received: model=\{'widht': 8\}",
        ),
        (
            {"model": {"name": "KANet", "include_top": False}},
            r"Received: model=\{'include_top': False\}",
        ),
        (
            {"model": {"name": "KANet", "alpah": 0.5, "classes": 3}},
            r"\(nearest: alpha\). Received: model=\{'alpah': 0.5, 'cla",
        ),
        (
            {"model": {"name": "kanet_qkv_cifar10", "dropout": 0.5}},
            r"\(nearest: dropout_rate\). Received: model=\{'dropout': 0.5\}",
        ),
        (
            {"data": {"on_eror": "skip"}},
            r"fields of \[data\] of a recipe are .*\(nearest: on_error\). Rec",
        ),
        (
            {"data": {"on_error": "skp"}},
            "data.on_error must be one of 'stop' or 'skip'. .*on_error='skp'",
        ),
        (
            {"data": {"image_size": [32, 0]}},
            r"data.image_size must be \(height, width\). .*=\(32, 0\)",
        ),
        ({"data": {"source": 3}}, "data.source must be a valid string. Rec"),
        ({"data": {"validation": 1}}, r"must be in \[0, 1\). .*validation=1"),
        ({"augment": {"flip": "yes"}}, "augment.flip must be .*flip='yes'"),
        ({"optimize": {"clip": float("inf")}}, "optimize.clip .*clip=inf"),
        ({"optimize": {"clip": float("nan")}}, "optimize.clip .*clip=nan"),
        ({"optimize": {"clip": True}}, "optimize.clip .*clip=True"),
        (
            {"quantize": {"from_epoch": 4}},
            r"quantize.from_epoch must be 0, or in 1..epochs, which is 3. Rec",
        ),
        (
            {"quantize": {"from_epoch": 1}, "finetune": {"frozen_epochs": 1}},
            r"in 2..epochs, which is 3. Received: from_epoch=1",
        ),
        # What is misspelt comes first.
        ({"epochs": 0, "sed": 3}, r"\(nearest: seed\). Received: \['sed'\]"),
    ],
)
def test_bad_recipes_are_named(photos, fields, text):
    with pytest.raises(ValueError, match=text):
        recipe(photos, **fields)


def test_nets_that_say_nothing_of_their_arguments(photos, monkeypatch):
    monkeypatch.setitem(recipes.NETS, "free", lambda **arguments: None)
    entry = {"name": "kanet_qkv_cifar10", "pretrained": False}
    recipes.from_dict({"model": entry})
    for name in ("free", "kanet_qkv_cifar10/part", "runs/of-mine"):
        recipe(photos, model={"name": name, "anything": 1})


def test_recipes_in_python():
    net = {"name": "tiny"}
    plan = recipes.Recipe(net, 3, optimize={"learning_rate": 1})
    assert plan == recipes.Recipe(
        model=net, epochs=3, optimize=recipes.Optimize(learning_rate=1.0)
    )
    assert type(plan.optimize.learning_rate) is float
    assert recipes.Data("here", [9, 11]).image_size == (9, 11)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.epochs = 4
    for make, text in (
        (lambda: recipes.Recipe(), "model must be .*Received: model=None"),
        (lambda: recipes.Recipe(net, 0), "1 or more. Received: epochs=0"),
        (lambda: recipes.Recipe(net, sed=0), r"\(nearest: seed\). Received"),
        (lambda: recipes.Optimize(clipp=1), r"of Optimize are .* clip\). Rec"),
        (lambda: recipes.Augment(mixup=-1), "^mixup must be 0 or more. Rec"),
        (
            lambda: recipes.Recipe(net, data=recipes.Augment()),
            r"data must be of the class Data. Received: data=Augment\(",
        ),
        (
            lambda: recipes.SegmentationData(class_names=["a", 3]),
            r"must be a list of str. Received: class_names=\['a', 3\]",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    with pytest.raises(TypeError, match="multiple values .*'epochs'"):
        recipes.Recipe(net, 3, epochs=3)


def test_a_file_that_is_no_recipe(tmp_path):
    with pytest.raises(ValueError, match="must be a TOML file. Received"):
        recipes.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ValueError, match="bad.toml"):
        recipes.read(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("epochs = 3", encoding="utf-16")
    with pytest.raises(ValueError, match="must be a TOML file. .*bad.toml"):
        recipes.read(tmp_path / "bad.toml")


def test_a_recipe_with_a_byte_order_mark(tmp_path):
    text = '[model]\nname = "KANet"\n'
    (tmp_path / "notepad.toml").write_text(text, encoding="utf-8-sig")
    assert recipes.read(tmp_path / "notepad.toml").model["name"] == "KANet"


def test_a_run_keeps_all_it_says(tmp_path, photos, capsys):
    result = recipes.train(recipe(photos), tmp_path / "run")
    folder = tmp_path / "run"
    assert recipes.read(folder / "recipe.toml") == recipe(photos)
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,accuracy,loss,val_accuracy,val_loss")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert result["epochs"] == 3
    model = zoo.load_model(folder)
    assert model.class_names == ("blue", "red")
    assert not list(folder.glob(".*"))
    assert "24 pictures of 2 classes" in capsys.readouterr().out

    # Again on the same folder: nothing is left to do.
    before = weights(folder)
    again = recipes.train(recipe(photos), folder)
    assert again == result
    assert "is complete: 3 of 3 epochs" in capsys.readouterr().out
    for old, new in zip(before, weights(folder), strict=True):
        np.testing.assert_array_equal(old, new)


def test_killed_just_before_the_result(tmp_path, photos):
    first = recipes.train(recipe(photos), tmp_path / "run", verbose=0)
    (tmp_path / "run" / "result.json").unlink()
    second = recipes.train(recipe(photos), tmp_path / "run", verbose=0)
    assert {**second, "seconds": 0} == {**first, "seconds": 0}


def test_the_best_epoch_is_kept(tmp_path, photos, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    original = checkpoints.Checkpoints.on_epoch_end
    seen = []

    def scored(self, epoch, logs=None):
        seen.append(to_numpy(self.model.get_layer("conv").kernel).copy())
        original(self, epoch, {**logs, "val_accuracy": next(scores)})

    monkeypatch.setattr(checkpoints.Checkpoints, "on_epoch_end", scored)
    result = recipes.train(recipe(photos), tmp_path / "run", verbose=0)
    assert result["epoch"] == 2
    kept = zoo.load_model(tmp_path / "run").get_layer("conv").kernel
    np.testing.assert_array_equal(to_numpy(kept), seen[1])


def test_keep_last(tmp_path, photos, monkeypatch):
    original = checkpoints.Checkpoints.on_epoch_end

    def worse(self, epoch, logs=None):
        original(self, epoch, {**logs, "val_accuracy": -float(epoch)})

    monkeypatch.setattr(checkpoints.Checkpoints, "on_epoch_end", worse)
    result = recipes.train(
        recipe(photos, keep="last"), tmp_path / "run", verbose=0
    )
    assert result["epoch"] == 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="sgd"),
        pytest.param(
            {
                "optimize": {
                    "name": "adamw",
                    "learning_rate": 0.01,
                    "average": 0.9,
                }
            },
            id="adamw with average",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"quantize": {"from_epoch": 2}},
            id="before 8 bits",
            marks=needs_8_bits,
        ),
        pytest.param(
            {"quantize": {"from_epoch": 1}},
            id="in 8 bits",
            marks=[needs_8_bits, pytest.mark.slow],
        ),
    ],
)
def test_an_interrupted_run_ends_as_if_it_was_not(
    tmp_path, photos, monkeypatch, capsys, changes
):
    plan = recipe(photos, augment={"crop": 1, "mixup": 0.2}, **changes)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipes.train(plan, whole, verbose=0)
    interrupted(monkeypatch, 1, lambda: recipes.train(plan, broken, verbose=0))
    recipes.train(plan, broken)
    output = capsys.readouterr().out
    assert "Resuming" in output and "after epoch 1 of 3" in output
    for expected, actual in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-5)
    rows, _ = checkpoints.read_progress(broken)
    expected_rows, _ = checkpoints.read_progress(whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row, expected in zip(rows, expected_rows, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert row["learning_rate"] == expected["learning_rate"]


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch")
def test_pytorch_does_not_train_for_8_bits(tmp_path, photos):
    plan = recipe(photos, quantize={"from_epoch": 2})
    with pytest.raises(ValueError, match="Training for 8 bits needs one of"):
        recipes.train(plan, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "log.csv").exists()


@needs_8_bits
def test_the_last_epochs_are_of_8_bits(tmp_path, photos, monkeypatch):
    original = checkpoints.Checkpoints.on_epoch_end

    def worse(self, epoch, logs=None):
        original(self, epoch, {**logs, "val_accuracy": -float(epoch)})

    monkeypatch.setattr(checkpoints.Checkpoints, "on_epoch_end", worse)
    plan = recipe(
        photos,
        epochs=5,
        patience=1,
        quantize={"from_epoch": 4, "learning_rate_factor": 0.5},
        optimize={"learning_rate": 0.1, "warmup_epochs": 2},
    )
    result = recipes.train(plan, tmp_path / "run", verbose=0)
    # Patience ends the epochs before; what is kept is the best of the others.
    assert result["epoch"] == 4 and result["epochs"] == 5
    rows, _ = checkpoints.read_progress(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 4, 5]
    rates = [row["learning_rate"] for row in rows]
    assert rates[2] == pytest.approx(0.025) and rates[3] < 1e-6
    kept = zoo.load_model(tmp_path / "run")
    assert quantization.is_prepared(kept)
    assert kept.class_names == ("blue", "red")
    assert float(to_numpy(kept.layers[-1].batches)) == 5
    assert recipes.train(plan, tmp_path / "run", verbose=0) == result


@pytest.mark.thorough
def test_sigkill_in_the_middle_of_an_epoch(tmp_path, photos):
    plan = recipe(photos, epochs=400)
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(plan), encoding="utf-8")
    code = f"""
from kanets import recipes
from tests.tiny_net import tiny
recipes.NETS["tiny"] = tiny
recipes.train(recipes.read({str(path)!r}), {str(tmp_path / "run")!r}, 2)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "best").exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows, _ = checkpoints.read_progress(tmp_path / "run")
    assert len(rows) < 400
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Killed before the first state was written, there is nothing to resume.
    assert (f"after epoch {len(rows)} of 400" in said) == bool(rows)


@pytest.mark.slow
def test_an_interrupted_fine_tune(tmp_path, photos, monkeypatch):
    recipes.train(recipe(photos), tmp_path / "base", verbose=0)
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=4,
        optimize={"name": "adamw", "learning_rate": 0.01, "average": 0.9},
        finetune={
            "frozen_epochs": 2,
            "layer_decay": 0.5,
            "new_head": True,
            "fit_head": True,
            "freeze_norm": True,
        },
    )
    whole = tmp_path / "whole"
    recipes.train(plan, whole, verbose=0)
    # In the frozen phase, at the start of the other, and within it.
    for epoch in (1, 2, 3):
        broken = tmp_path / f"broken{epoch}"
        interrupted(
            monkeypatch,
            epoch,
            lambda broken=broken: recipes.train(plan, broken, verbose=0),
        )
        recipes.train(plan, broken, verbose=0)
        for expected, actual in zip(
            weights(whole), weights(broken), strict=True
        ):
            np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.thorough
def test_killed_between_two_phases(tmp_path, photos, monkeypatch):
    recipes.train(recipe(photos, epochs=1), tmp_path / "base", verbose=0)
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=2,
        keep="last",
        optimize={"learning_rate": 0.5, "average": 0.9},
        finetune={"frozen_epochs": 1},
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipes.train(plan, whole, verbose=0)

    def stop(*_):
        raise Stop

    # The state of the last epoch is there, of raw weights; the average, from
    # which the other phase starts, is not in their place yet.
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "on_train_end", stop)
        with pytest.raises(Stop):
            recipes.train(plan, broken, verbose=0)
    rows, _ = checkpoints.read_progress(broken)
    assert len(rows) == 1
    recipes.train(plan, broken, verbose=0)
    for expected, actual in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.thorough
def test_a_phase_starts_where_the_one_before_ended(
    tmp_path, photos, monkeypatch
):
    """Also if an earlier epoch was the best, and is what is kept."""
    heads = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            heads.append(self.model.layers[-1].get_weights()[0])

        on_train_end = on_train_begin

    recipes.train(recipe(photos, epochs=1), tmp_path / "base", verbose=0)
    monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: Note())
    monkeypatch.setattr(recipes.supervised, "_monitor", lambda *_: "falls")
    monkeypatch.setattr(
        checkpoints.Checkpoints,
        "_check",
        lambda self, row: row.update(falls=-len(self.rows)),
    )
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        finetune={"new_head": True, "frozen_epochs": 2},
    )
    recipes.train(plan, tmp_path / "run", verbose=0)
    _, end_of_first, start_of_second, _ = heads
    np.testing.assert_array_equal(start_of_second, end_of_first)


class Spoil(keras.callbacks.Callback):
    """In the second epoch, makes a variable not finite."""

    def __init__(self, when, find):
        super().__init__()
        self.when, self.find, self.epoch, self.steps = when, find, None, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.spoil("on_epoch_begin")

    def on_test_end(self, logs=None):
        self.spoil("on_test_end")

    def on_train_batch_begin(self, batch, logs=None):
        self.steps += 1

    def spoil(self, when):
        if self.epoch == 1 and when == self.when:
            variable = self.find(self.model)
            variable.assign(to_numpy(variable) * np.inf)


@pytest.mark.parametrize(
    ("when", "find", "said"),
    [
        ("on_epoch_begin", lambda m: m.get_layer("conv").kernel, "loss=nan"),
        (
            "on_test_end",
            lambda m: m.get_layer("bn").moving_variance,
            "bn/moving_variance",
        ),
        ("on_test_end", lambda m: m.optimizer.variables[-1], "momentum"),
    ],
    ids=["loss", "weights", "optimizer"],
)
def test_a_run_that_diverges_keeps_what_was_sound(
    tmp_path, photos, monkeypatch, when, find, said
):
    run = tmp_path / "run"
    spoil = Spoil(when, find)
    monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: spoil)
    plan = recipe(photos, keep="last")
    message = (
        "ended in epoch 2 of 3. Likely the learning rate.*precision.*picture "
        "or label.*in a new folder, as this one keeps epoch 1.*Received: "
        f".*{said}"
    )
    with pytest.raises(FloatingPointError, match=message):
        recipes.train(plan, run, verbose=0)
    rows, _ = checkpoints.read_progress(run)
    assert len(rows) == 1 and not (run / "result.json").exists()
    assert all(np.isfinite(w).all() for w in weights(run))
    assert not list(run.glob(".*"))
    if said == "loss=nan":
        assert spoil.steps < 2 * 5  # it did not wait for the epoch's end
        # What is kept is whole, and goes on.
        monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: None)
        assert recipes.train(plan, run, verbose=0)["epoch"] == 3


@pytest.mark.thorough
def test_a_learning_rate_that_is_too_high(tmp_path, photos):
    steep = {"learning_rate": 1e30, "warmup_epochs": 0}
    run = tmp_path / "run"
    with pytest.raises(
        FloatingPointError, match="epoch 1 of 3.*nothing was kept yet"
    ):
        recipes.train(recipe(photos, optimize=steep), run, verbose=0)
    assert not (run / "best").exists()
    assert not (run / checkpoints.STATE).exists()
    # Nothing was kept, so another recipe may take the folder.
    recipes.train(recipe(photos, epochs=1), run, verbose=0)


@pytest.mark.thorough
def test_one_process_trains_in_a_folder(tmp_path, photos, monkeypatch):
    run = tmp_path / "run"
    said = []

    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(BlockingIOError) as caught:
                recipes.train(recipe(photos), run, verbose=0)
            said.append(str(caught.value))
            raise Stop

    monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: Second())
    with pytest.raises(Stop):
        recipes.train(recipe(photos), run, verbose=0)
    assert f"in use by process {os.getpid()} on" in said[0]
    assert str(run) in said[0]
    # The one that failed let go of it.
    monkeypatch.setattr(recipes.supervised, "tensorboard", lambda _: None)
    assert recipes.train(recipe(photos), run, verbose=0)["epochs"] == 3


def save_state(directory):
    """The state of a run without an epoch; returns its callback."""
    model = tiny((9, 11, 3), 2)
    model.compile("sgd")
    progress = checkpoints.Progress(directory, None)
    progress.set_model(model)
    progress.save_state()
    return progress


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    progress = save_state(tmp_path)
    zoo.save_model(progress.model, tmp_path / "best", ["a", "b"])
    names = sorted(path.name for path in tmp_path.iterdir())
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = "could not be written, and is as it was before: No space left"
    with pytest.raises(OSError, match=f"last.weights.h5' {said}.*Make room"):
        progress.save_state()
    with pytest.raises(OSError, match=f"best' {said}"):
        zoo.save_model(progress.model, tmp_path / "best")
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoints.read_progress(tmp_path) == ([], None)
    assert zoo.load_model(tmp_path / "best").class_names == ("a", "b")


@pytest.mark.slow
def test_batch_norm_follows_a_small_set(tmp_path, photos, monkeypatch):
    recipes.train(recipe(photos), tmp_path / "base", verbose=0)
    seen = []
    task = recipes.classifier.PARTS

    def build(*arguments):
        seen.append(task.build(*arguments))
        return seen[-1]

    monkeypatch.setattr(
        recipes.classifier, "PARTS", dataclasses.replace(task, build=build)
    )
    plan = recipe(photos, model={"name": str(tmp_path / "base")}, epochs=1)
    recipes.train(plan, tmp_path / "tuned", verbose=0)
    assert seen[0].get_layer("bn").momentum == 0.9
    recipes.train(recipe(photos, epochs=1), tmp_path / "fresh", verbose=0)
    assert seen[1].get_layer("bn").momentum == 0.99


def tuned(photos, base, folder, **changes):
    """A fine-tune of a single epoch in which nothing moves far."""
    plan = recipe(
        photos,
        model={"name": str(base)},
        epochs=1,
        optimize={"learning_rate": 1e-6},
        **changes,
    )
    recipes.train(plan, folder)
    return zoo.load_model(folder)


@pytest.fixture(scope="module")
def base(photos, tmp_path_factory):
    """A model of the same classes, in the other order."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("base") / "model"
    return zoo.save_model(tiny((9, 11, 3), 2), folder, ["red", "blue"])


def kernel(model):
    return to_numpy(model.get_layer("predictions").kernel)


@pytest.mark.thorough
def test_the_head_of_the_same_classes_is_kept(tmp_path, photos, base, capsys):
    trained = zoo.load_model(base)
    model = tuned(photos, base, tmp_path / "run")
    assert (
        "is kept: the model has the same 2 classes in another order; its"
        in (capsys.readouterr().out)
    )
    assert model.class_names == ("blue", "red")
    np.testing.assert_allclose(
        kernel(model), kernel(trained)[:, ::-1], atol=1e-4
    )
    zoo.save_model(trained, tmp_path / "same", ["blue", "red"])
    model = tuned(photos, tmp_path / "same", tmp_path / "run 2")
    said = capsys.readouterr().out
    assert "head is kept: the model has the same 2 classes." in said
    np.testing.assert_allclose(kernel(model), kernel(trained), atol=1e-4)


@pytest.mark.parametrize(
    ("names", "new_head", "text"),
    [
        (["ant", "bee"], "auto", "A new head for 2 classes: the model has oth"),
        (["Blue", " red"], "auto", "differ in capitals or spaces; with new_he"),
        (None, "auto", "A new head for 2 classes: the model has no class name"),
        (["blue", "red"], True, "A new head for 2 classes, as new_head = true"),
        (["ant", "bee"], False, "The head is kept, as new_head = false says."),
    ],
)
def test_which_head_and_why(photos, base, tmp_path, names, new_head, text):
    trained = zoo.load_model(base)
    del trained.class_names
    zoo.save_model(trained, tmp_path / "model", names)
    said = []
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "model")},
        finetune={"new_head": new_head},
    )
    train_set, _ = recipes.classifier.PARTS.load(plan)
    model = recipes.classifier.PARTS.build(plan, train_set, said.append)
    assert text in said[0]
    kept = np.array_equal(kernel(model), kernel(trained))
    assert kept == (new_head is False)


def test_a_head_of_other_classes_cannot_be_kept(photos, tmp_path):
    zoo.save_model(tiny((9, 11, 3), 3), tmp_path / "model")
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "model")},
        finetune={"new_head": False},
    )
    with pytest.raises(ValueError, match="new_head=False, 'tiny' of 3 classes"):
        recipes.train(plan, tmp_path / "run", verbose=0)


@pytest.mark.thorough
def test_a_loaded_model_in_mixed_precision(tmp_path, photos, base):
    model = tuned(photos, base, tmp_path / "run", precision="mixed_bfloat16")
    assert model.get_layer("conv").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    # Under the default, it stays what it is.
    again = tuned(photos, tmp_path / "run", tmp_path / "again")
    assert again.get_layer("conv").compute_dtype == "bfloat16"


@pytest.mark.thorough
@needs_tensorflow
def test_the_training_step_is_traced_once(tmp_path, photos, base, monkeypatch):
    traced = []
    original = keras.Model.train_step

    def train_step(self, data):
        traced.append(len(self.trainable_variables))
        return original(self, data)

    monkeypatch.setattr(keras.Model, "train_step", train_step)
    plan = recipe(
        photos,
        model={"name": str(base)},
        epochs=3,  # of batches of 5, 5, 5, 5 and 4
        optimize={"name": "adamw", "learning_rate": 1e-3, "average": 0.9},
        finetune={"frozen_epochs": 1},
    )
    recipes.train(plan, tmp_path / "run", verbose=0)
    assert traced == [2, 6]


def test_a_net_that_is_surely_wrong_learns(tmp_path, photos):
    plain = recipes.classifier.PARTS

    def build(*arguments):
        model = plain.build(*arguments)
        head = model.get_layer("predictions")
        kernel, bias = head.get_weights()
        head.set_weights([0 * kernel, 100.0 * (np.arange(len(bias)) == 0)])
        return model

    task = dataclasses.replace(plain, build=build)
    plan = recipe(photos, epochs=1)
    recipes.supervised.train(task, plan, tmp_path / "run", verbose=0)
    head = zoo.load_model(tmp_path / "run").get_layer("predictions")
    assert head.activation is keras.activations.softmax
    _, bias = head.get_weights()
    assert bias[0] < 99.999 and bias[1] > 0.001


@pytest.mark.thorough
def test_a_new_head_may_be_fitted(tmp_path, photos, base, capsys):
    """Where nothing moves, the answers are those of the regression."""
    model = tuned(
        photos,
        base,
        tmp_path / "run",
        finetune={"new_head": True, "fit_head": True, "frozen_epochs": 1},
        augment={"flip": False},
    )
    assert "Fitting the head to what the body" in capsys.readouterr().out
    train = data.load(photos, validation=0.0, batch_size=24, seed=0)[0]
    [(x, y)] = list(train)
    body = keras.Model(model.input, model.get_layer("dropout").output)
    features = to_numpy(body(x))
    kernel, bias = model.get_layer("predictions").get_weights()
    assert np.abs(kernel).max() > 0.1
    # At the minimum of the loss with its decay, which is convex.
    wrong = to_numpy(model(x)) - np.eye(2)[y]
    np.testing.assert_allclose(
        features.T @ wrong / len(x), -0.01 * kernel, atol=2e-3
    )
    np.testing.assert_allclose(wrong.mean(0), 0, atol=2e-3)
    assert bias.shape == (2,)


def test_a_head_that_is_kept_is_not_fitted(tmp_path, photos, base):
    kept = tuned(photos, base, tmp_path / "a", finetune={"fit_head": True})
    plain = tuned(photos, base, tmp_path / "b")
    for fitted, weight in zip(kept.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(fitted), to_numpy(weight))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "average", [0.0, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_a_start_that_no_epoch_betters_is_kept(
    tmp_path, photos, base, monkeypatch, capsys, average
):
    """The head as it was fitted is epoch 0, also of a run that is killed."""
    rows, epochs = [], iter([-1.0, KeyboardInterrupt, -1.0, -1.0])
    keep = checkpoints.Checkpoints.keep

    def worse(kept, row):
        row["val_accuracy"] = next(epochs)
        if row["val_accuracy"] is KeyboardInterrupt:
            raise KeyboardInterrupt
        keep(kept, row)
        rows[:] = kept.rows

    monkeypatch.setattr(checkpoints.Checkpoints, "keep", worse)
    plan = recipe(
        photos,
        model={"name": str(base)},
        optimize={"learning_rate": 0.1, "average": average},
        finetune={"new_head": True, "fit_head": True},
        epochs=3,
    )
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        recipes.train(plan, run)
    assert "before the first epoch; validation accuracy" in (
        capsys.readouterr().out
    )
    began = weights(run)
    result = recipes.train(plan, run, verbose=0)
    assert (result["epoch"], result["epochs"]) == (0, 3)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert result["val_accuracy"] == rows[0]["val_accuracy"] >= 0
    assert len((run / "log.csv").read_text().splitlines()) == 5
    for old, new in zip(began, weights(run), strict=True):
        np.testing.assert_array_equal(old, new)
    _, val = data.load(photos, batch_size=8, seed=0)
    model = zoo.load_model(run)
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    found = model.evaluate(val, return_dict=True, verbose=0)["accuracy"]
    assert found == pytest.approx(result["val_accuracy"])
    text = tasks.of_recipe(plan).run_summary(result)
    assert "the start, as no epoch of 3 was better, kept" in text


@pytest.mark.parametrize("is_new", [False, True])
def test_a_norm_with_statistics_may_be_frozen(tmp_path, photos, is_new):
    model = tiny((9, 11, 3), 2)
    if not is_new:
        model.get_layer("bn").moving_mean.assign([0.5, 0.0, 0.0, 0.1])
    zoo.save_model(model, tmp_path / "base", ["blue", "red"])
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=1,
        keep="last",
        finetune={"freeze_norm": True},
    )
    recipes.train(plan, tmp_path / "run", verbose=0)
    tuned = zoo.load_model(tmp_path / "run")
    for name, moves in (("conv", True), ("bn", is_new)):
        for old, new in zip(
            model.get_layer(name).get_weights(),
            tuned.get_layer(name).get_weights(),
            strict=True,
        ):
            assert np.array_equal(old, new) is not moves


@pytest.mark.thorough
@needs_8_bits
def test_norms_that_were_new_stay_free(tmp_path, photos, monkeypatch):
    """Also where a run goes on in a phase that they reach trained."""
    zoo.save_model(tiny((9, 11, 3), 2), tmp_path / "base", ["blue", "red"])
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=3,
        keep="last",
        quantize={"from_epoch": 2},
        finetune={"freeze_norm": True},
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipes.train(plan, whole, verbose=0)
    interrupted(monkeypatch, 2, lambda: recipes.train(plan, broken, verbose=0))
    recipes.train(plan, broken, verbose=0)
    for one, other in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_optimizer_of_another_model_is_refused(run, photos):
    model = zoo.load_model(run)
    model.layers[1].trainable = False
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    with pytest.raises(Exception, match="Skipping variable loading"):
        checkpoints.restore(run, model)


class Told:
    """The accuracies that a run is told it has, an epoch each."""

    def __init__(self, monkeypatch, figures):
        self.epochs = []
        keep = checkpoints.Checkpoints.keep

        def tell(kept, row):
            row["val_accuracy"] = figures[row["epoch"] - 1]
            self.epochs.append(row["epoch"])
            keep(kept, row)

        monkeypatch.setattr(checkpoints.Checkpoints, "keep", tell)


@pytest.mark.thorough
def test_a_run_ends_where_the_figure_does_not_rise(
    tmp_path, photos, monkeypatch, capsys
):
    figures = [0.5, 0.6, 0.6, 0.4, 0.9, 0.9]
    told = Told(monkeypatch, figures)
    run = tmp_path / "run"
    plan = recipe(photos, epochs=6, patience=2)
    result = recipes.train(plan, run, verbose=0)
    assert told.epochs == [1, 2, 3, 4]
    assert (result["epoch"], result["epochs"]) == (2, 4)
    recipes.train(plan, run)
    assert "is complete: 4 of 6 epochs" in capsys.readouterr().out
    (run / "result.json").unlink()  # as if killed just before it
    assert recipes.train(plan, run, verbose=0)["epochs"] == 4
    assert told.epochs == [1, 2, 3, 4]
    last = recipe(photos, epochs=5, patience=2, keep="last")
    assert recipes.train(last, tmp_path / "last", verbose=0)["epochs"] == 5


@pytest.mark.thorough
def test_the_frozen_body_does_not_move(tmp_path, photos):
    recipes.train(recipe(photos), tmp_path / "base", verbose=0)
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=2,
        keep="last",
        finetune={"frozen_epochs": 2},
    )
    recipes.train(plan, tmp_path / "tuned", verbose=0)
    base = zoo.load_model(tmp_path / "base")
    tuned = zoo.load_model(tmp_path / "tuned")
    for name in ("conv", "bn"):  # moving statistics of bn included
        for old, new in zip(
            base.get_layer(name).get_weights(),
            tuned.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(old, new)
    assert not np.allclose(
        to_numpy(base.get_layer("predictions").kernel),
        to_numpy(tuned.get_layer("predictions").kernel),
    )


@pytest.mark.thorough
def test_accuracy_survives_unfreezing_and_reloading(tmp_path, photos):
    recipes.train(recipe(photos), tmp_path / "base", verbose=0)
    plan = recipe(
        photos,
        model={"name": str(tmp_path / "base")},
        epochs=4,
        keep="last",
        finetune={"frozen_epochs": 2, "layer_decay": 0.9},
    )
    result = recipes.train(plan, tmp_path / "tuned", verbose=0)
    model = zoo.load_model(tmp_path / "tuned")
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    test = data.load_test(photos, batch_size=6)
    _, accuracy = model.evaluate(test, verbose=0)
    assert accuracy == pytest.approx(result["val_accuracy"], abs=1e-6)


@pytest.mark.thorough
def test_the_average_is_validated_and_kept(tmp_path, photos):
    plan = recipe(
        photos,
        keep="last",
        optimize={"learning_rate": 0.5, "average": 0.5},
    )
    result = recipes.train(plan, tmp_path / "run", verbose=0)
    model = zoo.load_model(tmp_path / "run")
    model.compile(loss="sparse_categorical_crossentropy")
    loss = model.evaluate(data.load_test(photos, batch_size=6), verbose=0)
    assert loss == pytest.approx(result["val_loss"], abs=1e-5)


@pytest.mark.thorough
def test_without_a_validation_set(tmp_path, photos):
    plan = recipe(
        photos, data={"source": str(photos / "train"), "validation": 0}
    )
    result = recipes.train(plan, tmp_path / "run", verbose=0)
    assert result["epoch"] == 3
    assert "val_accuracy" not in result


def test_a_test_set_chooses_nothing(tmp_path, capsys):
    photos = write_photos(tmp_path / "photos", 3, 2, (9, 11), "png")
    (photos / "val").rename(photos / "test")
    best = recipes.train(recipe(photos), tmp_path / "run")
    assert best["epoch"] == 3
    assert "chooses nothing: the last epoch" in capsys.readouterr().out
    validated = data.load(write_photos(tmp_path / "b", 3, 2, (9, 11), "png"))
    assert not validated[1].is_test


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="takes tf.data"
)
def test_other_backends_want_pictures_in_memory(photos, monkeypatch):
    class Dataset:
        class_names, image_size, num_pictures = ["a", "b"], (9, 11), 10**9

    monkeypatch.setattr(recipes.classifier, "load", lambda _: (Dataset(), None))
    with pytest.raises(ValueError, match="fit in memory.*1,000,000,000"):
        recipes.classifier.PARTS.load(recipe(photos))


def test_another_recipe_does_not_overwrite_a_run(run, photos):
    with pytest.raises(ValueError, match="epochs is 1, not 2"):
        recipes.train(recipe(photos, epochs=2), run, verbose=0)


def test_a_run_of_another_kind_is_not_overwritten(run, photos):
    other = recipes.from_dict(
        {
            "segmenter": {"name": "KANetSegmenter", "alpha": 0.25},
            "data": {"source": str(photos), "class_names": ["a", "b"]},
        }
    )
    with pytest.raises(ValueError, match="segmenter is None, not"):
        recipes.train(other, run, verbose=0)


@pytest.mark.thorough
def test_a_result_of_a_run_that_begins_again_is_gone(run, photos, monkeypatch):
    """Begun anew in its folder and stopped, it is not complete."""
    (run / checkpoints.STATE).unlink()
    plan = recipe(photos, epochs=3)
    interrupted(monkeypatch, 1, lambda: recipes.train(plan, run, verbose=0))
    assert not (run / "result.json").exists()
    assert recipes.train(plan, run, verbose=0)["epochs"] == 3


def test_a_complete_run_says_how_to_go_on(run, photos, capsys):
    with pytest.raises(ValueError, match="complete.*epochs is 1, not 3") as e:
        recipes.train(recipe(photos, epochs=3), run, verbose=0)
    command = shlex.split(str(e.value).split("`")[1])
    assert command[:2] == ["kanets", "finetune"]
    assert cli.main(command[1:]) == 0
    assert f"{run}_further: " in capsys.readouterr().out
    # Fewer epochs, or a run that was stopped before, are another recipe.
    with pytest.raises(ValueError, match="another recipe"):
        recipes.train(recipe(photos, epochs=2, seed=1), run, verbose=0)


def test_a_damaged_result_is_named(run, photos):
    first = recipes.train(recipe(photos, epochs=1), run, verbose=0)
    os.truncate(run / "result.json", 10)
    with pytest.raises(ValueError, match="remove the file.*result.json"):
        recipes.train(recipe(photos, epochs=1), run, verbose=0)
    (run / "result.json").unlink()
    again = recipes.train(recipe(photos, epochs=1), run, verbose=0)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_the_state_of_other_random_layers_is_refused(tmp_path):
    model = save_state(tmp_path).model
    checkpoints.restore(tmp_path, model)
    with h5py.File(tmp_path / checkpoints.STATE, "a") as file:
        file["seeds/1"] = file["seeds/0"][()]
    message = r"of the model that goes on.*\[\(2,\), \(2,\)\], not \[\(2,\)\]"
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(tmp_path, model)
    with h5py.File(tmp_path / checkpoints.STATE, "a") as file:
        del file["seeds"]
    with pytest.raises(ValueError, match=r"shapes \[\], not \[\(2,\)\]"):
        checkpoints.restore(tmp_path, model)


def test_a_damaged_state_is_named(run, photos):
    os.truncate(run / checkpoints.STATE, 100)
    with pytest.raises(ValueError, match="cannot be read.*last.weights.h5"):
        recipes.train(recipe(photos, epochs=1), run, verbose=0)


def test_label_smoothing_reaches_the_loss(photos):
    plan = recipe(photos, optimize={"label_smoothing": 0.2})
    loss = recipes.classifier.PARTS.loss(plan, None)
    found = loss(np.array([[1.0, 0.0]]), np.array([[0.75, 0.25]]))
    # 0.2 of a label is shared among both classes.
    expected = -0.9 * np.log(0.75) - 0.1 * np.log(0.25)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-6)


def test_weight_decay_spares_norms_and_biases(tmp_path, photos, monkeypatch):
    spared = {}
    original = recipes.supervised._optimizer

    def watched(plan, model, *arguments):
        optimizer = original(plan, model, *arguments)
        for variable in model.trainable_variables:
            decayed = optimizer._use_weight_decay(variable)
            spared[variable.path] = not decayed
        return optimizer

    monkeypatch.setattr(recipes.supervised, "_optimizer", watched)
    recipes.train(recipe(photos, epochs=1), tmp_path / "run", verbose=0)
    assert spared == {
        "conv/kernel": False,
        "conv/bias": True,
        "bn/gamma": True,
        "bn/beta": True,
        "predictions/kernel": False,
        "predictions/bias": True,
    }


def test_mixed_precision_leaves_the_policy_as_it_was(tmp_path, photos):
    plan = recipe(photos, epochs=1, precision="mixed_bfloat16")
    before = keras.config.dtype_policy().name
    recipes.train(plan, tmp_path / "run", verbose=0)
    assert keras.config.dtype_policy().name == before
    loaded = zoo.load_model(tmp_path / "run")
    assert loaded.get_layer("conv").compute_dtype == "bfloat16"


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_run(tmp_path, photos):
    first, second, third = (tmp_path / str(n) for n in range(3))
    recipes.train(recipe(photos, epochs=1), first, verbose=0)
    recipes.train(recipe(photos, epochs=1), second, verbose=0)
    recipes.train(recipe(photos, epochs=1, seed=1), third, verbose=0)
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert not np.allclose(weights(first)[0], weights(third)[0])


def test_replace_keeps_the_checks(photos):
    with pytest.raises(ValueError, match="epochs=0"):
        dataclasses.replace(recipe(photos), epochs=0)
