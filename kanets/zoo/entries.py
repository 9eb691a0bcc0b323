"""What the zoo holds: entries with weights, and architectures without."""

import dataclasses
import fnmatch
import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import keras
from pydantic import AfterValidator, Field

from kanets import tasks
from kanets.checks import nearest
from kanets.nets.registry import NETS
from kanets.typed import refused, typed

TASKS = tuple(tasks.TASKS)

# Entries that were removed, and what to use instead.
REPLACED = {
    "kanet_kv_cifar10": "kanet_qkv_cifar10",
    "kanet_qkv_tiny_imagenet_32": "kanet_lite0_tiny_imagenet_64",
    "kanet_segmenter_camvid": "kanet_lite0_camvid",
}

_PACKAGED = Path(__file__).parents[1] / "models"
_CHECKOUT = Path(__file__).parents[2] / "models"


_Shape = Annotated[
    tuple[int, int, int], Field(description="(height, width, channels)")
]


def known_task(task):
    if task not in tasks.TASKS:
        raise refused("task", task, f"one of {tuple(tasks.TASKS)}")
    return task


@typed
class Architecture:
    """A net of the zoo by name.

    Attributes:
        name: what `create_model` takes.
        task: one of `TASKS`.
        net: what builds it, a name of `kanets.nets.registry.NETS`.
        arguments: what the builder was called with, as JSON has it, but for
            `input_shape` and the number of classes.
        input_shape: (H, W, C) of the pictures it was trained on; a generator
            makes such.
        num_classes: number of classes; None for a generator without.
    """

    name: str
    task: Annotated[str, AfterValidator(known_task)]
    net: str
    arguments: dict
    input_shape: _Shape
    num_classes: int | None


@typed
class Entry(Architecture):
    """A pretrained model of the zoo; `entry.json` holds the same fields.

    Attributes, besides those of `Architecture`, and of a GAN's generator:
        parameters: number of parameters, with those of batch norm.
        multiply_adds: for one picture, of `kanets.nets.multiply_adds`.
        weights_bytes: size of all weights together.
        files: sha256 of the files that make the model (weights, config.json,
            labels.txt), by their path in the folder.
        data: the data set it was trained on.
        metric: what `value` is, and on which pictures.
        value: the measured figure.
        evaluate_command: the command that printed `value`.
        recipe: the file in `training/` that made it: a recipe, or the script
            that converted weights trained elsewhere.
        train_command: the command that ran it.
        seed: of the training; None where it was elsewhere.
        versions: of "kanets", "keras", the backend and "python", as text.
        machine: what it was trained on, in words.
        licence: of weights and data.
        metrics: further figures by name.
        pictures: names of picture files in the folder, for the card.
        notes: what else a reader should know.
        weights_of: name of the entry whose weights it has, as far as they go:
            the layers that it has besides start closed, with fresh weights.
            "" for weights of its own.
    """

    parameters: int
    multiply_adds: int
    weights_bytes: int
    files: dict[str, str]
    data: str
    metric: str
    value: float
    evaluate_command: str
    recipe: str
    train_command: str
    seed: int | None
    versions: dict[str, str]
    machine: str
    licence: str
    metrics: dict = dataclasses.field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    notes: str = ""
    weights_of: str = ""

    @property
    def figure(self):
        """`value` as it is written."""
        return f"{self.value:.{tasks.TASKS[self.task].decimals}f}"

    @property
    def size(self):
        """`weights_bytes` as it is written."""
        return f"{self.weights_bytes / 1e6:.1f} MB"

    @property
    def measured_on(self):
        """The pictures of `evaluate_command`, and what else it gives.

        Returns:
            Their path below a folder of sets, such as "cifar10/test", and a
            dict of arguments of `kanets.evaluation.evaluate`.
        """
        words = shlex.split(self.evaluate_command)[3:]
        names = [word.removeprefix("--").replace("-", "_") for word in words]
        given = dict(zip(names[::2], words[1::2], strict=True))
        source = given.pop("data")
        return source, {name: int(value) for name, value in given.items()}

    @classmethod
    def from_json(cls, path):
        """The entry of an `entry.json`.

        Raises:
            ValueError: no JSON, a value that none can be, fields that are
                missing or unknown (the nearest known ones are suggested):
                file and field are named.
        """
        where = f"Received: {str(path)!r}"
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"An entry must be JSON. {where} ({error})"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(f"An entry must be a JSON object. {where}")
        versions = values.get("versions")
        where = newer(versions if isinstance(versions, dict) else {}) + where
        fields = cls.__pydantic_fields__
        required = [n for n, field in fields.items() if field.is_required()]
        unknown = sorted(set(values) - set(fields))
        missing = [name for name in required if name not in values]
        if unknown or missing:
            raise ValueError(
                "An entry must have the fields of kanets.zoo.Entry"
                f"{nearest(unknown, fields)}. {where} with unknown fields "
                f"{unknown} and without {missing}"
            )
        try:
            return cls(**values)
        except ValueError as error:
            rule, _, received = str(error).partition("Received: ")
            raise ValueError(f"{rule}{where} with {received}") from error

    def to_json(self, path):
        """Writes the entry so that `from_json` reads it."""
        text = json.dumps(
            dataclasses.asdict(self), indent=1, ensure_ascii=False
        )
        Path(path).write_text(f"{text}\n", encoding="utf-8")


