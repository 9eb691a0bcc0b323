"""Models in the form their consumer wants."""

from kanets.export.bundle import find_savedmodel
from kanets.export.generator import export_generator, is_generator
from kanets.export.savedmodel import export_savedmodel, load_savedmodel

__all__ = [
    "export_generator",
    "export_savedmodel",
    "find_savedmodel",
    "is_generator",
    "load_savedmodel",
]
