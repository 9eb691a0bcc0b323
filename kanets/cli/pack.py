"""`kanets pack`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.running import command


@command("pack photos --to photos.pack")
def pack(
    folder: Annotated[str, Argument(help="Class folders.")],
    *,
    to: Annotated[str, Option(help="Folder; one of the same is continued.")],
    shard_size: Annotated[int, Option(help="Pictures per shard.")] = 1000,
):
    """Write class folders as TFRecord, to train on as on the folder."""
    from kanets import data

    index = data.pack(folder, to, shard_size=shard_size)
    for name, part in index["parts"].items():
        shards = part["shards"]
        size = sum(shard["bytes"] for shard in shards)
        value = {
            "to": to,
            "part": name,
            "pictures": part["pictures"],
            "classes": len(index["classes"]),
            "shards": len(shards),
            "bytes": size,
        }
        text = (
            f"{to}, {name}: {part['pictures']:,} pictures of "
            f"{len(index['classes'])} classes in {len(shards)} shards, "
            f"{size / 1e6:,.1f} MB"
        )
        yield value, text
