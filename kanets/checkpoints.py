"""Keeps a run's folder: the log, the best model, the state to resume from."""

import csv
import json
import os
from pathlib import Path

import h5py
import keras

from kanets import zoo

STATE = "last.weights.h5"
LOG = "log.csv"
BEST = "best"


class Progress(keras.callbacks.Callback):
    """After every epoch: `last.weights.h5` and `log.csv`.

    `last.weights.h5` holds weights, optimizer and the progress of the
    run. It is replaced in one step, so that a run killed at
    any moment finds a whole one. The log is written from the same progress
    and cannot disagree with it.

    Args:
        directory: the run's folder.
        batches: the training set; its `epoch`, if it has one, is set so that
            a resumed run sees the order it would have seen.
    """

    def __init__(self, directory, batches):
        super().__init__()
        self.directory = Path(directory)
        self.batches = batches
        self.rows, self.best = read_progress(directory)

    def on_epoch_begin(self, epoch, logs=None):
        if hasattr(self.batches, "epoch"):
            self.batches.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        row = {"epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        self.rows.append(row)
        # Before the state: a kill in between repeats this epoch.
        self.keep(row)
        self.save_state()
        write_log(self.directory, self.rows)

    def keep(self, row):
        """Saves what the run is for, if this epoch's row says so."""

    def save_state(self):
        path = self.directory / STATE
        fresh = path.with_name(f".{path.name}")
        self.model.save_weights(fresh, overwrite=True)
        with h5py.File(fresh, "a") as file:
            file["progress"] = json.dumps(
                {"rows": self.rows, "best": self.best}
            )
            for index, state in enumerate(_seed_states(self.model)):
                file[f"seeds/{index}"] = keras.ops.convert_to_numpy(state)
        os.replace(fresh, path)


class Checkpoints(Progress):
    """`Progress`, and `best/`, the model of the best epoch so far.

    Args:
        directory, batches: as in `Progress`.
        class_names: labels, saved with the best model.
        monitor: the column of the log whose greatest value marks the epoch
            that is kept in `best/`.
        average: a `keras.callbacks.SwapEMAWeights` if the model that is
            validated and kept is the moving average of the weights.
    """

    def __init__(self, directory, class_names, monitor, average, batches):
        super().__init__(directory, batches)
        self.class_names = class_names
        self.monitor = monitor
        self.average = average

    def on_train_end(self, logs=None):
        if self.average is not None:
            # Keras has just put the average into the weights.
            self.save_state()

    def keep(self, row):
        if self.best is not None and row[self.monitor] <= self.best:
            return
        self.best = row[self.monitor]
        if self.average is not None:
            self.average.on_test_begin()
        try:
            zoo.save_model(self.model, self.directory / BEST, self.class_names)
        finally:
            if self.average is not None:
                self.average.on_test_end()


def restore(directory, model, with_optimizer=True):
    """Puts the state of a run into a compiled model.

    Args:
        directory: the run's folder.
        model: the model, compiled with the optimizer of the run.
        with_optimizer: False leaves the optimizer as it is.
    """
    path = Path(directory) / STATE
    if with_optimizer:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
    else:
        keras.Model(model.input, model.output).load_weights(path)
    # Keras leaves the state of random layers, such as dropout, out.
    with h5py.File(path, "r") as file:
        for index, state in enumerate(_seed_states(model)):
            state.assign(file[f"seeds/{index}"][()])


def _seed_states(model):
    return [v for v in model.variables if v.name == "seed_generator_state"]


def read_progress(directory):
    """Rows of the log and the best value so far of a run, maybe none.

    Raises:
        ValueError: the state file is damaged.
    """
    path = Path(directory) / STATE
    if not path.exists():
        return [], None
    try:
        with h5py.File(path, "r") as file:
            progress = json.loads(file["progress"][()])
    except (OSError, KeyError) as error:
        raise ValueError(
            "The state of this run cannot be read; remove the file to start "
            f"again. Received: {str(path)!r} ({error})"
        ) from error
    return progress["rows"], progress["best"]


def replace_text(path, text):
    """Writes a text file, whole or not at all."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def write_log(directory, rows):
    """Writes `log.csv`, whole or not at all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path = Path(directory) / LOG
    fresh = path.with_name(f".{LOG}")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if k != "epoch" else v for k, v in row.items()}
            )
    os.replace(fresh, path)
