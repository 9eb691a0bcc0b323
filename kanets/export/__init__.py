"""Models in the form their consumer wants."""

from kanets.export.bundle import find_savedmodel
from kanets.export.generator import export_generator, is_generator
from kanets.export.savedmodel import export_savedmodel, load_savedmodel
from kanets.export.segmenter import (
    export_segmenter,
    is_segmenter,
    load_segmenter_savedmodel,
)

__all__ = [
    "export_generator",
    "export_savedmodel",
    "export_segmenter",
    "find_savedmodel",
    "is_generator",
    "is_segmenter",
    "load_savedmodel",
    "load_segmenter_savedmodel",
]
