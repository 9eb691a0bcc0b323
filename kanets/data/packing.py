"""Class folders -> a pack; see `kanets.data.records` for what that is."""

import hashlib
import json
from pathlib import Path

from kanets import files
from kanets.checks import positive_integer
from kanets.data import folders
from kanets.data.loading import classify
from kanets.data.records import INDEX, KIND, WHOLE
from kanets.progress import progress

PLAN = "plan.json"


def pack(folder, to, *, shard_size=1000):
    """Writes class folders as shards of TFRecord, which `load` reads alike.

    The pack has the pictures' files as they are, in the order in which they
    are loaded, and so the same pictures, labels and class names. Called again
    it goes on with the shards that are missing. Nothing is decoded: a picture
    that cannot be read is named when it is loaded, as that of a folder.

    Args:
        folder: class folders, or `train/` and others that hold them, as
            `kanets.data.load` takes it.
        to: the folder to write to, made if missing.
        shard_size: positive int, pictures per shard.

    Returns:
        What is in `index.json`, a dict.

    Raises:
        ValueError: no class folders; a folder that holds another pack.
        BlockingIOError: another process writes to this folder.
        OSError: the system refused, or the disk is full.

    Cost: each file is read once; the memory of the files' names.
    """
    shard_size = positive_integer("`shard_size`", shard_size)
    kind, root = classify(folder)
    if kind != "folder":
        raise ValueError(
            "What is packed must be a folder of class folders. "
            f"Received: {str(folder)!r}"
        )
    classes, parts = _parts(root)
    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)
    count = sum(map(len, parts.values()))
    with files.locked(to), progress(count, "packing") as advance:
        _begin(to, classes, parts, shard_size)
        index = {
            "kind": KIND,
            "version": 1,
            "shard_size": shard_size,
            "classes": classes,
            "parts": {
                name: _write_part(
                    to, name, classes, pictures, shard_size, advance
                )
                for name, pictures in parts.items()
            },
        }
        files.write_text(to / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def _parts(root):
    """The classes, and of each part `[(path, name, label), ...]` in order."""
    places = {WHOLE: root}
    if folders.has_splits(root):
        names = ("train", *folders.VALIDATION_FOLDERS)
        found = {name: folders.find_folder(root, (name,)) for name in names}
        places = {name: path for name, path in found.items() if path}
    classes = folders.list_classes(next(iter(places.values())))
    parts = {}
    for name, place in places.items():
        paths, labels = folders.list_pictures(
            place, classes, complete=name in (WHOLE, "train")
        )
        names = [path.relative_to(root).as_posix() for path in paths]
        parts[name] = list(zip(paths, names, labels, strict=True))
    return classes, parts


def _begin(to, classes, parts, shard_size):
    """Writes what is packed, or finds the same written."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for part, pictures in parts.items():
        for path, name, label in pictures:
            line = json.dumps([part, name, label, path.stat().st_size])
            digest.update(line.encode())
    plan = {"shard_size": shard_size, "pictures_sha256": digest.hexdigest()}
    there = to / PLAN
    if there.exists() and json.loads(there.read_text()) != plan:
        raise ValueError(
            "A pack must be of one folder as it is: the same pictures and "
            "`shard_size` continue it, others need a folder of their own. "
            f"Received: {str(to)!r}, of others"
        )
    files.write_text(there, json.dumps(plan) + "\n")


def _write_part(to, part, classes, pictures, shard_size, advance):
    """Writes the shards that are missing; returns what the index says."""
    count = -(-len(pictures) // shard_size)
    shards = []
    for place in range(count):
        file = to / f"{part}-{place:05}-of-{count:05}.tfrecord"
        inside = pictures[place * shard_size :][:shard_size]
        if file.exists():
            advance(len(inside))
        else:
            _write_shard(file, classes, inside, advance)
        shards.append(
            {
                "file": file.name,
                "pictures": len(inside),
                "bytes": file.stat().st_size,
                "sha256": files.sha256(file),
            }
        )
    counts = dict.fromkeys(classes, 0)
    for _, _, label in pictures:
        counts[classes[label]] += 1
    return {"pictures": len(pictures), "counts": counts, "shards": shards}


def _write_shard(file, classes, pictures, advance):
    """Writes a shard after the list of what is in it, each whole."""
    import tensorflow as tf

    lines, position = [], 0
    with files.whole(file) as fresh:
        with tf.io.TFRecordWriter(str(fresh)) as shard:
            for path, name, label in pictures:
                content = path.read_bytes()
                record = _record(content, name, label, classes[label])
                shard.write(record)
                # Length and its check are 12 bytes, that of the record 4.
                inside = record.index(content)
                place = position + 12 + inside
                position += 12 + len(record) + 4
                line = [name, label, place, len(content)]
                lines.append(json.dumps(line) + "\n")
                advance(1)
        files.write_text(file.with_suffix(".jsonl"), "".join(lines))


def _record(content, name, label, text):
    import tensorflow as tf

    def texts(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image/encoded": texts(content),
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        ),
        "image/class/text": texts(text.encode()),
        "image/filename": texts(name.encode("utf-8", "backslashreplace")),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)
