"""What the values of a recipe must be; the first that is not is named."""

import inspect

from kanets import attention, zoo
from kanets.checks import nearest
from kanets.nets import registry
from kanets.train.optimizers import LayerwiseAdamW, LayerwiseSGD

# A recipe's own classifiers, which may be added to.
NETS = registry.builders("classification")
SEGMENTERS = registry.builders("segmentation")
OPTIMIZERS = {"sgd": LayerwiseSGD, "adamw": LayerwiseAdamW}
GAN_ARGUMENTS = {
    "width",
    "latent_size",
    "attention",
    "attention_size",
    "num_heads",
    "conditional",
}
_NET_RULE = (
    "a section with a name, and without classifier_activation, as what is "
    "saved gives probabilities"
)
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def check_classifier(recipe):
    """Raises a ValueError that names the first value out of its range."""
    named = _is_net(recipe.model)
    augment = recipe.augment
    _apply(
        ("model", recipe.model, named, _NET_RULE),
        *_arguments("model", recipe.model, NETS),
        *_run(recipe),
        *_supervised(recipe),
        _choice("augment.flip", augment.flip, (True, False)),
        _count("augment.crop", augment.crop, 0),
        _count("augment.randaugment", augment.randaugment, 0),
        _number("augment.magnitude", augment.magnitude, 1),
        _number("augment.mixup", augment.mixup),
        _number("augment.cutmix", augment.cutmix),
    )


def check_segmenter(recipe):
    """Raises a ValueError that names the first value out of its range."""
    named = _is_net(recipe.segmenter)
    fresh = named and recipe.segmenter["name"] in SEGMENTERS
    crop, scale = recipe.augment.crop_size, recipe.augment.scale
    ignored = recipe.data.ignore_label
    _apply(
        ("segmenter", recipe.segmenter, named, _NET_RULE),
        *_arguments("segmenter", recipe.segmenter, SEGMENTERS),
        *_run(recipe),
        *_supervised(recipe),
        (
            "finetune.frozen_epochs",
            recipe.finetune.frozen_epochs,
            recipe.finetune.frozen_epochs == 0 or not fresh,
            "0 for a net that is not loaded: all above its body is new",
        ),
        (
            "optimize.label_smoothing",
            recipe.optimize.label_smoothing,
            recipe.optimize.label_smoothing == 0,
            "0 for a segmenter",
        ),
        _choice("balanced", recipe.balanced, (True, False)),
        (
            "data.ignore_label",
            ignored,
            ignored is None or _is_count(ignored, 0),
            "0 or more",
        ),
        _choice("augment.flip", recipe.augment.flip, (True, False)),
        (
            "augment.crop_size",
            crop,
            crop is None or _is_size(crop),
            "(height, width)",
        ),
        ("augment.scale", scale, _is_number(scale) and scale >= 1, "1 or more"),
    )


def check_gan(recipe):
    """Raises a ValueError that names the first value out of its range."""
    optimize, measure = recipe.optimize, recipe.measure
    named = isinstance(recipe.gan, dict)
    if named:
        _check_attention(recipe.gan, block=True)
    _apply(
        ("gan", recipe.gan, named, "a section"),
        *(_fields("gan", recipe.gan, GAN_ARGUMENTS) if named else ()),
        *_run(recipe),
        _choice("flip", recipe.flip, (True, False)),
        _count("steps_per_epoch", recipe.steps_per_epoch, 0),
        _count("optimize.discriminator_steps", optimize.discriminator_steps),
        _positive(
            "optimize.generator_learning_rate", optimize.generator_learning_rate
        ),
        _positive(
            "optimize.discriminator_learning_rate",
            optimize.discriminator_learning_rate,
        ),
        _decay("optimize.beta_1", optimize.beta_1),
        _decay("optimize.beta_2", optimize.beta_2),
        _decay("optimize.average", optimize.average),
        _count("measure.pictures", measure.pictures, 2),
        _count("measure.every", measure.every),
    )


def _is_size(value):
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(map(_is_count, value))
    )


def _is_net(section):
    return (
        isinstance(section, dict)
        and isinstance(section.get("name"), str)
        and "classifier_activation" not in section
    )


