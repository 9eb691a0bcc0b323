"""`kanets predict`."""

import sys
from typing import Annotated

from typer import Argument, Option

from kanets.cli.messages import one_line
from kanets.cli.options import Flip, ModelOrExport, OnError, Scales, Window
from kanets.cli.running import command


@command("predict savedmodels/mine bee.jpg")
def predict(
    model: ModelOrExport,
    pictures: Annotated[list[str], Argument(help="Files, or folders of them.")],
    *,
    top_k: Annotated[int, Option(help="Classes per picture.")] = 3,
    to: Annotated[
        str | None,
        Option(help="Of a segmenter: folder for label maps and overlays."),
    ] = None,
    on_error: OnError = "stop",
    scales: Scales = None,
    flip: Flip = None,
    window: Window = None,
):
    """Classes of picture files; of a segmenter, label maps."""
    from kanets import evaluation

    left_out = []

    def skip(path, reason):
        left_out.append(path)
        print(f"kanets: {path}: {one_line(reason)}", file=sys.stderr)

    given = {"scales": scales, "flip": flip, "window": window}
    results = evaluation.iter_predict(
        model,
        pictures,
        top_k=top_k,
        to=to,
        on_bad=skip if on_error == "skip" else None,
        **{k: value for k, value in given.items() if value is not None},
    )
    count = 0
    for path, ranked in results:
        names, figures = zip(*ranked, strict=True) if ranked else ((), ())
        value = {"picture": path, "classes": names, "scores": figures}
        line = "  ".join(f"{name} {figure:.3f}" for name, figure in ranked)
        yield value, f"{path}: {line}"
        count += 1
    if left_out:
        total = count + len(left_out)
        print(
            f"kanets: {len(left_out)} of {total} pictures left out",
            file=sys.stderr,
        )
