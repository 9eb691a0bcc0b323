"""`kanets serve`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.pictures import check_at_least
from kanets.cli.running import command


@command("serve savedmodels", when_stopped=" It serves no more.")
def serve(
    directory: Annotated[
        str, Argument(help="A folder of folders of exported versions.")
    ],
    *,
    host: Annotated[
        str, Option(help="0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Where it listens.")] = 8501,
    threads: Annotated[int, Option(help="Requests answered at a time.")] = 2,
    max_bytes: Annotated[int, Option(help="Of a request.")] = 50_000_000,
):
    """Serve exported models over HTTP, as TensorFlow Serving does."""
    check_at_least(1, port=port, threads=threads, max_bytes=max_bytes)

    from kanets import serve

    serve.serve(directory, host, port, threads=threads, max_bytes=max_bytes)
