"""Recipes: how a model is trained, as plain data; and running one.

A recipe is a `Recipe`, on disk a TOML file with its fields. `train` turns it
into `compile()` and `fit()` and keeps everything in a run's folder; started
again on the same folder, it continues where it was stopped.
"""

import dataclasses
import functools
import importlib.util
import json
import time
import tomllib
from pathlib import Path

import keras

from kanets import checkpoints, data, zoo
from kanets.augment import Augmentation
from kanets.nets import KANet, MobileNetV2
from kanets.optimizers import (
    LayerwiseAdamW,
    LayerwiseSGD,
    layer_decay_factors,
)

NETS = {"KANet": KANet, "MobileNetV2": MobileNetV2}
OPTIMIZERS = {"sgd": LayerwiseSGD, "adamw": LayerwiseAdamW}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on; see `kanets.data.load`.

    Attributes:
        source: folder, or TFDS name.
        image_size: (height, width); None if all pictures have one size.
        validation: fraction held out, where the source has no such part.
        on_error: "stop" at a picture that cannot be read, or "skip" it.
    """

    source: str = ""
    image_size: tuple | None = None
    validation: float = 0.1
    on_error: str = "stop"


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of training pictures; see `kanets.augment`."""

    flip: bool = True
    crop: int = 0
    randaugment: int = 0
    magnitude: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclasses.dataclass(frozen=True)
class Optimize:
    """Loss and optimizer.

    Attributes:
        name: "sgd" (Nesterov, momentum 0.9) or "adamw".
        learning_rate: the peak of a cosine schedule.
        warmup_epochs: epochs of linear warm-up to it, fractions allowed.
        weight_decay: decoupled: each step takes learning rate times
            `weight_decay` of a weight, but nothing of batch norm and biases.
        label_smoothing: in 0..1.
        average: decay of a moving average of the weights, 0 for none; the
            average is what is validated and kept.
        clip: greatest norm of the whole gradient, 0 for none.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    average: float = 0.0
    clip: float = 0.0


@dataclasses.dataclass(frozen=True)
class FineTune:
    """How a pretrained model is moved to new data.

    Attributes:
        frozen_epochs: first epochs, in which only the head is trained and
            batch norm of the frozen body runs in inference mode.
        layer_decay: each layer below the head learns by this factor slower
            than the one above it; 1 is all alike.
        norm_momentum: of the moving statistics of batch norm. A small set
            has few steps an epoch, and Keras's 0.99 would go on describing
            the pictures the model came from.
    """

    frozen_epochs: int = 0
    layer_decay: float = 1.0
    norm_momentum: float = 0.9


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run as plain data.

    Attributes:
        model: `name` ("KANet", "MobileNetV2", or a zoo name or path of a
            model to start from) and, for the first two, their arguments;
            "none" is None.
        epochs, batch_size, seed: integers.
        precision: "float32", "mixed_float16" or "mixed_bfloat16". A model
            that is started from keeps the one it was saved with.
        jit_compile: "auto" (Keras decides), True or False.
        keep: which epoch becomes `best/`: "best" by validation accuracy, or
            "last", which leaves the validation set unused for selection.
        data, augment, optimize, finetune: sections, see their classes.
    """

    model: dict
    epochs: int = 10
    batch_size: int = 128
    seed: int = 0
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    keep: str = "best"
    data: Data = Data()
    augment: Augment = Augment()
    optimize: Optimize = Optimize()
    finetune: FineTune = FineTune()

    def __post_init__(self):
        _check(self)


_SECTIONS = {
    "data": Data,
    "augment": Augment,
    "optimize": Optimize,
    "finetune": FineTune,
}


def from_dict(fields):
    """A `Recipe` from nested dicts, as TOML gives them.

    Raises:
        ValueError: an unknown field or section, a value out of range.
    """
    fields = dict(fields)
    for name, section in _SECTIONS.items():
        if name in fields:
            if not isinstance(fields[name], dict):
                raise ValueError(
                    f"[{name}] of a recipe must be a section. "
                    f"Received: {name}={fields[name]!r}"
                )
            values = dict(fields[name])
            _refuse_unknown(section, values, f"[{name}] of a recipe")
            if values.get("image_size") is not None:
                values["image_size"] = tuple(values["image_size"])
            fields[name] = section(**values)
    _refuse_unknown(Recipe, fields, "a recipe")
    return Recipe(**{"model": None, **fields})


