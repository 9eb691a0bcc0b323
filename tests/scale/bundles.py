"""What many pictures are answered by in tests, and the pictures."""

import kanets
from tests.evaluation.test_classification import NAMES, by_colour
from tests.photos import write_photos


def write_bundle(room, photos):
    """A classifier's bundle, `served/mine`, and ten photos in a folder."""
    write_photos(room / photos, 1, 5, (6, 8), "png")
    kanets.export_savedmodel(
        by_colour(2, "softmax"), room / "served" / "mine", NAMES
    )
    return room
