"""`kanets export`."""

from typing import Annotated, Literal

from typer import Argument, Option

from kanets.cli.options import BatchSizes, number_or_any
from kanets.cli.running import command
from kanets.files import read_text

# What `export` writes, and the options that fit.
FORMATS = {
    "savedmodel": ("batch_sizes", "precision", "version"),
    "litert": ("batch_size", "precision", "representative", "sparse"),
    "onnx": (),
    "openvino": ("precision",),
    "triton": ("max_batch_size",),
}
ANY_FORMAT = ("from_logits", "image_size", "labels")

Source = Annotated[
    str, Argument(help="Zoo name, run (a GAN's, too), model folder.")
]
Format = Annotated[
    Literal["savedmodel", "litert", "onnx", "openvino", "triton"],
    Option(help="For TensorFlow Serving, or another runtime."),
]
Folder = Annotated[
    str,
    Option(help="The folder of versions; of other formats, the folder."),
]
Version = Annotated[
    int | None, Option(help="Of a SavedModel; default: the next.")
]
Precision = Annotated[
    str | None,
    Option(
        help="Of a SavedModel: float32, float16, bfloat16; of LiteRT: "
        "float32, float16, int8; of OpenVINO: float32, float16."
    ),
]
Representative = Annotated[
    str | None,
    Option(
        help="For int8, unless trained for it: a folder of pictures, of which "
        "200 are taken."
    ),
]
BatchSize = Annotated[
    str | None,
    Option(
        metavar="SIZE",
        callback=number_or_any,
        help="Of LiteRT: a number (default 1), or any.",
    ),
]
Size = Annotated[
    tuple[str, str] | None,
    Option(
        metavar="HEIGHT WIDTH",
        callback=number_or_any,
        help="Default: the model's; any any leaves it open, not in a "
        "SavedModel.",
    ),
]
MaxBatchSize = Annotated[
    int | None,
    Option(help="Of Triton: pictures of the requests it merges; default 32."),
]
Labels = Annotated[
    str | None,
    Option(help="A file of class names, one a line; default: the model's."),
]
Sparse = Annotated[
    bool | None,
    Option("--sparse", help="Of LiteRT: leave out the zeros of a pruned net."),
]
FromLogits = Annotated[
    bool | None,
    Option(
        "--from-logits/--no-from-logits",
        help="Whether the outputs need a softmax; default: as the last "
        "activation says.",
    ),
]


@command("export runs/mine --format savedmodel --to savedmodels/mine")
def export(
    model: Source,
    *,
    format: Format = "savedmodel",
    to: Folder,
    version: Version = None,
    precision: Precision = None,
    representative: Representative = None,
    batch_size: BatchSize = None,
    batch_sizes: BatchSizes = None,
    max_batch_size: MaxBatchSize = None,
    image_size: Size = None,
    sparse: Sparse = None,
    labels: Labels = None,
    from_logits: FromLogits = None,
):
    """Write a model in the form its consumer wants."""
    import kanets
    from kanets import export
    from kanets.evaluation import files
    from kanets.export import bundle

    bundle.check_backend()
    options = {
        "version": version,
        "precision": precision,
        "representative": representative,
        "batch_size": batch_size,
        "batch_sizes": batch_sizes,
        "max_batch_size": max_batch_size,
        "image_size": image_size,
        "sparse": sparse,
        "labels": labels,
        "from_logits": from_logits,
    }
    given = {
        name: value for name, value in options.items() if value is not None
    }
    for name, value in given.items():
        if name not in (*ANY_FORMAT, *FORMATS[format]):
            raise ValueError(
                f"--{name.replace('_', '-')} does not fit --format {format}. "
                f"Received: {value}"
            )
    if "batch_size" in given:
        given["batch_size"] = _open(batch_size)
    if "image_size" in given:
        given["image_size"] = [_open(side) for side in image_size]
    model = kanets.load_model(model)
    if "representative" in given:
        given["representative"] = files.representative(
            model, representative, given.get("image_size")
        )
    if "labels" in given:
        given["class_names"] = read_text(given.pop("labels")).splitlines()
    artifact = getattr(export, f"export_{format}")(model, to, **given)
    yield {"artifact": artifact}, artifact


def _open(size):
    return None if size == "any" else size
