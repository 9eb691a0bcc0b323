"""A job: pictures in the order of their names, cut into shards for good.

A folder of answers holds

- `listing.jsonl`, the pictures, and `job.json`, what was asked of whom: what
  makes two jobs the same;
- `part-00000-of-00020.parquet` and so on, the answers, each written whole;
- `bad-00000-of-00020.jsonl`, of the shards that have some, the pictures that
  cannot be read and why, written before the answers of the shard;
- `manifest.json`, when all is done, with what was counted in these files.

Which shards are left is seen from the files alone, so a job that was killed
continues, and one that is done does nothing.
"""

import codecs
import contextlib
import csv
import functools
import hashlib
import json
from pathlib import Path

from kanets import files
from kanets.checks import positive_integer
from kanets.evaluation import tables
from kanets.evaluation.finding import picture_files
from kanets.scale import places

FORMATS = ("parquet", "jsonl", "csv")


def predict_many(
    model, pictures, to, *, top_k=3, shard_size=1000, format="parquet", flags=()
):
    """Writes what an exported model says of any number of pictures.

    Called again, it goes on with the shards that are missing.

    Args:
        model: a SavedModel of a classifier or a segmenter, as
            `kanets.export_savedmodel` writes it: the version folder or the
            folder of versions.
        pictures: a pattern of files, as "photos/**.jpg", or a folder. Both, and
            `model` and `to`, may be of a cloud (gs://, s3://, hdfs://) where
            Beam's package for that is installed.
        to: the folder to write to, made if missing.
        top_k: positive int, classes per picture; at most all. Of a segmenter
            those of the most pixels.
        shard_size: positive int, pictures per file.
        format: "parquet" (with pyarrow), "jsonl" or "csv", the files' as
            `kanets.evaluation.tables` writes them. Those of a segmenter are
            Parquet, with each picture's label map as the bytes of a PNG file.
        flags: list of str, those of Apache Beam. By default it runs in this
            process.

    Returns:
        What is in `manifest.json`: `pictures`, `answered`, `bad`, `shards`,
        and what was asked.

    Raises:
        ImportError: Apache Beam, or pyarrow, is not installed.
        ValueError: no pictures; a model of another kind; a segmenter's answers
            in another format than Parquet; flags that Beam does not know; a
            folder with the answers of another job.
        FileNotFoundError: no model there.
        BlockingIOError: another process writes to this folder.
        RuntimeError: the job failed; what is written stays.

    Cost: the memory of the pictures' names, and of a shard's answers a worker.
    """
    top_k = positive_integer("`top_k`", top_k)
    shard_size = positive_integer("`shard_size`", shard_size)
    if format not in FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(FORMATS)}. "
            f"Received: format={format!r}"
        )
    if format == "parquet":
        tables.check_parquet()
    places.beam()
    from kanets.scale import pipeline

    options = pipeline.options_of(flags)
    model, digest, bundle = _model(model)
    open_table = tables.open_table
    if bundle.task.writes:
        open_table = tables.open_label_maps
        if format != "parquet":
            raise ValueError(
                "Label maps are written to Parquet. "
                f"Received: format={format!r} for {str(model)!r}"
            )
    width = min(top_k, len(bundle.class_names or ()) or top_k)
    open_table = functools.partial(open_table, width=width)
    listing = _listed(pictures)
    job = {
        "model_sha256": digest,
        "top_k": top_k,
        "format": format,
        "shard_size": shard_size,
        "pictures": len(listing),
        "listing_sha256": None,
    }
    with _kept(to):
        shards, job["listing_sha256"] = _begin(listing, job, to)
        names = functools.partial(_names, len(shards), format)
        done = places.names_in(to)
        left = [shard for shard in shards if names(shard.index)[0] not in done]
        if left:
            handler = pipeline.BundleHandler(
                str(model), places.join(to, "listing.jsonl"), top_k
            )
            write = pipeline.Write(open_table, str(to), names)
            pipeline.run(left, handler, write, options)
        return _manifest(job, str(model), len(shards), names, to)


def _model(path):
    """The path, that of a version where it is here, digest and bundle."""
    from kanets.export import find_savedmodel
    from kanets.scale.pipeline import load_bundle

    if places.is_here(path):
        path = find_savedmodel(path).absolute()
    bundle = load_bundle(path)  # what is wrong with it is said at once
    with places.as_folder(path) as folder:
        return path, places.sha256(folder), bundle


