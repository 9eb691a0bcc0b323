"""What the values of a recipe must be: types that state their rule."""

import functools
import inspect
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kanets import attention, zoo
from kanets.checks import nearest
from kanets.nets import registry
from kanets.train.optimizers import LayerwiseAdamW, LayerwiseSGD
from kanets.train.recipes.files import arguments
from kanets.train.recipes.phases import unquantized
from kanets.typed import refused

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


def _least(number):
    return Field(strict=True, ge=number, description=f"{number} or more")


def _number(rule, **bounds):
    return Field(strict=True, allow_inf_nan=False, description=rule, **bounds)


Whole = Annotated[int, _least(0)]
Count = Annotated[int, _least(1)]
Several = Annotated[int, _least(2)]
Number = Annotated[float, _number("0 or more", ge=0)]
Scale = Annotated[float, _number("1 or more", ge=1)]
Positive = Annotated[float, _number("a positive number", gt=0)]
Fraction = Annotated[float, _number("in 0..1", ge=0, le=1)]
Factor = Annotated[float, _number("in (0, 1]", gt=0, le=1)]
Decay = Annotated[float, _number("in [0, 1)", ge=0, lt=1)]
Flag = Literal[True, False]
Auto = Literal["auto", True, False]
Optimizer = Literal[tuple(OPTIMIZERS)]
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
Size = Annotated[
    tuple[Count, Count] | None, Field(description="(height, width)")
]
Names = Annotated[tuple[str, ...] | None, Field(description="a list of str")]
Label = Annotated[Whole | None, Field(description="0 or more")]


def _check_net(nets, section, info):
    """Checks a net's arguments, where its builder tells what it takes.

    Args:
        nets: builders by name; another name may be that of a zoo entry.
        section: dict, the name of the net and its arguments.
        info: of pydantic, with the name of the section.
    """
    if (
        not isinstance(section.get("name"), str)
        or "classifier_activation" in section
    ):
        raise refused(info.field_name, section, _NET_RULE)
    _check_attention(section)
    net = section["name"]
    entry = zoo.models_directory() / net / "entry.json"
    known = {"name"}
    if net in nets:
        builder = nets[net]
    else:
        known = {"name", "pretrained", "weights"}  # of `kanets.create_model`
        found = next((a for a in zoo.ARCHITECTURES if a.name == net), None)
        if zoo.is_entry(net) and entry.exists():
            found = zoo.Entry.from_json(entry)
        if found is None:
            return section  # a path or an address: shows when it is read
        builder = registry.NETS[found.net].builder
    parameters = inspect.signature(builder).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return section
    ours = {"input_shape", "input_tensor", "include_top", "pooling"}
    ours |= {"classes", "classifier_activation"}
    return _check_names(
        info.field_name, section, known | set(parameters) - ours
    )


def _check_gan(section, info):
    _check_attention(section, block=True)
    return _check_names(info.field_name, section, GAN_ARGUMENTS)


def _check_attention(section, block=False):
    """Raises what `kanets.attention` would, before any picture is read."""
    for name, value in arguments(section).items():
        if name in ("attention", "backbone_attention"):
            attention.check(value, block)


def _check_names(name, section, known):
    """The section, if it has no others than the known fields."""
    unknown = {k: v for k, v in section.items() if k not in known}
    if unknown:
        rule = f"a section with fields among {sorted(known)}"
        raise refused(name, unknown, rule + nearest(unknown, known))
    return section


def _net(nets):
    return AfterValidator(functools.partial(_check_net, nets))


Classifier = Annotated[dict, _net(NETS), Field(description=_NET_RULE)]
Segmenter = Annotated[dict, _net(SEGMENTERS), Field(description=_NET_RULE)]
GAN = Annotated[
    dict, AfterValidator(_check_gan), Field(description="a section")
]


def check_frozen(recipe):
    """Checks the frozen epochs of a recipe, which are among all."""
    frozen, epochs = recipe.finetune.frozen_epochs, recipe.epochs
    if frozen > epochs:
        rule = f"in 0..epochs, which is {epochs}"
        raise refused("finetune.frozen_epochs", frozen, rule)


def check_quantized(recipe):
    """Checks the first epoch of 8 bits, which follows those of the head."""
    first, frozen = recipe.quantize.from_epoch, recipe.finetune.frozen_epochs
    if first and not frozen < first <= recipe.epochs:
        rule = f"0, or in {frozen + 1}..epochs, which is {recipe.epochs}"
        raise refused("quantize.from_epoch", first, rule)


def check_pruned(recipe):
    """Checks when weights become zero: in the epochs of all layers' floats."""
    prune, frozen = recipe.prune, recipe.finetune.frozen_epochs
    exact = unquantized(recipe)
    if not prune.sparsity:
        if prune.to_epoch or prune.from_epoch != 1:
            rule = "more than 0 where its epochs are given"
            raise refused("prune.sparsity", prune.sparsity, rule)
        return
    if prune.from_epoch <= frozen:
        rule = f"{frozen + 1} or more, after the epochs of the head alone"
        raise refused("prune.from_epoch", prune.from_epoch, rule)
    if not prune.from_epoch <= prune.to_epoch <= exact:
        rule = f"in {prune.from_epoch}..{exact}"
        raise refused("prune.to_epoch", prune.to_epoch, rule)
    if recipe.keep != "last":
        rule = '"last" where weights are pruned, as others have fewer zeros'
        raise refused("keep", recipe.keep, rule)
