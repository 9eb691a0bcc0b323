"""Packed pictures: class folders as a few files of TFRecord, and an index.

What `kanets.data.pack` writes and `kanets.data.load` reads. A pack is a folder
with

- `index.json`: of each part its classes in the order of their labels, how many
  pictures each has, and the shards with their pictures, bytes and sha256;
- `train-00000-of-00004.tfrecord`: a shard, records of `tf.train.Example` with
  `image/encoded`, `image/class/label`, `image/class/text` and
  `image/filename`;
- `train-00000-of-00004.jsonl`: of each record its name, label, and the place of
  the encoded picture in the shard, so that pictures are read in any order, and
  without TensorFlow.
"""

import io
import json
from pathlib import Path
from typing import NamedTuple

from kanets.data.listing import TEST_FOLDERS, VALIDATION_FOLDERS
from kanets.data.pictures import PictureError, failure, read_picture

INDEX = "index.json"
KIND = "kanets pictures"
WHOLE = "all"  # the part of a folder that has no train/


class Record(NamedTuple):
    """A picture in a shard."""

    file: str
    name: str
    offset: int
    size: int

    def __str__(self):
        return self.name

    def open(self):
        """Its bytes, as an open binary file.

        Raises:
            PictureError: there are none.
        """
        if not self.size:
            raise PictureError("empty file (0 bytes)")
        try:
            with open(self.file, "rb") as shard:
                shard.seek(self.offset)
                return io.BytesIO(shard.read(self.size))
        except OSError as error:
            raise PictureError(failure(error)) from error


def read(path):
    """`read_picture` of a file or of a `Record`."""
    return read_picture(opened(path))


def opened(path):
    """What a picture is read of: a path, or the bytes of a `Record`."""
    return path.open() if isinstance(path, Record) else path


def read_index(root):
    """The index of a pack, or None of another folder.

    Raises:
        ValueError: it is of a later version of this package.
    """
    try:
        index = json.loads(Path(root, INDEX).read_text(encoding="utf-8"))
        kind = index.get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    if kind != KIND:
        return None
    if index["version"] != 1:
        raise ValueError(
            "A pack must be of version 1, which this version of kanets reads. "
            f"Received: version {index['version']} in {str(root)!r}"
        )
    return index


def validation_part(index):
    """The part of an index that training is validated on, or None."""
    return next((n for n in VALIDATION_FOLDERS if n in index["parts"]), None)


def test_part(index, split, root):
    """The part of an index to evaluate on.

    Raises:
        ValueError: there is none of that name, or none but train.
    """
    names = (*TEST_FOLDERS, WHOLE) if split is None else (split,)
    part = next((name for name in names if name in index["parts"]), None)
    if part is None:
        raise ValueError(
            f"A pack to evaluate on must hold one of {', '.join(names)}. "
            f"Received: {', '.join(index['parts'])} in {str(root)!r}"
        )
    return part


def training_part(index):
    return WHOLE if WHOLE in index["parts"] else "train"


def list_records(root, index, part, class_names):
    """Lists the pictures of a part of a pack.

    Args:
        root: Path of the pack.
        index: from `read_index`.
        part: str, its name.
        class_names: list of str, the order of the labels.

    Returns:
        `(records, labels)`: list of `Record` and list of int, in the order of
        `class_names`, then by file name.

    Raises:
        ValueError: a class of the pack is not in `class_names`; a shard is
            missing or not whole.
    """
    classes = index["classes"]
    unknown = sorted(set(classes) - set(class_names))
    if unknown:
        raise ValueError(
            f"Every class of a pack must be one of class_names={class_names}. "
            f"Received: {unknown} in {str(root)!r}"
        )
    found = []
    for shard in index["parts"][part]["shards"]:
        file = root / shard["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            raise ValueError(
                f"A shard must have {shard['bytes']} bytes, as the index says: "
                "copy or pack it again. Received: "
                f"{str(file)!r} with {size or 'none'}"
            )
        listing = file.with_suffix(".jsonl")
        text = listing.read_text(encoding="utf-8") if listing.is_file() else ""
        lines = text.splitlines()
        if len(lines) != shard["pictures"]:
            raise ValueError(
                f"A shard's list must have {shard['pictures']} lines, as the "
                "index says: copy or pack it again. Received: "
                f"{str(listing)!r} with {len(lines)}"
            )
        for line in lines:
            name, label, offset, size = json.loads(line)
            label = class_names.index(classes[label])
            found.append((label, Record(str(file), name, offset, size)))
    found.sort(key=lambda pair: pair[0])  # stable: names stay in order
    return [record for _, record in found], [label for label, _ in found]
