"""Keeps a run's folder: the log, the best model, the state to resume from."""

import csv
import json
import math
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np

from kanets import files, zoo
from kanets.distribute.mirrored import as_saved
from kanets.zoo.saving import nbytes, not_finite

STATE = "last.weights.h5"
LOG = "log.csv"
BEST = "best"


class Progress(keras.callbacks.Callback):
    """After every epoch: `last.weights.h5` and `log.csv`.

    `last.weights.h5` holds weights, optimizer and the progress of the
    run. It is replaced in one step, so that a run killed at
    any moment finds a whole one. The log is written from the same progress
    and cannot disagree with it.

    Nothing is kept of an epoch in which a loss, a figure, a weight or the
    optimizer's state is NaN or infinite: then the run ends. A loss is looked
    at after each step, the rest at the end of the epoch.

    Args:
        directory: the run's folder.
        batches: the training set; its `epoch`, if it has one, is set so that
            a resumed run sees the order it would have seen.

    Raises, in `fit()`:
        FloatingPointError: something is not finite; it names what, the epoch
            and what to do.
        OSError: a file cannot be written, which is named.
    """

    # Keras then calls `on_train_batch_end` beside the training, which does
    # not wait for the device to have the loss, and is ended by what it raises.
    async_safe = True

    def __init__(self, directory, batches):
        super().__init__()
        self.directory = Path(directory)
        self.batches = batches
        self.epoch = None
        self.rows, self.best = read_progress(directory)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if hasattr(self.batches, "epoch"):
            self.batches.epoch = epoch
        _seed_dropout([getattr(self.batches, "seed", None) or 0, epoch])

    def on_train_batch_end(self, batch, logs=None):
        # A mean over the epoch so far, which NaN and infinity do not leave.
        self._check({k: v for k, v in (logs or {}).items() if "loss" in k})

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        row = {"epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        self._check(row)
        variables = self.model.variables + self.model.optimizer.variables
        if (name := not_finite(variables)) is not None:
            self._stop(name)
        self.rows.append(row)
        # Before the state: a kill in between repeats this epoch.
        self.keep(row)
        self.save_state()
        write_log(self.directory, self.rows)

    def keep(self, row):
        """Saves what the run is for, if this epoch's row says so."""

    def _check(self, figures):
        for name, value in figures.items():
            if not math.isfinite(value):
                self._stop(f"{name}={value}")

    def _stop(self, what):
        if self.rows:
            kept = (
                "in a new folder, as this one keeps epoch "
                f"{self.rows[-1]['epoch']}, the last sound one"
            )
        else:
            kept = "nothing was kept yet"
        raise FloatingPointError(
            f"Training must stay finite, and ended in epoch {self.epoch + 1} "
            f"of {self.params['epochs']}. Likely the learning rate is too "
            "high, the precision too low, or a picture or label wrong: change "
            f"that and train again ({kept}). Received: {what} in "
            f"{str(self.directory)!r}"
        )

    def save_state(self):
        size = nbytes(self.model.variables + self.model.optimizer.variables)
        with files.whole(self.directory / STATE, size) as fresh:
            self.model.save_weights(fresh)
            with h5py.File(fresh, "a") as file:
                file["progress"] = json.dumps(
                    {"rows": self.rows, "best": self.best}
                )
                for index, state in enumerate(_seed_states(self.model)):
                    file[f"seeds/{index}"] = keras.ops.convert_to_numpy(state)


class Checkpoints(Progress):
    """`Progress`, and `best/`, the model of the best epoch so far.

    Args:
        directory, batches: as in `Progress`.
        class_names: labels, saved with the best model.
        monitor: the column of the log whose greatest value marks the epoch
            that is kept in `best/`.
        average: a `keras.callbacks.SwapEMAWeights` if the model that is
            validated and kept is the moving average of the weights.
        served: the model that is kept, with the weights of the one that
            trains.
    """

    def __init__(
        self, directory, class_names, monitor, average, batches, served
    ):
        super().__init__(directory, batches)
        self.class_names = class_names
        self.monitor = monitor
        self.average = average
        self.served = served

    def keep_start(self, figures):
        """Counts the model as it is before the first epoch as epoch 0.

        Args:
            figures: dict from columns of the log to floats.
        """
        row = {"epoch": 0, **figures}
        self.rows.append(row)
        self.best = row[self.monitor]
        self._save()

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
            self._save()
        finally:
            if self.average is not None:
                self.average.on_test_end()

    def _save(self):
        self.served.set_weights(self.model.get_weights())
        with as_saved(self.served):
            zoo.save_model(self.served, self.directory / BEST, self.class_names)


def restore(directory, model):
    """Puts the state of a run into a compiled model.

    Args:
        directory: the run's folder.
        model: the model, compiled with the optimizer of the run.

    Raises:
        ValueError: the state is of another model.
    """
    path = Path(directory) / STATE
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():  # Keras would begin with a new optimizer
        warnings.filterwarnings("error", message="Skipping variable loading")
        model.load_weights(path)
    # Keras leaves the state of random layers, such as dropout, out.
    states = _seed_states(model)
    with h5py.File(path, "r") as file:
        group = file.get("seeds", {})
        saved = [group[str(index)][()] for index in range(len(group))]
    found, wanted = ([tuple(s.shape) for s in x] for x in (saved, states))
    if found != wanted:
        raise ValueError(
            "The state of a run must be of the model that goes on: choose a "
            f"new folder. Received: {str(path)!r} with random layers' states "
            f"of shapes {found}, not {wanted}"
        )
    for state, value in zip(states, saved, strict=True):
        state.assign(value)


def _seed_dropout(key):
    """Makes Keras's dropout repeatable on PyTorch, where it has no state.

    There it draws from the one generator of PyTorch, of which no file of a
    model tells; elsewhere `_seed_states` are all.
    """
    if keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def _seed_states(model):
    return [v for v in model.variables if v.name == "seed_generator_state"]


def epochs_done(rows):
    """Whole epochs of a run, of the rows of its log."""
    return rows[-1]["epoch"] if rows else 0


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


def write_log(directory, rows):
    """Writes `log.csv`, whole or not at all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (
        files.whole(Path(directory) / LOG) as fresh,
        fresh.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if k != "epoch" else v for k, v in row.items()}
            )
