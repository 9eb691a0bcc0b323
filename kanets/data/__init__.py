"""Pictures from a folder, arrays or TensorFlow Datasets, ready for `fit()`.

`load` and `load_test` read pictures with a label each, `load_segmentation`
and `load_segmentation_test` pictures with a label for every pixel; `pack`
writes a folder as a few large files, which `load` reads alike.
`draw_scenes` draws pictures with a sentence each, and a `Vocabulary` makes
numbers of the words.
"""

from kanets.data.batches import (
    BadPicturesError,
    Batches,
    Steps,
    augmented,
    gathered,
)
from kanets.data.label_maps import (
    load_segmentation,
    load_segmentation_test,
)
from kanets.data.loading import load, load_test, unpack_sample
from kanets.data.packing import pack
from kanets.data.scenes import Scenes, draw_scenes
from kanets.data.vocabulary import Vocabulary

__all__ = [
    "BadPicturesError",
    "Batches",
    "Scenes",
    "Steps",
    "Vocabulary",
    "augmented",
    "draw_scenes",
    "gathered",
    "load",
    "load_segmentation",
    "load_segmentation_test",
    "load_test",
    "pack",
    "unpack_sample",
]
