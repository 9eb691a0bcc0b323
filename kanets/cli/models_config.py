"""`kanets models-config`."""

from typing import Annotated

from typer import Argument, Option

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
):
    """Write models.config, for a server of several models.

    The server is TensorFlow Serving.
    """
    from kanets.export import write_models_config

    path = write_models_config(directory, base_path)
    yield {"models_config": path}, path
