"""`kanets list`."""

import dataclasses
from typing import Annotated

from typer import Argument, Option

from kanets.cli.running import command


@command("list 'kanet_qkv*'")
def list_models(
    pattern: Annotated[str, Argument(help="Of names, as of files.")] = "*",
    *,
    task: Annotated[
        str | None,
        Option(help="classification, segmentation or generation."),
    ] = None,
    hub: Annotated[
        bool,
        Option(
            "--hub",
            help="Published weights that nets of ours read, by the net's name "
            "or their own; no network is asked.",
        ),
    ] = False,
):
    """The models of the zoo."""
    from kanets import zoo

    models = (zoo.list_hub if hub else zoo.list_models)(pattern, task=task)
    yield [dataclasses.asdict(model) for model in models], models
