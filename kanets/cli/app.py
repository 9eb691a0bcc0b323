"""`kanets app`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.pictures import check_at_least
from kanets.cli.running import command


@command("app runs/mine", when_stopped=" The page is gone.")
def app(
    runs: Annotated[
        list[str] | None,
        Argument(help="Runs and model folders, besides the zoo's."),
    ] = None,
    *,
    host: Annotated[
        str, Option(help="0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Where it listens.")] = 7860,
):
    """Try models in the browser: classes, what is looked at, generators."""
    check_at_least(1, port=port)

    from kanets.app import build

    build(runs or ()).launch(
        server_name=host, server_port=port, show_error=True, footer_links=[]
    )