def _arguments(name, section, nets):
    """The rule of a net's arguments, where its builder tells what it takes.

    Args:
        name: str, of the section.
        section: dict, the name of the net and its arguments.
        nets: builders by name; another name may be that of a zoo entry.
    """
    if not _is_net(section):
        return []
    _check_attention(section)
    net = section["name"]
    entry = zoo.models_directory() / net / "entry.json"
    known = {"name"}
    if net in nets:
        builder = nets[net]
    elif zoo.is_entry(net) and entry.exists():
        builder = registry.NETS[zoo.Entry.from_json(entry).net].builder
        known = {"name", "pretrained"}  # of `kanets.create_model`
    else:
        return []  # a path or an address: what is there shows when it is read
    parameters = inspect.signature(builder).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    ours = {"input_shape", "classes", "classifier_activation"}
    return _fields(name, section, known | set(parameters) - ours)


def _check_attention(section, block=False):
    """Raises what `kanets.attention` would, before any picture is read."""
    from kanets.train.recipes.files import arguments  # which imports this

    for name, value in arguments(section).items():
        if name in ("attention", "backbone_attention"):
            attention.check(value, block)


def _fields(name, section, known):
    """The rule that a section has no others than the known fields."""
    unknown = {k: v for k, v in section.items() if k not in known}
    rule = f"a section with fields among {sorted(known)}"
    return [(name, unknown, not unknown, rule + nearest(unknown, known))]


def _run(recipe):
    """Rules of what every recipe has."""
    return [
        _count("epochs", recipe.epochs),
        _count("batch_size", recipe.batch_size),
        _count("seed", recipe.seed, 0),
        _choice("precision", recipe.precision, PRECISIONS),
        _choice("jit_compile", recipe.jit_compile, ("auto", True, False)),
    ]


def _supervised(recipe):
    """Rules of what a classifier's and a segmenter's recipe share."""
    optimize, finetune = recipe.optimize, recipe.finetune
    frozen, decay = finetune.frozen_epochs, finetune.layer_decay
    return [
        _choice("keep", recipe.keep, ("best", "last")),
        _choice("optimize.name", optimize.name, sorted(OPTIMIZERS)),
        _positive("optimize.learning_rate", optimize.learning_rate),
        _number("optimize.warmup_epochs", optimize.warmup_epochs),
        _number("optimize.weight_decay", optimize.weight_decay),
        _number("optimize.clip", optimize.clip),
        _number("optimize.label_smoothing", optimize.label_smoothing, 1),
        _decay("optimize.average", optimize.average),
        (
            "finetune.frozen_epochs",
            frozen,
            _is_count(frozen, 0) and frozen <= recipe.epochs,
            f"in 0..epochs, which is {recipe.epochs}",
        ),
        (
            "finetune.layer_decay",
            decay,
            _is_number(decay, 1) and decay > 0,
            "in (0, 1]",
        ),
        _number("finetune.norm_momentum", finetune.norm_momentum, 1),
        _choice("finetune.new_head", finetune.new_head, ("auto", True, False)),
    ]


def _choice(name, value, allowed):
    return name, value, value in allowed, f"one of {allowed}"


def _count(name, value, least=1):
    return name, value, _is_count(value, least), f"{least} or more"


def _number(name, value, greatest=None):
    rule = "0 or more" if greatest is None else f"in 0..{greatest}"
    return name, value, _is_number(value, greatest), rule


def _positive(name, value):
    return name, value, _is_number(value) and value > 0, "a positive number"


def _decay(name, value):
    return name, value, _is_number(value) and value < 1, "in [0, 1)"


def _apply(*rules):
    for name, value, holds, rule in rules:
        if not holds:
            raise ValueError(
                f"{name} must be {rule}. "
                f"Received: {name.rpartition('.')[2]}={value!r}"
            )


def _is_count(value, least=1):
    return type(value) is int and value >= least


def _is_number(value, greatest=None):
    """Whether it is a number from 0 to `greatest`, without end if None."""
    if type(value) not in (int, float) or not value >= 0:
        return False
    return greatest is None or value <= greatest
