"""Answers as a table in a file: CSV, lines of JSON, or Parquet.

A row a picture, written as it comes, and the file is there whole or not at
all. Nothing but the row, of Parquet a group of rows, is held in memory.
"""

import contextlib
import csv
import json
from pathlib import Path

from kanets import files

_GROUP = 10_000  # rows of Parquet that are written at once
_GROUP_OF_MAPS = 500


def written(results, path):
    """Yields results, each when it is in a table; the last makes it whole.

    Args:
        results: iterator of `(picture, [(class name, figure), ...])`.
        path: the file, `.csv`, `.jsonl` or `.parquet`; replaced if there.

    Yields:
        The results, as they are.

    Raises:
        OSError: the system refused, or the disk is full.
        ImportError: Parquet without pyarrow.
    """
    path = Path(path)
    with files.whole(path) as fresh, open_table(fresh) as add:
        for picture, ranked in results:
            add(picture, ranked)
            yield picture, ranked


def is_table(path):
    """Whether a path, or None, is that of a table, by its suffix."""
    return path is not None and Path(path).suffix in TABLES


def check_table(path):
    """Checks a table's name, and what writes it, before there are rows.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: there is no folder for it.
        ImportError: Parquet without pyarrow.
    """
    path = Path(path)
    if not is_table(path):
        raise ValueError(
            "`to` must be a table for the answers of a classifier, a file "
            f"that ends in {', '.join(TABLES)}. Received: to={str(path)!r}"
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            "A table must be written to a folder that exists. Received: "
            f"{str(path)!r}"
        )
    if path.suffix == ".parquet":
        check_parquet()


def check_parquet():
    """Raises an ImportError without what writes Parquet."""
    _pyarrow()


@contextlib.contextmanager
def open_table(path, width=None):
    """Opens a table to add rows to, in the format that its suffix says.

    Args:
        path: the file to write.
        width: int, classes of a row; None, those of the first.

    Yields:
        Function (picture, ranked) that adds a row.
    """
    with TABLES[Path(path).suffix](path, width) as add:
        yield lambda picture, ranked: add(_text(picture), ranked)


@contextlib.contextmanager
def open_label_maps(path, width):
    """Opens a Parquet file to add rows of a segmenter to.

    Its columns are those of a classifier's, empty where a picture has fewer
    classes, and `label_map`, the bytes of a PNG file.

    Args:
        path: the file to write.
        width: int, classes of a row.

    Yields:
        Function (picture, ranked, label_map) that adds a row.
    """
    with _parquet(path, width, maps=True) as add:
        yield lambda picture, ranked, label_map: add(
            _text(picture), ranked, label_map
        )


@contextlib.contextmanager
def _csv(path, width):
    """Columns picture, class_1, score_1, class_2, ...: best first."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if width is not None:
            table.writerow(columns(width))

        def add(picture, ranked):
            nonlocal width
            if width is None:
                width = len(ranked)
                table.writerow(columns(width))
            cells = [(name, f"{figure:.6g}") for name, figure in ranked]
            table.writerow([picture, *sum(cells, ())])

        yield add
        if width is None:
            table.writerow(columns(0))


@contextlib.contextmanager
def _jsonl(path, width):
    """An object a line, as `kanets predict --json` prints it."""
    with open(path, "w", encoding="utf-8") as file:

        def add(picture, ranked):
            line = as_json(picture, ranked)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield add


@contextlib.contextmanager
def _parquet(path, width, maps=False):
    """The columns of CSV, scores in float32; and label maps as PNG."""
    arrow, parquet = _pyarrow()
    rows, writer = [], None
    group = _GROUP_OF_MAPS if maps else _GROUP

    def flush():
        nonlocal width, writer
        width = width or 0  # without a row
        kinds = [arrow.string(), *[arrow.string(), arrow.float32()] * width]
        names = columns(width)
        if maps:
            kinds.append(arrow.binary())
            names.append("label_map")
        table = arrow.table(
            [
                arrow.array([row[place] for row in rows], kind)
                for place, kind in enumerate(kinds)
            ],
            names,
        )
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows.clear()

    def add(picture, ranked, *label_map):
        nonlocal width
        width = len(ranked) if width is None else width
        empty = [None] * (2 * (width - len(ranked)))
        rows.append([picture, *sum(ranked, ()), *empty, *label_map])
        if len(rows) == group:
            flush()

    try:
        yield add
        if rows or writer is None:
            flush()
    finally:
        if writer is not None:
            writer.close()


TABLES = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def columns(width):
    """The names of the columns, for so many classes a picture."""
    names = ["picture"]
    for place in range(1, width + 1):
        names += [f"class_{place}", f"score_{place}"]
    return names


def as_json(picture, ranked):
    """A result as an object of JSON."""
    return {
        "picture": str(picture),
        "classes": [name for name, _ in ranked],
        "scores": [figure for _, figure in ranked],
    }


def _text(picture):
    """A name in UTF-8, whatever bytes a file is called by."""
    return str(picture).encode("utf-8", "backslashreplace").decode()


def _pyarrow():
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            'Parquet is written by pip install "kanets[parquet]".'
        ) from None
    return pyarrow, parquet
