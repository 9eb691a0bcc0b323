"""A run of `compile()` and `fit()` on labelled pictures, in a run's folder."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kanets import compat, quantization, tasks, zoo
from kanets.distribute.mirrored import is_mirrored, prepare
from kanets.distribute.processes import local
from kanets.distribute.shares import shard
from kanets.evaluation.report import check_folder
from kanets.nets import logits_model
from kanets.nets.backbones import body_layers
from kanets.train import checkpoints, display
from kanets.train.optimizers import layer_decay_factors
from kanets.train.pruning import MagnitudePruning
from kanets.train.recipes.dashboards import (
    Pictures,
    tensorboard,
    wandb_logger,
)
from kanets.train.recipes.folder import (
    REPORT,
    claim,
    precision,
    printer,
    read_result,
    write_result,
)
from kanets.train.recipes.phases import Patience, comparable, phases
from kanets.train.recipes.rules import OPTIMIZERS
from kanets.zoo.loading import HEADS


@dataclasses.dataclass(frozen=True)
class Parts:
    """What differs from one kind of model to another.

    Attributes:
        load: recipe -> training and validation set, the latter maybe None.
        build: recipe, training set, function that prints -> model whose last
            trained layer is one of `kanets.zoo.loading.HEADS`.
        start: recipe, model, training set, function that prints -> whether
            the model, its head included, is of use already: then it counts as
            epoch 0. Called before the first epoch of a run.
        loss: recipe, training set, whether the outputs are logits -> loss.
        metrics: training set -> list of metrics; the greatest value of the
            one that is the task's figure marks the best epoch.
        taught: recipe, training set, the net's logits as a model, or None,
            function that prints -> the model that trains, of their weights.
    """

    load: Callable
    build: Callable
    loss: Callable
    metrics: Callable
    start: Callable = lambda recipe, model, train_set, say: False
    taught: Callable = lambda recipe, train_set, logits, say: logits


def train(parts, recipe, directory, verbose=1, report=False):
    """Runs a recipe with `compile()` and `fit()` in a run's folder.

    The folder holds `recipe.toml`, `log.csv` (a row an epoch), `best/` (the
    model folder of the best validation figure), `last.weights.h5` (to
    resume from), `tensorboard/` where TensorBoard's writer is installed (the
    report's pictures, too), and at the end `result.json`. A run that was
    stopped, by whatever, continues
    from its last whole epoch when `train` is called again.

    Args:
        parts: the `Parts`.
        recipe: a recipe of that kind.
        directory: the run's folder, new or of the same recipe.
        verbose: 0 prints nothing; 1 shows a bar of the whole run, where the
            output is a terminal, and prints a line an epoch; 2 as in `fit()`.
        report: bool, whether `report/` gets where the best model errs on the
            validation set, if there is one; see `kanets.evaluation.report`.

    Returns:
        A dict: the best epoch's row of the log, `parameters`, `seconds` of
        this call and `epochs` of the run; with a report also `weakest`, the
        figures of at most three classes, and `report`, its folder's name.

    Raises:
        ValueError: the folder is of another recipe (the differing fields are
            named), or a file in it is damaged; a recipe's value is refused by
            what it configures; `report/` holds something else.
        kanets.data.BadPicturesError: pictures that cannot be read.
        FloatingPointError: the training diverged; what was kept before is
            sound.
        BlockingIOError: another process trains in the folder.
        OSError: a file cannot be written, which is named.
    """
    directory = Path(directory)
    start = time.time()
    if any(phase.quantized for phase in phases(recipe)):
        quantization.check_backend()
    claim(recipe, directory, scheduled=True)
    say = printer(verbose)
    rows, _ = checkpoints.read_progress(directory)
    done = checkpoints.epochs_done(rows)
    result = read_result(directory)
    # Fewer epochs than the recipe's, where the figure did not rise.
    if result is not None and done >= result.get("epochs", recipe.epochs):
        say(f"{directory} is complete: {done} of {recipe.epochs} epochs.")
        return result
    if report:
        check_folder(directory / REPORT)
    if done:
        say(
            f"Resuming {directory} after epoch {done} of {recipe.epochs}, "
            "from its last checkpoint."
        )
    with precision(recipe.precision):
        keras.utils.set_random_seed(recipe.seed)
        with local():
            train_set, validation_set = parts.load(recipe)
        model = parts.build(recipe, train_set, say)
        say(
            f"{model.name}: {model.count_params():,} parameters; "
            f"{train_set.num_pictures:,} pictures of "
            f"{len(train_set.class_names)} classes."
        )
        of_use = not done and parts.start(recipe, model, train_set, say)
        if recipe.keep == "best" and getattr(validation_set, "is_test", False):
            say(
                "The pictures held out are a test set, which chooses nothing: "
                "the last epoch is kept."
            )
        sets = train_set, validation_set
        _fit_all(parts, model, recipe, done, of_use, sets, directory, verbose)
        written = {}
        if report and validation_set is not None:
            with local():
                written = _report(recipe, validation_set, directory, say)
    rows, _ = checkpoints.read_progress(directory)
    monitor = _monitor(recipe, validation_set)
    best = max(comparable(recipe, rows), key=lambda row: row[monitor])
    result = {
        **best,
        "parameters": model.count_params(),
        "epochs": checkpoints.epochs_done(rows),
        "seconds": round(time.time() - start, 1),
        **written,
    }
    checkpoints.write_log(directory, rows)
    write_result(directory, result)
    return result


def _fit_all(parts, model, recipe, done, of_use, sets, directory, verbose):
    """All phases that are not over, on the training and validation set."""
    shown, say = None, printer(verbose)
    # Those that were loaded, whatever the phases make of the others.
    frozen_norms = _trained_norms(model) if recipe.finetune.freeze_norm else ()
    # One for all phases: it and what is served share no head.
    student = logits_model(model)
    logits = parts.taught(recipe, sets[0], student, say)
    if verbose == 1:
        shown, verbose = _display(recipe, sets, directory), 0
    with shown or contextlib.nullcontext():
        for phase in phases(recipe):
            begin = max(done, phase.first_epoch)
            if begin < phase.last_epoch:
                say(
                    f"Compiling the training step of {phase.part}; the first "
                    "takes a while."
                )
            if phase.quantized:
                model = quantization.prepare(model)
                if student is not None:
                    student = quantization.prepare(student)
                    logits = parts.taught(recipe, sets[0], student, say)
            # Also a phase that was stopped before its end: without an epoch,
            # `fit()` does what remains, such as to put the average in place.
            if begin <= phase.last_epoch:
                _fit(
                    parts,
                    model,
                    logits,
                    recipe,
                    phase,
                    frozen_norms,
                    begin,
                    of_use and not begin and not phase.quantized,
                    sets,
                    directory,
                    shown,
                    verbose,
                )


def _fit(
    parts,
    served,
    logits,
    recipe,
    phase,
    frozen_norms,
    initial_epoch,
    of_use,
    sets,
    directory,
    shown,
    verbose,
):
    """One phase: compile, restore what there is, and `fit()`."""
    train_set, validation_set = sets
    model = served if logits is None else logits
    for layer in model.layers:
        layer.trainable = layer.name in HEADS or not phase.frozen
    for layer in compat.all_layers(model):
        if layer.name in frozen_norms:
            layer.trainable = False
    steps = len(train_set)
    epochs = phase.last_epoch - phase.first_epoch
    model.compile(
        optimizer=_optimizer(recipe, model, steps, epochs, phase.quantized),
        loss=parts.loss(recipe, train_set, logits is not None),
        metrics=parts.metrics(train_set),
        jit_compile=recipe.jit_compile,
    )
    # TensorFlow traces a step that makes variables a second time.
    model.optimizer.build(model.trainable_variables)
    if initial_epoch > phase.first_epoch:
        checkpoints.restore(directory, model)
    if is_mirrored():
        prepare(model, train_set)
    train_set = shard(train_set, model)
    validation_set = shard(validation_set, model)
    average = None
    if recipe.optimize.average:
        average = keras.callbacks.SwapEMAWeights()
    monitor = _monitor(recipe, validation_set)
    kept = checkpoints.Checkpoints(
        directory,
        train_set.class_names,
        monitor,
        average,
        train_set,
        served,
    )
    if phase.quantized and initial_epoch == phase.first_epoch:
        kept.best = None  # of another kind of model
        if shown is not None:
            shown.best = None
    if of_use and monitor != "epoch":
        figures = model.evaluate(validation_set, return_dict=True, verbose=0)
        figures = {f"val_{name}": x for name, x in figures.items()}
        kept.set_model(model)
        kept.keep_start(figures)
        if shown is not None:
            shown.show_start(figures)
    waits = None if phase.frozen else Patience(recipe, phase, kept, monitor)
    elsewhere = tensorboard(directory), wandb_logger(recipe, directory)
    pruned = _pruning(recipe, phase)
    callbacks = [average, pruned, kept, waits, *elsewhere, shown]
    over = waits is not None and waits.is_over()
    model.fit(
        train_set,
        validation_data=validation_set,
        initial_epoch=initial_epoch,
        epochs=initial_epoch if over else phase.last_epoch,
        callbacks=[c for c in callbacks if c is not None],
        shuffle=False,  # the set shuffles itself, repeatably
        verbose=verbose,
    )


def _pruning(recipe, phase):
    """What sets weights to zero in a phase, or None."""
    if phase.frozen or not recipe.prune.sparsity:
        return None
    return MagnitudePruning(**vars(recipe.prune))


def _trained_norms(model):
    """Names of the batch norms whose statistics are not as new."""
    names = set()
    for layer in compat.all_layers(model):
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        mean, variance = (
            keras.ops.convert_to_numpy(v)
            for v in (layer.moving_mean, layer.moving_variance)
        )
        if np.any(mean != 0) or np.any(variance != 1):
            names.add(layer.name)
    return names


def _display(recipe, sets, directory):
    """The bar and the lines of all phases."""
    rows, best = checkpoints.read_progress(directory)
    train_set, validation_set = sets
    column = _monitor(recipe, validation_set)
    return display.Display(
        [
            (p.first_epoch, p.last_epoch, "head" if p.frozen else "all")
            for p in phases(recipe)
        ],
        len(train_set),
        0 if validation_set is None else len(validation_set),
        done=checkpoints.epochs_done(rows),
        best=best,
        column=column if column.startswith("val_") else None,
    )


def _report(recipe, validation_set, directory, say):
    """Writes `report/`; what the result says of it."""
    say("Looking at where the model errs.")
    written = tasks.of_recipe(recipe).write_report(
        zoo.load_model(directory / checkpoints.BEST),
        validation_set,
        directory / REPORT,
    )
    drawn = sorted((directory / REPORT).glob("*.png"))
    rows, _ = checkpoints.read_progress(directory)
    pictures = Pictures(directory)
    pictures.show({p.stem: p for p in drawn}, checkpoints.epochs_done(rows) - 1)
    return {**written, "report": REPORT}


def _optimizer(recipe, model, steps, epochs, quantized=False):
    settings = recipe.optimize
    peak = settings.learning_rate
    total = max(1, steps * epochs)
    warmup = min(round(settings.warmup_epochs * steps), total - 1)
    if quantized:
        peak, warmup = peak * recipe.quantize.learning_rate_factor, 0
        model = quantization.net_of(model)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak,
        max(1, total - warmup),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    arguments = {"weight_decay": float(settings.weight_decay)}
    if settings.name == "sgd":
        arguments.update(momentum=0.9, nesterov=True)
    if settings.average:
        arguments.update(use_ema=True, ema_momentum=settings.average)
    if settings.clip:
        arguments.update(global_clipnorm=settings.clip)
    factors = _factors(recipe.finetune, model)
    if factors:
        arguments["factors"] = factors
    optimizer = OPTIMIZERS[settings.name](rate, **arguments)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.variables if len(v.shape) < 2]
        )
    return optimizer


def _factors(settings, model):
    """Learning-rate factors by a variable's path, of a section `finetune`."""
    factors = {}
    if settings.layer_decay != 1.0:
        factors = layer_decay_factors(model, settings.layer_decay)
    if settings.body_factor != 1.0:
        for layer in body_layers(model):
            if layer.name in HEADS:
                continue
            for variable in layer.trainable_weights:
                factor = factors.get(variable.path, 1.0)
                factors[variable.path] = factor * settings.body_factor
    return factors


def _monitor(recipe, validation_set):
    """The column of the log whose greatest value marks the kept epoch."""
    by_figure = (
        recipe.keep == "best"
        and validation_set is not None
        and not validation_set.is_test
    )
    return tasks.of_recipe(recipe).column if by_figure else "epoch"
