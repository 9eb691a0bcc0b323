"""Arguments and options that several commands have."""

from typing import Annotated, Literal

from typer import Argument, BadParameter, Option

Model = Annotated[
    str,
    Argument(help="Zoo name, run, folder, hf://owner/name or ResNet50."),
]
ModelOrExport = Annotated[
    str,
    Argument(
        help="Zoo name, run, model folder, hf://owner/name, or what export "
        "wrote."
    ),
]
_DATA = "Class folders, TFDS name; of a segmenter images/ and labels/."
Data = Annotated[str, Option(help=_DATA, show_default=False)]
Distributed = Annotated[
    bool,
    Option(
        "--distributed",
        help="On JAX: by several processes or devices.",
    ),
]
OnError = Annotated[
    Literal["stop", "skip"], Option(help="At unreadable pictures.")
]
IgnoreLabel = Annotated[
    int | None,
    Option(help="Of a segmenter: pixels that do not count."),
]
JitCompile = Annotated[
    bool | None,
    Option(
        "--jit-compile/--no-jit-compile",
        help="By XLA: slow to begin, faster on a GPU.",
    ),
]
ImageSize = Annotated[
    tuple[int, int] | None,
    Option(metavar="HEIGHT WIDTH", help="Default: the model's."),
]
Gan = Annotated[
    str,
    Argument(
        help="Zoo name, GAN run, generator's folder, or official checkpoint."
    ),
]
PictureFile = Annotated[str, Option(help="The picture file to write.")]
Wandb = Annotated[
    str | None,
    Option(metavar="PROJECT", help="Of Weights & Biases, to log to."),
]
RunFolder = Annotated[str, Option(help="The run's folder.")]
Seed = Annotated[int, Option(help="Of all that is random.")]
Flip = Annotated[
    bool | None,
    Option("--flip", help="Of a segmenter: see pictures mirrored, too."),
]
Window = Annotated[
    tuple[int, int] | None,
    Option(
        metavar="HEIGHT WIDTH",
        help="Of a segmenter: slide a window of this size over pictures.",
    ),
]


def _list_of(kind, example):
    """A parser of numbers with commas between, as in the example."""

    def parse(text):
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise BadParameter(f"{text!r} is no list as {example}") from error

    return parse


Scales = Annotated[
    list | None,
    Option(
        parser=_list_of(float, "0.75,1,1.25"),
        metavar="NUMBERS",
        help="Of a segmenter: sizes to see pictures at, as 0.75,1,1.25.",
    ),
]


BatchSizes = Annotated[
    list | None,
    Option(
        parser=_list_of(int, "1,8,32"),
        metavar="NUMBERS",
        help="Of the requests TensorFlow Serving merges, as 1,8,32.",
    ),
]


def number_or_any(value):
    """Whole numbers, but for "any" where it is written; None stays None.

    Raises:
        typer.BadParameter: a text is neither.
    """
    if value is None or value == "any":
        return value
    if isinstance(value, tuple | list):
        return tuple(map(number_or_any, value))
    try:
        return int(value)
    except ValueError as error:
        raise BadParameter(f"{value!r} is no number, nor any") from error