# What `create_model(name, pretrained=False)` builds besides the entries.
ARCHITECTURES = tuple(
    Architecture(name=name, task=net.task, net=net.name, **fields)
    for net in NETS.values()
    for name, fields in net.architectures.items()
)


def models_directory():
    """Where the entries are: in the wheel, or at the root of a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def list_models(pattern="*", task=None, pretrained=True):
    """Models of the zoo, by name.

    Args:
        pattern: a shell pattern of names, such as "kanet_qkv*".
        task: one of `TASKS`; None is all of them.
        pretrained: False lists the architectures without weights, too.

    Returns:
        A list of `Entry`, without `pretrained` also of `Architecture`, which
        prints as a table.

    Raises:
        ValueError: an unknown task; an `entry.json` that cannot be read.
    """
    if task is not None:
        known_task(task)
    paths = models_directory().glob("*/entry.json")
    models = [Entry.from_json(path) for path in paths]
    if not pretrained:
        models += ARCHITECTURES
    return Listing(
        sorted(
            (
                model
                for model in models
                if fnmatch.fnmatch(model.name, pattern)
                and task in (None, model.task)
            ),
            key=lambda model: model.name,
        )
    )


class Table(list):
    """A list that prints as a table: `head`, and a `row` for each item."""

    head = ()

    def row(self, item):
        """The cells of an item, a tuple of str."""
        raise NotImplementedError

    def __repr__(self):
        rows = [self.head, *map(self.row, self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)


class Listing(Table):
    """A list of `Entry` and `Architecture` that prints as a table."""

    head = ("name", "figure", "parameters", "multiply-adds", "size", "data")

    def row(self, item):
        height, width, _ = item.input_shape
        if not isinstance(item, Entry):
            return (item.name, "", "", "", "", f"{height}x{width}")
        return (
            item.name,
            f"{item.figure} {item.metric.split(',')[0]}",
            f"{item.parameters:,}",
            f"{item.multiply_adds / 1e6:,.1f} M",
            item.size,
            f"{item.data}, {height}x{width}",
        )


def newer(versions):
    """A sentence if kanets or Keras was newer than what is installed."""
    import kanets  # not at the top: it imports the zoo

    installed = {"kanets": kanets.__version__, "keras": keras.__version__}
    for package, here in installed.items():
        made_by = versions.get(package, here)
        if _numbers(str(made_by)) > _numbers(here):
            return (
                f"It was made by {package} {made_by}, newer than the "
                f"installed {here}. "
            )
    return ""


def _numbers(version):
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
