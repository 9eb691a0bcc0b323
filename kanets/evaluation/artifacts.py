"""Exported models of every format, each run by the runtime it is for.

There is one way to run them, `kanets.export.runtimes`: what `kanets verify`
compares is what `evaluate` measures and `predict` asks.
"""

import functools
import io
import os
import pathlib

import numpy as np
from PIL import Image

from kanets import tasks
from kanets.data.framing import read_size
from kanets.export import find_savedmodel, runtimes
from kanets.files import read_labels


def is_savedmodel(path):
    """Whether `path` is a SavedModel or a folder of its versions."""
    try:
        find_savedmodel(path)
    except FileNotFoundError:
        return False
    return True


def is_artifact(path):
    """Whether `path` is an exported model, by its name or what it holds."""
    path = pathlib.Path(path)
    return (
        path.suffix in runtimes.SUFFIXES
        or any(
            (path / f"model{suffix}").exists() for suffix in runtimes.SUFFIXES
        )
        or is_savedmodel(path)
    )


class Artifact:
    """An exported model, on the CPU, as `kanets export` writes it.

    Args:
        path: as `runtimes.find` takes it.

    Attributes:
        name: the path, str.
        task: its `kanets.tasks.Task`.
        takes_files: bool, whether it is given the bytes of JPEG and PNG
            files, as SavedModels are, in place of pixels.
        class_names: tuple of str, from its labels.txt, or None.
        run: what `runtimes.load` returns.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `runtimes.load`; it
            has other inputs or outputs than an export of this package.
    """

    def __init__(self, path):
        self.name = str(path)
        self.run = runtimes.load(path, os.cpu_count() or 1)
        self.takes_files = "image_bytes" in self.run.inputs
        self.task = self._task()
        self.class_names = _labels(path)

    def __call__(self, pictures):
        """What it makes of pictures.

        Args:
            pictures: a list of files as bytes if it `takes_files`, else
                pixels (B, H, W, 3), float32, 0..255.

        Returns:
            A dict of arrays: `probabilities`, `label_map` and others.
        """
        if self.takes_files:
            return self.run(image_bytes=pictures)
        return self.run(images=pictures)

    @functools.cached_property
    def image_size(self):
        """Height and width it is for, or None where that is open."""
        if "images" in self.run.inputs:
            size = self.run.inputs["images"][0][1:3]
            return read_size(_folder(self.name), size)
        if self.task.sized_by is None:
            return None, None
        return self._shape_of(self.task.sized_by)[:2]

    def _task(self):
        inputs, outputs = sorted(self.run.inputs), sorted(self.run.outputs)
        task = tasks.of_export(inputs, outputs)
        if task is None:
            known = "; or ".join(t.contract for t in tasks.TASKS.values())
            raise ValueError(
                f"An exported model must {known}, as `kanets export` writes "
                f"it. Received: {self.name!r} with {', '.join(inputs)} to "
                f"{', '.join(outputs)}"
            )
        return task

    def _shape_of(self, output):
        """The shape of a row of an output: of a blank one, as it is run."""
        blank = {
            name: [_pixel()]
            if dtype == "string"
            else np.zeros([size or 1 for size in shape], dtype)
            for name, (shape, dtype) in self.run.inputs.items()
        }
        return self.run(**blank)[output].shape[1:]


def _pixel():
    """A PNG file of one pixel, as bytes."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def _labels(path):
    return read_labels(_folder(path))


def _folder(path):
    """Where an export has what its clients read."""
    format, found = runtimes.find(path)
    return found / "assets.extra" if format == "savedmodel" else found.parent
