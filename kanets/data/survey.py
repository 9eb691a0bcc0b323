"""What a source holds, before its pictures are read."""

import statistics

from PIL import Image

from kanets.data import folders, records, tfds
from kanets.data.loading import classify

LOOKED_AT = 200  # pictures, evenly from all


def survey(source):
    """How many pictures a source trains on, and how large they are.

    Args:
        source: a folder, a pack or a TFDS name, as for `kanets.data.load`.

    Returns:
        `(pictures, side)`: their number, where the source has no validation
        set that of all; and the median of the shorter side in pixels, or
        None where it is not known.

    Cost: a look at the headers of `LOOKED_AT` files.
    """
    kind, source = classify(source)
    if kind == "tfds":
        builder = tfds.checked_builder(source)
        height, width = builder.info.features[
            builder.info.supervised_keys[0]
        ].shape[:2]
        side = None if None in (height, width) else min(height, width)
        return builder.info.splits["train"].num_examples, side
    if kind == "pack":
        index = records.read_index(source)
        part = records.training_part(index)
        paths, _ = records.list_records(source, index, part, index["classes"])
    else:
        root = source / "train" if folders.has_splits(source) else source
        paths, _ = folders.list_pictures(
            root, folders.list_classes(root), complete=True
        )
    sides = [_side(path) for path in paths[:: -(-len(paths) // LOOKED_AT)]]
    sides = [side for side in sides if side is not None]
    return len(paths), round(statistics.median(sides)) if sides else None


def _side(path):
    try:
        with Image.open(records.opened(path)) as picture:
            return min(picture.size)
    except Exception:  # Loading names what cannot be read.
        return None
