"""The phases of a run: the head alone, all layers, all layers in 8 bits."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Phase:
    """Epochs that train the same weights in the same way.

    Attributes:
        first_epoch, last_epoch: whole epochs before it and at its end.
        frozen: whether the body is.
        quantized: whether it computes as 8-bit integers do.
    """

    first_epoch: int
    last_epoch: int
    frozen: bool = False
    quantized: bool = False

    @property
    def part(self):
        """What it trains, in words."""
        if self.quantized:
            return "all layers, in 8 bits"
        return "the head alone" if self.frozen else "all layers"


def phases(recipe):
    """The phases of a recipe that have an epoch, in order."""
    frozen, exact = recipe.finetune.frozen_epochs, unquantized(recipe)
    found = [
        Phase(0, frozen, frozen=True),
        Phase(frozen, exact),
        Phase(exact, recipe.epochs, quantized=True),
    ]
    return [p for p in found if p.last_epoch > p.first_epoch]


def unquantized(recipe):
    """How many epochs come before those of 8 bits."""
    section = getattr(recipe, "quantize", None)  # classifiers' recipes have it
    if section is None or not section.from_epoch:
        return recipe.epochs
    return section.from_epoch - 1


def comparable(recipe, rows):
    """The rows of the log among which one is kept: of 8 bits, or all."""
    exact = unquantized(recipe)
    if exact == recipe.epochs:
        return rows
    return [row for row in rows if row["epoch"] > exact]


class Patience(keras.callbacks.Callback):
    """Ends a run whose figure has not risen for as long as its recipe waits."""

    async_safe = True  # as `kanets.checkpoints.Progress`

    def __init__(self, recipe, phase, kept, monitor):
        super().__init__()
        self.before = phase.first_epoch
        self.patience = recipe.patience if monitor != "epoch" else 0
        self.kept, self.monitor = kept, monitor

    def on_epoch_end(self, epoch, logs=None):
        if self.is_over():
            self.model.stop_training = True

    def is_over(self):
        figures = [
            row[self.monitor]
            for row in self.kept.rows
            if row["epoch"] > self.before
        ]
        if not self.patience or len(figures) <= self.patience:
            return False
        return max(figures[-self.patience :]) <= max(figures[: -self.patience])
