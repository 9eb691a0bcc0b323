"""What a person sees of a run: a bar with the time it still takes, and lines.

On a terminal the bar is of the whole run, with the epoch's step and figures
below it, and redrawn four times a second by a thread of its own, so that
training waits for nothing. Everywhere a line is printed after each epoch.
"""

import collections
import sys
import threading
import time

import keras

# What a step takes before one of its kind was seen: a backward pass through all
# layers counts as two forward passes. Other kinds are "first", a step that
# compiles, "between", the end of an epoch, and "begin", of `fit()`.
_WEIGHTS = {"head": 1, "all": 3, "validation": 1}


class Pace:
    """How long steps of each kind take, and so what is ahead.

    Args:
        clock: function that returns seconds.
    """

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.seconds = collections.Counter()
        self.count = collections.Counter()
        self._last = clock()
        self._lock = threading.Lock()  # Keras may call from several threads

    def lap(self, kind):
        """The time since the last lap was one step of a kind."""
        with self._lock:
            now = self.clock()
            self.seconds[kind] += now - self._last
            self.count[kind] += 1
            self._last = now

    def left(self, ahead):
        """Seconds that steps ahead will take; None before one was seen.

        Args:
            ahead: dict from kinds to numbers of steps.
        """
        with self._lock:
            seen = sum(_WEIGHTS[k] * self.count[k] for k in _WEIGHTS)
            if not seen:
                return None
            unit = sum(self.seconds[k] for k in _WEIGHTS) / seen
            return sum(
                number * self.seconds[kind] / self.count[kind]
                if self.count[kind]
                else number * unit * _WEIGHTS.get(kind, 0)
                for kind, number in ahead.items()
            )


class Display(keras.callbacks.Callback):
    """Shows how far a run of one or more calls of `fit()` is.

    Used as a context manager around all of them.

    Args:
        phases: list of `(first epoch, last epoch, kind)`, the calls of
            `fit()`, each from and to such a number of whole epochs; a kind
            is "head" or "all", what is trained.
        steps: int, of an epoch.
        validation_steps: int.
        done: int, whole epochs before.
        best: float, the greatest value of the column so far, or None.
        column: of the log, whose greatest value marks the epoch that is
            kept, or None.
    """

    async_safe = True  # as `kanets.checkpoints.Progress`

    def __init__(
        self, phases, steps, validation_steps=0, done=0, best=None, column=None
    ):
        super().__init__()
        self.phases = phases
        self.steps = steps
        self.validation_steps = validation_steps
        self.best = best
        self.column = column
        self.epochs = phases[-1][1]
        self.pace = Pace()
        self._live = None
        self._logs = {}
        self._begin(done)
        self._kinds = set()  # of which the first, that compiles, is over
        self._all = self._weight(self._ahead(0, 0, 0))

    def __enter__(self):
        from rich.console import Console
        from rich.live import Live

        console = Console()
        # Not `console.is_terminal`, which is so wherever colours are forced.
        if sys.stdout.isatty() and not console.is_dumb_terminal:
            self._live = Live(
                self,
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        return self

    def __exit__(self, *exception):
        if self._live is not None:
            self._live.stop()

    def __rich__(self):
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        place = self._epoch, self._step, self._validation
        ahead = self._ahead(*place)
        left = self.pace.left(ahead)
        line = Table.grid(expand=True, padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(
            f"epoch {min(self._epoch + 1, self.epochs)} of {self.epochs}",
            ProgressBar(self._all, self._all - self._weight(ahead)),
            "" if left is None else f"{spoken(left)} left",
        )
        return Group(line, Text(self._below(), no_wrap=True, style="dim"))

    def show_start(self, logs):
        """Says how good the model is before the first epoch.

        Args:
            logs: figures of the validation set, named as in a log.
        """
        print(f"before the first epoch{self._said(logs)}", flush=True)

    def on_train_begin(self, logs=None):
        self.pace.lap("begin")
        self._kinds.clear()  # each `fit()` is of a step compiled anew

    def on_epoch_begin(self, epoch, logs=None):
        self._begin(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self._lap(self._kind())
        self._step, self._logs = batch + 1, logs or {}

    def on_test_batch_end(self, batch, logs=None):
        self._lap("validation")
        self._validation = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        self.pace.lap("between")
        seconds = self.pace.clock() - self._start
        print(
            f"epoch {epoch + 1} of {self.epochs}: {self._said(logs or {})}; "
            f"{spoken(seconds)}",
            flush=True,
        )

    def _said(self, logs):
        """An epoch's figures in one line, but for the validation loss."""
        validated = {k: v for k, v in logs.items() if k.startswith("val_")}
        text = _figures({k: v for k, v in logs.items() if k not in validated})
        validated.pop("val_loss", None)
        for name, value in validated.items():
            text += f"; validation {_figures({name[4:]: value})}"
            if name == self.column and (self.best is None or value > self.best):
                self.best = value
                text += " (best)"
        return text

    def _begin(self, epoch):
        self._epoch, self._step, self._validation = epoch, 0, 0
        self._start = self.pace.clock()

    def _lap(self, kind):
        first = kind not in self._kinds
        self._kinds.add(kind)
        self.pace.lap("first" if first else kind)

    def _kind(self):
        for first, last, kind in self.phases:
            if first <= self._epoch < last:
                return kind
        return self.phases[-1][2]

    def _ahead(self, epoch, step, validation):
        """Steps of each kind from here to the end of the run."""
        ahead = collections.Counter()
        for first, last, kind in self.phases:
            epochs = max(0, last - max(first, epoch))
            if not epochs:
                continue
            inside = first <= epoch
            ahead[kind] += epochs * self.steps - inside * step
            ahead["validation"] += (
                epochs * self.validation_steps - inside * validation
            )
            ahead["between"] += epochs
            ahead["first"] += (1 + bool(self.validation_steps)) * (not inside)
        return ahead

    def _weight(self, ahead):
        return sum(_WEIGHTS[kind] * ahead[kind] for kind in _WEIGHTS)

    def _below(self):
        if self._validation:
            return f"validating, {self._validation} of {self.validation_steps}"
        if not self._step:
            return "the first step takes a while" if not self._kinds else ""
        return f"step {self._step} of {self.steps}: {_figures(self._logs)}"


def spoken(seconds):
    """A duration in words: "5 s", "2 min 10 s", "1 h 5 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _figures(logs):
    return ", ".join(
        f"{name.replace('_', ' ')} {float(value):.3f}"
        for name, value in logs.items()
    )