def read(path):
    """A `Recipe` from a TOML file.

    Raises:
        ValueError: the file is missing, not TOML, or not a recipe.
    """
    try:
        with Path(path).open("rb") as file:
            fields = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(
            f"A recipe must be a TOML file. Received: {str(path)!r} ({error})"
        ) from error
    return from_dict(fields)


def to_toml(recipe):
    """The text of a TOML file that `read` turns into the same recipe."""
    fields = dataclasses.asdict(recipe)
    sections = {k: v for k, v in fields.items() if isinstance(v, dict)}
    lines = [_toml_line(k, v) for k, v in fields.items() if k not in sections]
    for name, values in sections.items():
        lines.append(f"\n[{name}]")
        if name == "model":  # TOML has no null
            values = {k: "none" if v is None else v for k, v in values.items()}
        lines += [_toml_line(k, v) for k, v in values.items() if v is not None]
    return "\n".join(lines) + "\n"


def train(recipe, directory, verbose=1):
    """Runs a recipe with `compile()` and `fit()` in a run's folder.

    The folder holds `recipe.toml`, `log.csv` (a row an epoch), `best/` (the
    model folder of the best validation accuracy), `last.weights.h5` (to
    resume from), `tensorboard/` where TensorBoard's writer is installed, and
    at the end `result.json`. A run that was stopped, by whatever, continues
    from its last whole epoch when `train` is called again.

    Args:
        recipe: a `Recipe`.
        directory: the run's folder, new or of the same recipe.
        verbose: as in `fit()`; 0 prints nothing.

    Returns:
        A dict: the best epoch's row of the log, `parameters`, `seconds` of
        this call and `epochs` of the run.

    Raises:
        ValueError: the folder is of another recipe (the differing fields are
            named), or a recipe's value is refused by what it configures.
        kanets.data.BadPicturesError: pictures that cannot be read.
    """
    directory = Path(directory)
    start = time.time()
    _claim(recipe, directory)
    say = functools.partial(print, flush=True) if verbose else _silent
    rows, _ = checkpoints.read_progress(directory)
    done = len(rows)
    result_path = directory / "result.json"
    if done >= recipe.epochs and result_path.exists():
        say(f"{directory} is complete: {done} of {recipe.epochs} epochs.")
        return json.loads(result_path.read_text())
    if done:
        say(
            f"Resuming {directory} after epoch {done} of {recipe.epochs}, "
            "from its last checkpoint."
        )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        keras.utils.set_random_seed(recipe.seed)
        train_set, validation_set = _load(recipe)
        model = _build(recipe, train_set)
        say(
            f"{model.name}: {model.count_params():,} parameters; "
            f"{train_set.num_pictures:,} pictures of "
            f"{len(train_set.class_names)} classes."
        )
        for phase in _phases(recipe):
            if done < phase.last_epoch:
                _fit(
                    model,
                    recipe,
                    phase,
                    max(done, phase.first_epoch),
                    train_set,
                    validation_set,
                    directory,
                    verbose,
                )
    finally:
        keras.config.set_dtype_policy(policy)
    rows, _ = checkpoints.read_progress(directory)
    monitor = _monitor(recipe, validation_set)
    best = max(rows, key=lambda row: row[monitor])
    result = {
        **best,
        "parameters": model.count_params(),
        "epochs": len(rows),
        "seconds": round(time.time() - start, 1),
    }
    checkpoints.write_log(directory, rows)
    checkpoints.replace_text(result_path, json.dumps(result, indent=1))
    return result


@dataclasses.dataclass(frozen=True)
class _Phase:
    first_epoch: int
    last_epoch: int
    frozen: bool


def _phases(recipe):
    frozen = recipe.finetune.frozen_epochs
    phases = [_Phase(0, frozen, True), _Phase(frozen, recipe.epochs, False)]
    return [p for p in phases if p.last_epoch > p.first_epoch]


