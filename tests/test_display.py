"""The bar and the lines of a run, and how long it still takes."""

import sys

import keras
import numpy as np
import pytest

from kanets.train.display import Display, Pace, spoken

PHASES = [(0, 1, "head"), (1, 3, "all")]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_pace_is_measured_or_guessed():
    clock = Clock()
    pace = Pace(clock)
    assert pace.left({"head": 3}) is None
    for kind, seconds in (
        ("first", 10),
        ("head", 1),
        ("head", 3),
        ("validation", 1),
        ("between", 5),
    ):
        clock.now += seconds
        pace.lap(kind)
    assert pace.left({"head": 3}) == 3 * 2
    assert pace.left({"first": 1, "between": 2}) == 10 + 2 * 5
    # Not seen yet: three passes, each of 5 seconds by 3 seen.
    assert pace.left({"all": 2}) == pytest.approx(2 * 3 * 5 / 3)


def test_all_that_is_ahead_is_counted():
    display = Display(PHASES, steps=7, validation_steps=2)
    assert display._ahead(0, 0, 0) == {
        "head": 7,
        "all": 14,
        "validation": 6,
        "between": 3,
        "first": 2,
    }
    ahead = display._ahead(1, 3, 0)
    assert ahead["head"] == 0 and ahead["all"] == 11
    assert ahead["validation"] == 4 and ahead["first"] == 0
    ahead = display._ahead(2, 7, 1)
    assert (ahead["all"], ahead["validation"], ahead["between"]) == (0, 1, 1)
    assert display._weight(display._ahead(3, 0, 0)) == 0


def test_durations_are_spoken():
    assert [spoken(s) for s in (0.4, 59.6, 130, 3599, 3600, 3900)] == [
        *("0 s", "1 min 0 s", "2 min 10 s", "59 min 59 s"),
        *("1 h 0 min", "1 h 5 min"),
    ]


def fit(display, first, last, look=None):
    """A call of `fit()` on 6 pictures, two a step."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.zeros((6, 2)), np.zeros((6, 1))
    callbacks = [display]
    if look is not None:
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=look))
    model.fit(
        *(x, y, 2),
        initial_epoch=first,
        epochs=last,
        validation_data=(x, y),
        validation_batch_size=3,
        callbacks=callbacks,
        verbose=0,
    )


def test_a_line_an_epoch_where_there_is_no_terminal(capsys):
    with Display(PHASES, 3, 2, column="val_mae", best=-1.0) as display:
        fit(display, 0, 1)
        fit(display, 1, 3)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3 and not err and "\x1b" not in out
    said = "loss 0.000, mae 0.000; validation mae 0.000"
    assert lines[0].startswith(f"epoch 1 of 3: {said} (best); ")
    assert lines[2].startswith(f"epoch 3 of 3: {said}; ")
    assert lines[0].endswith(" s")
    assert display.pace.count == {
        "begin": 2,
        "first": 4,  # of each call a step, and one of validation
        "head": 2,
        "all": 5,
        "validation": 4,
        "between": 3,
    }


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    seen = []

    def look(epoch, logs):
        from rich.console import Console

        console = Console(width=60, color_system=None)
        with console.capture() as captured:
            console.print(display)
        seen.append(captured.get().splitlines())

    with Display(PHASES, 3, 2, done=1) as display:
        fit(display, 1, 3, look)
    out, _ = capsys.readouterr()
    assert "\x1b[?25l" in out and out.count("\x1b[?25h") == 1, "cursor is back"
    assert "epoch 3 of 3: " in out
    for place, (bar, below) in enumerate(seen):
        assert bar.startswith(f"epoch {place + 2} of 3 ") and "━" in bar
        assert bar.rstrip().endswith(" s left")
        assert len(bar) <= 60 and len(below) <= 60
        assert below.rstrip() == "validating, 2 of 2"


def test_the_bar_goes_when_training_is_stopped(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt):
        with Display(PHASES, 3):
            raise KeyboardInterrupt
    assert "\x1b[?25h" in capsys.readouterr().out
    print("as ever")
    assert capsys.readouterr().out == "as ever\n"


def test_below_the_bar():
    display = Display(PHASES, 3, 2)
    assert display._below() == "the first step takes a while"
    display._lap("head")
    display._step, display._logs = 1, {"loss": 0.5}
    assert display._below() == "step 1 of 3: loss 0.500"
