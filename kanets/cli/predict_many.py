"""`kanets predict-many`."""

from typing import Annotated, Literal

from typer import Argument, Option

from kanets.cli.running import command


@command("predict-many savedmodels/mine 'photos/*.jpg' --to answers")
def predict_many(
    model: Annotated[str, Argument(help="SavedModel that export wrote.")],
    pictures: Annotated[
        str, Argument(metavar="PATTERN", help="In quotes, or a folder.")
    ],
    beam: Annotated[
        list[str] | None,
        Argument(
            metavar="[-- FLAGS]",
            help="Of Apache Beam, as --runner=FlinkRunner.",
        ),
    ] = None,
    *,
    to: Annotated[
        str, Option(help="Folder; one of the same job is continued.")
    ],
    top_k: Annotated[int, Option(help="Classes per picture.")] = 3,
    shard_size: Annotated[int, Option(help="Pictures per file.")] = 1000,
    format: Annotated[
        Literal["parquet", "jsonl", "csv"], Option(help="Of the files.")
    ] = "parquet",
):
    """Classes of any number of pictures, by Apache Beam; continues.

    Of a segmenter also label maps, in Parquet.
    """
    from kanets.scale import predict_many

    result = predict_many(
        model,
        pictures,
        to,
        top_k=top_k,
        shard_size=shard_size,
        format=format,
        flags=beam or (),
    )
    yield (
        result,
        f"{to}: {result['answered']:,} of {result['pictures']:,} pictures "
        f"answered, {result['bad']:,} bad, {result['shards']:,} files",
    )