def _fit(
    model,
    recipe,
    phase,
    initial_epoch,
    train_set,
    validation_set,
    directory,
    verbose,
):
    """One phase: compile, restore what there is, and `fit()`."""
    for layer in model.layers[:-1]:
        layer.trainable = not phase.frozen
    steps = len(train_set)
    epochs = phase.last_epoch - phase.first_epoch
    model.compile(
        optimizer=_optimizer(recipe, model, steps, epochs),
        loss=keras.losses.CategoricalCrossentropy(
            label_smoothing=recipe.optimize.label_smoothing
        ),
        metrics=["accuracy"],
        jit_compile=recipe.jit_compile,
    )
    if initial_epoch:
        # The state is of this phase, or of the end of the one before: then
        # it holds the weights, and this phase's optimizer starts afresh.
        resumed = initial_epoch > phase.first_epoch
        checkpoints.restore(directory, model, with_optimizer=resumed)
    average = None
    if recipe.optimize.average:
        average = keras.callbacks.SwapEMAWeights()
    kept = checkpoints.Checkpoints(
        directory,
        train_set.class_names,
        _monitor(recipe, validation_set),
        average,
        train_set,
    )
    callbacks = [c for c in (average, kept, _tensorboard(directory)) if c]
    model.fit(
        train_set,
        validation_data=validation_set,
        initial_epoch=initial_epoch,
        epochs=phase.last_epoch,
        callbacks=callbacks,
        shuffle=False,  # the set shuffles itself, repeatably
        verbose=verbose,
    )


def _optimizer(recipe, model, steps, epochs):
    settings = recipe.optimize
    total = max(1, steps * epochs)
    warmup = min(round(settings.warmup_epochs * steps), total - 1)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        max(1, total - warmup),
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    arguments = {"weight_decay": float(settings.weight_decay)}
    if settings.name == "sgd":
        arguments.update(momentum=0.9, nesterov=True)
    if settings.average:
        arguments.update(use_ema=True, ema_momentum=settings.average)
    if settings.clip:
        arguments.update(global_clipnorm=settings.clip)
    if recipe.finetune.layer_decay != 1.0:
        arguments["factors"] = layer_decay_factors(
            model, recipe.finetune.layer_decay
        )
    optimizer = OPTIMIZERS[settings.name](rate, **arguments)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.variables if len(v.shape) < 2]
        )
    return optimizer


def _load(recipe):
    if not recipe.data.source:
        raise ValueError(
            "data.source must be a folder or a TFDS name. Received: source=''"
        )
    train_set, validation_set = data.load(
        recipe.data.source,
        image_size=recipe.data.image_size,
        batch_size=recipe.batch_size,
        validation=recipe.data.validation,
        seed=recipe.seed,
        on_error=recipe.data.on_error,
    )
    # What fits in memory is repeatable on every backend.
    train_set = data.gathered(train_set, shuffle=True, seed=recipe.seed)
    validation_set = data.gathered(validation_set)
    classes = len(train_set.class_names)
    augmentation = Augmentation(
        classes, train_set.image_size, **dataclasses.asdict(recipe.augment)
    )
    train_set = data.augmented(train_set, augmentation)
    if validation_set is not None:
        plain = Augmentation(classes, train_set.image_size, flip=False)
        validation_set = data.augmented(validation_set, plain)
    return train_set, validation_set


def _build(recipe, train_set):
    arguments = {
        key: None if value == "none" else value
        for key, value in recipe.model.items()
    }
    name = arguments.pop("name")
    shape = (*train_set.image_size, 3)
    classes = len(train_set.class_names)
    if name in NETS:
        return NETS[name](input_shape=shape, classes=classes, **arguments)
    model = zoo.create_model(
        name, num_classes=classes, input_shape=shape, **arguments
    )
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = recipe.finetune.norm_momentum
    return model


def _monitor(recipe, validation_set):
    """The column of the log whose greatest value marks the kept epoch."""
    by_accuracy = recipe.keep == "best" and validation_set is not None
    return "val_accuracy" if by_accuracy else "epoch"


