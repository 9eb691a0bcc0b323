"""Models in the form their consumer wants."""

from kanets.export.savedmodel import (
    export_savedmodel,
    find_savedmodel,
    load_savedmodel,
)

__all__ = ["export_savedmodel", "find_savedmodel", "load_savedmodel"]