def _listed(pictures):
    """The sorted paths of the pictures that a pattern or a folder names."""
    if places.is_here(pictures) and Path(pictures).is_dir():
        return sorted(map(str, picture_files([pictures])))
    names = places.found(pictures)
    if not names:
        raise ValueError(
            "A pattern must name pictures, as 'photos/*.jpg' in quotes. "
            f"Received: {str(pictures)!r}"
        )
    return names


@contextlib.contextmanager
def _kept(to):
    """Keeps a folder of this machine for this process."""
    if not places.is_here(to):
        yield
        return
    Path(to).mkdir(parents=True, exist_ok=True)
    with files.locked(to):
        yield


def _begin(listing, job, to):
    """Writes what the job is, or finds the same written; returns its shards.

    Returns:
        A list of `kanets.scale.pipeline.Shard`, and the listing's digest.
    """
    from kanets.scale.pipeline import Shard

    digest, shards, start, end = hashlib.sha256(), [], 0, 0
    with places.whole(places.join(to, "listing.jsonl")) as path:
        with path.open("wb") as file:
            for place, name in enumerate(listing, 1):
                line = json.dumps(name).encode() + b"\n"
                digest.update(line)
                file.write(line)
                end += len(line)
                if place % job["shard_size"] == 0 or place == len(listing):
                    shards.append(Shard(len(shards), start, end - start))
                    start = end
        job = {**job, "listing_sha256": digest.hexdigest()}
        _check_same(job, to)
    _write_json(places.join(to, "job.json"), job)
    return shards, job["listing_sha256"]


def _check_same(job, to):
    if "job.json" not in places.names_in(to):
        return
    path = places.join(to, "job.json")
    with places.opened(path) as file:
        content = file.read()
    try:
        earlier = json.loads(content)
    except ValueError as error:
        raise ValueError(
            "What is written of a job must be whole: remove this file to go on "
            f"with the same job. Received: {path!r} ({error})"
        ) from None
    others = [key for key in job if job[key] != earlier.get(key)]
    if others:
        raise ValueError(
            "A folder of answers must be of one job: the same pictures, model "
            "and options continue it, others need a folder of their own. "
            f"Received: {str(to)!r}, with another {', '.join(others)}"
        )


def _names(shards, format, index):
    """The names of the files of a shard's answers and of its bad pictures."""
    name = f"{index:05}-of-{shards:05}"
    return f"part-{name}.{format}", f"bad-{name}.jsonl"


def _manifest(job, model, shards, names, to):
    """Counts what was written, and says it in `manifest.json`."""
    there = places.names_in(to)
    answered = bad = 0
    for index in range(shards):
        table, others = (places.join(to, name) for name in names(index))
        rows = _rows(table)
        without = _rows(others) if names(index)[1] in there else 0
        size = min(job["shard_size"], job["pictures"] - answered - bad)
        if rows + without != size:
            raise RuntimeError(
                "Each picture must be answered or bad, once: remove this file, "
                f"and the same command writes it again. Received: {table!r} "
                f"with {rows} answered and {without} bad of {size}"
            )
        answered += rows
        bad += without
    manifest = {
        "pictures": job["pictures"],
        "answered": answered,
        "bad": bad,
        "shards": shards,
        "model": model,
        **{key: job[key] for key in job if key != "pictures"},
    }
    _write_json(places.join(to, "manifest.json"), manifest)
    return manifest


def _rows(path):
    """The rows of a file; -1 where it has not even a head."""
    with places.opened(path) as file:
        if path.endswith(".parquet"):
            import pyarrow
            from pyarrow import parquet

            try:
                return parquet.read_metadata(file).num_rows
            except pyarrow.ArrowInvalid:
                return -1
        if path.endswith(".csv"):
            lines = codecs.iterdecode(file, "utf-8", "replace")
            # A name's line end is no row's; the writer leaves \r bare.
            rows = csv.reader(line.replace("\r", "") for line in lines)
            return sum(1 for _ in rows) - 1
        return sum(1 for _ in file)


def _write_json(path, value):
    with places.whole(path) as local:
        text = json.dumps(value, indent=2) + "\n"
        local.write_text(text, encoding="utf-8")