def _tensorboard(directory):
    """Keras's TensorBoard callback, which needs TensorFlow to write."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    if importlib.util.find_spec("tensorflow") is None:
        return None
    return keras.callbacks.TensorBoard(
        directory / "tensorboard", write_graph=False
    )


def _claim(recipe, directory):
    """Writes the recipe to the folder, unless another one trained there."""
    path = directory / "recipe.toml"
    text = to_toml(recipe)
    if path.exists() and (directory / checkpoints.STATE).exists():
        ours = dataclasses.asdict(from_dict(tomllib.loads(text)))
        theirs = dataclasses.asdict(read(path))
        differing = [name for name in ours if ours[name] != theirs[name]]
        if differing:
            raise ValueError(
                "This folder holds the run of another recipe; choose a new "
                f"folder. Received: {str(directory)!r}, where "
                + ", ".join(
                    f"{n} is {theirs[n]!r}, not {ours[n]!r}" for n in differing
                )
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints.replace_text(path, text)


def _silent(*_):
    pass


def _toml_line(name, value):
    # JSON's strings, numbers, booleans and lists are TOML's, too.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _refuse_unknown(kind, values, where):
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"The fields of {where} are {known}. Received: {unknown}"
        )


def _check(recipe):
    """Raises a ValueError that names the first value out of its range."""
    optimize, augment = recipe.optimize, recipe.augment
    frozen, decay = recipe.finetune.frozen_epochs, recipe.finetune.layer_decay
    model = recipe.model if isinstance(recipe.model, dict) else {}
    rules = [
        ("model", recipe.model, "name" in model, "a section with a name"),
        ("epochs", recipe.epochs, _is_count(recipe.epochs), "1 or more"),
        (
            "batch_size",
            recipe.batch_size,
            _is_count(recipe.batch_size),
            "1 or more",
        ),
        ("seed", recipe.seed, _is_count(recipe.seed, 0), "0 or more"),
        (
            "precision",
            recipe.precision,
            recipe.precision in PRECISIONS
            and (recipe.precision == "float32" or model.get("name") in NETS),
            f'one of {PRECISIONS}, and "float32" for a model that is loaded',
        ),
        (
            "jit_compile",
            recipe.jit_compile,
            recipe.jit_compile in ("auto", True, False),
            '"auto", true or false',
        ),
        (
            "keep",
            recipe.keep,
            recipe.keep in ("best", "last"),
            '"best" or "last"',
        ),
        (
            "optimize.name",
            optimize.name,
            optimize.name in OPTIMIZERS,
            f"one of {sorted(OPTIMIZERS)}",
        ),
        (
            "optimize.learning_rate",
            optimize.learning_rate,
            _is_within(optimize.learning_rate) and optimize.learning_rate > 0,
            "a positive number",
        ),
        (
            "optimize.average",
            optimize.average,
            _is_within(optimize.average) and optimize.average < 1,
            "in [0, 1)",
        ),
        (
            "finetune.frozen_epochs",
            frozen,
            _is_count(frozen, 0) and frozen <= recipe.epochs,
            f"in 0..epochs, which is {recipe.epochs}",
        ),
        (
            "finetune.layer_decay",
            decay,
            _is_within(decay, 1) and decay > 0,
            "in (0, 1]",
        ),
        ("augment.crop", augment.crop, _is_count(augment.crop, 0), "0 or more"),
        (
            "augment.randaugment",
            augment.randaugment,
            _is_count(augment.randaugment, 0),
            "0 or more",
        ),
    ]
    for section, field, greatest in (
        ("optimize", "warmup_epochs", None),
        ("optimize", "weight_decay", None),
        ("optimize", "clip", None),
        ("optimize", "label_smoothing", 1),
        ("finetune", "norm_momentum", 1),
        ("augment", "magnitude", 1),
        ("augment", "mixup", None),
        ("augment", "cutmix", None),
    ):
        value = getattr(getattr(recipe, section), field)
        rule = "0 or more" if greatest is None else f"in 0..{greatest}"
        holds = _is_within(value, greatest)
        rules.append((f"{section}.{field}", value, holds, rule))
    for name, value, holds, rule in rules:
        if not holds:
            raise ValueError(
                f"{name} must be {rule}. "
                f"Received: {name.rpartition('.')[2]}={value!r}"
            )


def _is_count(value, least=1):
    return type(value) is int and value >= least


def _is_within(value, greatest=None):
    """Whether it is a number from 0 to `greatest`, without end if None."""
    if type(value) not in (int, float) or not value >= 0:
        return False
    return greatest is None or value <= greatest
