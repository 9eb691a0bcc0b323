"""What all commands have in common: help, misuse, stops, pipes, JSON."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import typer

import kanets
from kanets import cli, evaluation, recipes
from kanets.cli import running
from kanets.cli.messages import with_flags
from kanets.cli.running import to_json
from kanets.data.threads import map_in_threads

COMMANDS = (
    "train finetune evaluate predict predict-many export verify models-config "
    "push generate interpolate invert pack list info app serve doctor demo"
).split()


def call(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def page(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) < 80 or "example: " in line for line in lines)
    return lines


@pytest.mark.thorough
def test_names_that_the_output_cannot_encode(tmp_path):
    """The rest is answered, and the name is shown as it can be."""
    from tests.photos import write_photos

    photos = write_photos(tmp_path / "photos", 1, 2, (8, 8), "png")
    first, second = sorted(photos.rglob("*.png"))[:2]
    other = first.rename(first.with_name("0虫.png"))
    command = "kanet_qkv_cifar10 --top-k 1 --device cpu".split()
    found = subprocess.run(
        [sys.executable, "-m", "kanets", "predict", *command, other, second],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"0\\u866b.png" in found.stdout
    assert second.name.encode() in found.stdout


def test_training_commands_ask_for_onednn(monkeypatch):
    """Before TensorFlow is loaded, and not against what the user said."""
    name, seen = "TF_ENABLE_ONEDNN_OPTS", []
    monkeypatch.setenv(name, "")  # so that it is undone, who ever sets it

    def ask(value, trains=True, loaded=False):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patch:
            if not loaded:
                patch.delitem(sys.modules, "tensorflow", raising=False)
            else:
                patch.setitem(sys.modules, "tensorflow", None)
            application = typer.Typer()
            application.callback()(running._options_of_all)
            patch.setattr(running, "app", application)
            running.command("look at", trains=trains)(look)
            with pytest.raises(SystemExit):
                application(["look"], obj=[])
        return seen[-1]

    def look():
        seen.append(os.environ.get(name))

    assert ask(None) == "1"
    assert ask("0") == "0"
    assert ask(None, trains=False) is None
    assert ask(None, loaded=True) is None


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["train", "recipe.toml", "--epoch", "3"], "--epochs"),
        (["evaluate", "net", "--dta", "photos"], "--data"),
        (["evalaute", "net"], "evaluate"),
    ],
)
def test_what_is_cut_short_or_misspelt_is_shown_whole(
    arguments, nearest, capsys
):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    [error] = capsys.readouterr().err.splitlines()[3:]
    assert error.startswith("Error: No such ")
    assert re.findall("[a-z-]+", error)[-1] == nearest


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, capsys):
    lines = page(capsys, name)
    assert f"example: kanets {name} " in lines[-1]
    assert len(lines) <= 40
    reports = any(line.startswith("  --json ") for line in lines)
    assert reports == (name not in ("app", "serve"))


def test_the_page_of_all_commands_fits(capsys):
    lines = page(capsys)
    start = lines.index("Commands:") + 1
    assert [line.split()[0] for line in lines[start:-2]] == COMMANDS
    assert all(line.endswith(".") for line in lines[start:-2])
    assert len(lines) <= 36


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"kanets {kanets.__version__}\n"


def test_misuse_is_exit_code_2(capsys):
    for arguments in (
        [],
        ["fly"],
        ["train"],
        ["export", "x", "--to", "y", "--format", "foo"],
        ["export", "x", "--to", "y", "--batch-size", "one"],
        ["export", "x", "--to", "y", "--image-size", "any", "one"],
        ["finetune", "x", "--data", "y", "--to", "z", "--image-size", "3"],
        ["evaluate", "x", "--data", "y", "--on-error", "weep"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2, arguments
    capsys.readouterr()


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "read", stop)
    code, _, err = call(capsys, "train", "any.toml", "--to", "x")
    assert code == 130 and "continues with the same command" in err
    monkeypatch.setattr(kanets.zoo, "list_models", stop)
    code, _, err = call(capsys, "list")
    assert code == 130 and err == "kanets: stopped.\n"


def test_debug_shows_the_traceback(capsys):
    train = ["train", "none.toml", "--to", "x"]
    for arguments in ([*train, "--debug"], ["--debug", *train]):
        code, _, err = call(capsys, *arguments)
        assert code == 1 and "Traceback" in err
    code, _, err = call(capsys, *train)
    assert code == 1 and "Traceback" not in err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_leaves_ends_it_quietly(more, monkeypatch, capsys):
    """As `kanets list | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert cli.main(["list", *more]) == 141
        monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


def test_another_broken_pipe_is_an_error(monkeypatch, capsys):
    def fail(*_, **__):
        raise BrokenPipeError("the runtime ended")

    monkeypatch.setattr(kanets.zoo, "list_models", fail)
    code, _, err = call(capsys, "list")
    assert code == 1 and err == "kanets: error: the runtime ended\n"


def test_errors_name_the_flags():
    flags = {"top_k": "--top-k", "to": "--to", "data": "--data"}
    for python, command in (
        (
            "`top_k` must. Received: top_k=0",
            "`--top-k` must. Received: --top-k 0",
        ),
        ("Received: to=None", "Received: no --to"),
        ("source='a b'", "--data 'a b'"),
        ("source='a'", "--data a"),
        ("`epochs` runs/to=1 epochs=1", "`epochs` runs/to=1 epochs=1"),
    ):
        assert with_flags(python, flags) == command


def test_what_train_is_not_given_stands_in_the_recipe(monkeypatch, capsys):
    def fail(_):
        raise ValueError("Received: epochs=3, seed=0")

    monkeypatch.setattr(recipes, "read", fail)
    code, _, err = call(capsys, "train", "a.toml", "--to", "x", "--seed", "0")
    assert code == 1
    assert err == "kanets: error: Received: epochs=3, --seed 0\n"


@pytest.mark.parametrize("name", ["train", "finetune", "evaluate", "predict"])
def test_workers_read_the_pictures(monkeypatch, capsys, name):
    counts = []

    def fail(*_, **__):
        counts.append(len(set(map_in_threads(who, range(40)))))
        raise ValueError("seen")

    def who(_):
        time.sleep(0.005)
        return threading.current_thread()

    monkeypatch.setattr(recipes, "read", fail)
    monkeypatch.setattr(recipes, "finetune_recipe", fail)
    for function in ("evaluate", "find_pictures"):
        monkeypatch.setattr(evaluation, function, fail)
    options = ["--data", "x", "--to", "x"]
    options = {"evaluate": options[:2], "predict": ["x"]}.get(name, options)
    for workers in ([], ["--workers", 2], []):
        code, _, err = call(capsys, name, "a.toml", *options, *workers)
        assert (code, err) == (1, "kanets: error: seen\n")
    assert counts[1] == 2 < counts[0] == counts[2]
    code, _, err = call(capsys, name, "a.toml", *options, "--workers", 0)
    assert code == 1 and len(counts) == 3
    assert err == (
        "kanets: error: `--workers` must be a positive integer. "
        "Received: --workers 0\n"
    )


def test_json_has_no_nan_and_knows_numpy(tmp_path):
    value = {
        "loss": float("nan"),
        "sizes": (np.int64(3), np.float32(0.5), np.array([1, np.inf])),
        "folder": tmp_path,
        1: True,
    }
    assert json.loads(to_json(value)) == {
        "loss": None,
        "sizes": [3, 0.5, [1, None]],
        "folder": str(tmp_path),
        "1": True,
    }


def test_a_device_that_is_not_there_is_named(capsys):
    options = ("predict", "a", "b.jpg", "--device", "tpu:9")
    code, _, err = call(capsys, *options)
    assert code == 1
    assert err.startswith("kanets: error: `--device` must be one of cpu:0")
    assert err.endswith("Received: 'tpu:9'\n")
