"""`kanets push`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.running import command


@command("push runs/mine hf://me/insects --private")
def push(
    model: Annotated[
        str, Argument(help="Zoo name, run, or model folder with its card.")
    ],
    address: Annotated[
        str, Argument(help="hf://owner/name; made if it is not there.")
    ],
    *,
    private: Annotated[
        bool, Option("--private", help="Seen by you and your organisation.")
    ] = False,
    message: Annotated[str | None, Option(help="Of the commit.")] = None,
):
    """Upload a model to the Hugging Face Hub, with its card and licence."""
    import dataclasses

    from kanets import zoo

    pushed = zoo.push_model(model, address, private=private, message=message)
    yield dataclasses.asdict(pushed), pushed
