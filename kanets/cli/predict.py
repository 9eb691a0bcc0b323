"""`kanets predict`."""

import sys
from typing import Annotated

from typer import Argument, Option

from kanets.cli.messages import one_line
from kanets.cli.options import Flip, ModelOrExport, OnError, Scales, Window
from kanets.cli.running import command
from kanets.progress import progress


@command("predict savedmodels/mine bee.jpg", reads=True, computes=True)
def predict(
    model: ModelOrExport,
    pictures: Annotated[
        list[str],
        Argument(help="Files, folders, http(s) addresses, - or videos."),
    ],
    *,
    top_k: Annotated[int, Option(help="Classes per picture.")] = 3,
    to: Annotated[
        str | None,
        Option(
            help="Table of the answers, .csv, .jsonl or .parquet; of a "
            "segmenter, folder for label maps and overlays."
        ),
    ] = None,
    every: Annotated[
        float, Option(metavar="SECONDS", help="From a video's frame to a next.")
    ] = 1.0,
    on_error: OnError = "stop",
    distributed: Annotated[bool, Option("--distributed", hidden=True)] = False,
    scales: Scales = None,
    flip: Flip = None,
    window: Window = None,
):
    """Classes of pictures; of a segmenter, label maps."""
    from kanets import evaluation
    from kanets.evaluation import tables

    if distributed:
        raise ValueError(
            "Pictures are answered by one process, or in shards by any number "
            "of workers: kanets predict-many. Received: --distributed"
        )
    found = evaluation.find_pictures(pictures, every)
    given = {"scales": scales, "flip": flip, "window": window}
    count = left_out = 0
    with progress(len(found)) as advance:

        def skip(path, reason):
            nonlocal left_out
            left_out += 1
            advance(1)
            print(f"kanets: {path}: {one_line(reason)}", file=sys.stderr)

        for path, ranked in evaluation.iter_predict(
            model,
            found,
            top_k=top_k,
            to=to,
            on_bad=skip if on_error == "skip" else None,
            **{k: value for k, value in given.items() if value is not None},
        ):
            count += 1
            advance(1)
            if not tables.is_table(to):
                parts = [f"{name} {figure:.3f}" for name, figure in ranked]
                line = f"{path}: {'  '.join(parts)}"
                yield tables.as_json(path, ranked), line
    if tables.is_table(to):
        value = {"to": to, "pictures": count, "left_out": left_out}
        yield value, f"{to}: {count:,} pictures"
    if left_out:
        print(
            f"kanets: {left_out} of {count + left_out} pictures left out",
            file=sys.stderr,
        )
