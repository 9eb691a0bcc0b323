"""`kanets models-config`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.options import BatchSizes
from kanets.cli.running import command


@command("models-config savedmodels")
def models_config(
    directory: Annotated[
        str, Argument(help="Holds a folder of versions per model.")
    ],
    *,
    base_path: Annotated[
        str, Option(help="Where the server sees the directory.")
    ] = "/models",
    batch_sizes: BatchSizes = None,
):
    """Write models.config, for a server of several models.

    The server is TensorFlow Serving. With --batch-sizes, also
    batching_parameters.txt, by which it merges requests.
    """
    from kanets.export import write_batching_parameters, write_models_config

    written = {"models_config": write_models_config(directory, base_path)}
    if batch_sizes is not None:
        path = write_batching_parameters(directory, batch_sizes)
        written["batching_parameters"] = path
    yield written, "\n".join(map(str, written.values()))
