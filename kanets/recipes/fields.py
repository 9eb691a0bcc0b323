"""What a recipe says: its fields, their rules, and its TOML file."""

import dataclasses
import json
import tomllib
from pathlib import Path

from kanets.nets import KANet, MobileNetV2
from kanets.optimizers import LayerwiseAdamW, LayerwiseSGD

NETS = {"KANet": KANet, "MobileNetV2": MobileNetV2}
OPTIMIZERS = {"sgd": LayerwiseSGD, "adamw": LayerwiseAdamW}
GAN_ARGUMENTS = {
    "width",
    "latent_size",
    "attention",
    "attention_size",
    "num_heads",
    "conditional",
}
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


@dataclasses.dataclass(frozen=True)
class GANOptimize:
    """The two optimizers of a GAN, both Adam.

    Attributes:
        generator_learning_rate, discriminator_learning_rate: constant.
        beta_1, beta_2: Adam's.
        discriminator_steps: updates of it for each of the generator.
        average: decay of the moving average of the generator's weights.
    """

    generator_learning_rate: float = 1e-4
    discriminator_learning_rate: float = 4e-4
    beta_1: float = 0.0
    beta_2: float = 0.9
    discriminator_steps: int = 1
    average: float = 0.999


@dataclasses.dataclass(frozen=True)
class Measure:
    """How generated pictures are measured after an epoch.

    Attributes:
        extractor: a classifier whose features are compared, a zoo name or
            path; "inception_v3" is that of keras.applications; "" measures
            nothing.
        pictures: how many generated ones, and as many real ones.
        every: epochs from one measurement to the next.
    """

    extractor: str = ""
    pictures: int = 2000
    every: int = 1


@dataclasses.dataclass(frozen=True)
class GANRecipe:
    """The training of a GAN as plain data.

    Attributes:
        gan: arguments of `ylg.SAGAN`, those of `GAN_ARGUMENTS`; "none" is
            None. `conditional = false` leaves the labels unused.
        epochs, batch_size, seed: integers.
        steps_per_epoch: after how many steps to write the log, the sample
            pictures and the state to resume from; 0 is once through the data.
        flip: whether pictures are mirrored at random.
        precision, jit_compile: as in `Recipe`.
        data, optimize, measure: sections, see `Data`, `GANOptimize`,
            `Measure`.
    """

    gan: dict
    epochs: int = 10
    steps_per_epoch: int = 0
    batch_size: int = 64
    seed: int = 0
    flip: bool = True
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    data: Data = Data(validation=0.0)
    optimize: GANOptimize = GANOptimize()
    measure: Measure = Measure()

    def __post_init__(self):
        _check_gan(self)


def from_dict(fields):
    """A recipe from nested dicts, as TOML gives them.

    Args:
        fields: with a key "gan" they are those of a `GANRecipe`, otherwise
            of a `Recipe`.

    Raises:
        ValueError: an unknown field or section, a value out of range.
    """
    fields = dict(fields)
    kind, required = (
        (GANRecipe, "gan") if "gan" in fields else (Recipe, "model")
    )
    for field in dataclasses.fields(kind):
        name, section = field.name, type(field.default)
        if name in fields and dataclasses.is_dataclass(section):
            if not isinstance(fields[name], dict):
                raise ValueError(
                    f"[{name}] of a recipe must be a section. "
                    f"Received: {name}={fields[name]!r}"
                )
            values = dict(fields[name])
            _refuse_unknown(section, values, f"[{name}] of a recipe")
            if values.get("image_size") is not None:
                values["image_size"] = tuple(values["image_size"])
            fields[name] = dataclasses.replace(field.default, **values)
    _refuse_unknown(kind, fields, "a recipe")
    return kind(**{required: None, **fields})


def read(path):
    """A `Recipe` or `GANRecipe` from a TOML file.

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
        if name in ("model", "gan"):  # TOML has no null
            values = {k: "none" if v is None else v for k, v in values.items()}
        lines += [_toml_line(k, v) for k, v in values.items() if v is not None]
    return "\n".join(lines) + "\n"


def arguments(section):
    """The arguments of a net, from a section of a recipe."""
    return {k: None if v == "none" else v for k, v in section.items()}


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
    _apply(rules)


def _check_gan(recipe):
    """Raises a ValueError that names the first value out of its range."""
    optimize, measure = recipe.optimize, recipe.measure
    rules = [
        (
            "gan",
            recipe.gan,
            isinstance(recipe.gan, dict) and set(recipe.gan) <= GAN_ARGUMENTS,
            f"a section with fields among {sorted(GAN_ARGUMENTS)}",
        ),
        _one_of("precision", recipe.precision, PRECISIONS),
        _one_of("jit_compile", recipe.jit_compile, ("auto", True, False)),
        _one_of("flip", recipe.flip, (True, False)),
    ]
    for name, value, least in (
        ("epochs", recipe.epochs, 1),
        ("steps_per_epoch", recipe.steps_per_epoch, 0),
        ("batch_size", recipe.batch_size, 1),
        ("seed", recipe.seed, 0),
        ("optimize.discriminator_steps", optimize.discriminator_steps, 1),
        ("measure.pictures", measure.pictures, 2),
        ("measure.every", measure.every, 1),
    ):
        rules.append((name, value, _is_count(value, least), f"{least} or more"))
    for name in ("generator_learning_rate", "discriminator_learning_rate"):
        value = getattr(optimize, name)
        holds = _is_within(value) and value > 0
        rules.append((f"optimize.{name}", value, holds, "a positive number"))
    for name in ("beta_1", "beta_2", "average"):
        value = getattr(optimize, name)
        holds = _is_within(value) and value < 1
        rules.append((f"optimize.{name}", value, holds, "in [0, 1)"))
    _apply(rules)


def _one_of(name, value, allowed):
    return name, value, value in allowed, f"one of {allowed}"


def _apply(rules):
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
