"""What an exported model and a Keras model make of the same inputs.

`Latents` for generators, `Pictures` for all others: `check` looks at what the
artifact says of itself, then `feeds` and `add` take turns, rows by rows.
"""

import pathlib

import keras
import numpy as np

from kanets import tasks
from kanets.data.framing import picture_size
from kanets.data.pictures import fit_picture
from kanets.evaluation import files as reading
from kanets.nets.logits import as_probabilities, outputs_logits
from ylg import gan

_SEED = 0  # of the latents


class Tally:
    """Adds up how far scores and decisions agree."""

    def __init__(self):
        self.difference = None
        self._same = self._all = 0

    @property
    def agreement(self):
        return self._same / self._all

    def scores(self, found, expected):
        """Compares floats."""
        _check_shapes(found, expected)
        greatest = float(np.max(np.abs(found - expected)))
        greatest = float("inf") if np.isnan(greatest) else greatest
        self.difference = max(self.difference or 0.0, greatest)

    def decisions(self, found, expected, tolerance=0):
        """Counts whole numbers that differ by no more than `tolerance`."""
        _check_shapes(found, expected)
        self._same += int(np.sum(np.abs(found - expected) <= tolerance))
        self._all += expected.size


def _check_shapes(found, expected):
    if found.shape != expected.shape:
        raise ValueError(
            "The artifact must return what the model returns. Received: "
            f"shape {found.shape} instead of {expected.shape}"
        )


class Latents:
    """A generator on latents, and labels if it has classes."""

    def __init__(self, model, count):
        self.count = count
        self.tally = Tally()
        self._model = model
        size = model.inputs[0].shape[-1]
        self._given = {"z": gan.latents(size, count, _SEED)}
        if len(model.inputs) == 2:
            labels = np.arange(count) % (gan.num_classes(model) or 1)
            self._given["label"] = labels.astype("int32")

    def check(self, about, artifact):
        _check_inputs(about, [set(self._given)], artifact, self._model)
        _check_outputs(about, ["images"], artifact)

    def feeds(self, rows):
        return {name: array[rows] for name, array in self._given.items()}

    def add(self, rows, results):
        given = list(self.feeds(rows).values())
        expected = _call(self._model, given if len(given) > 1 else given[0])
        found = results["images"].astype("float32")
        self.tally.scores(found, expected)
        levels = [np.round((x + 1) * 127.5) for x in (found, expected)]
        self.tally.decisions(*levels, tolerance=1)


class Pictures:
    """A classifier or a segmenter on picture files."""

    def __init__(self, model, pictures, count, image_size, from_logits):
        if isinstance(pictures, str | pathlib.Path):
            pictures = [pictures]
        self._files = reading.sample(model, pictures, count)
        self.count = len(self._files)
        self.tally = Tally()
        self._model = model
        self._task = tasks.of_model(model)
        self._image_size = image_size
        self._from_logits = from_logits

    def check(self, about, artifact):
        """Also settles what is fed, files or pixels, and their size."""
        kinds = [{"image_bytes"}, {"images"}]
        _check_inputs(about, kinds, artifact, self._model)
        _check_outputs(about, self._task.outputs, artifact)
        if "probabilities" in about["outputs"] and self._from_logits is None:
            self._from_logits = outputs_logits(self._model)
        self._takes_files = "image_bytes" in about["inputs"]
        own = picture_size(self._model)
        self._size = None if None in own else own
        if not self._takes_files:
            size = _size_of_images(about, artifact, own)
            if size is not None:
                self._size = picture_size(self._model, size)
            return
        reading.jpeg_or_png(self._files, "stop")
        if self._size is None and self._image_size is not None:
            self._size = picture_size(self._model, self._image_size)
        if self._size is None and self._task.sized_by is None:
            raise ValueError(
                "`image_size` must be given, the size of the export, where "
                "the model leaves it open. Received: image_size=None, "
                f"model.input_shape={self._model.input_shape}"
            )

    def feeds(self, rows):
        files = self._files[rows]
        self._pictures = [reading.read(file, self._size) for file in files]
        if self._takes_files:
            return {"image_bytes": np.array([f.read_bytes() for f in files])}
        if self._size is None:
            self._size = self._pictures[0].shape[:2]
        return {"images": self._pixels()}

    def add(self, rows, results):
        scores = results.get("probabilities")
        label_map = results.get("label_map")
        if self._size is None:  # the artifact alone knows it
            found = scores if label_map is None else label_map
            self._size = found.shape[1:3]
        expected = _call(self._model, self._pixels())
        if scores is not None:
            if self._from_logits:
                expected = keras.ops.convert_to_numpy(
                    as_probabilities(expected)
                )
            self.tally.scores(scores.astype("float32"), expected)
        found = _decide(scores, -1) if label_map is None else label_map
        self.tally.decisions(found, _decide(expected, -2))

    def _pixels(self):
        # Those that were read before the size was known.
        pictures = [fit_picture(p, self._size) for p in self._pictures]
        return np.stack(pictures).astype("float32")


def _size_of_images(about, artifact, own):
    """Height and width an artifact wants, None if they are open."""
    shape, dtype = about["inputs"]["images"]
    if dtype != "float32" or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "`images` must be float32 (batch, height, width, 3). "
            f"Received: {dtype} {tuple(shape)}, {str(artifact)!r}"
        )
    size = tuple(shape[1:3])
    for have, want in zip(own, size, strict=True):
        if None not in (have, want) and have != want:
            raise ValueError(
                "The artifact must take pictures of the model's size. "
                f"Received: {size} instead of {own}, {str(artifact)!r}"
            )
    return None if None in size else size


def _decide(scores, undecided):
    """The best class, a whole number; of one score, whether it is over 0.5.

    Where a score is not finite it is `undecided`, which no class is.
    """
    if scores.shape[-1] == 1:
        best = (scores[..., 0] > 0.5).astype("int64")
    else:
        best = scores.argmax(-1)
    return np.where(np.isfinite(scores).all(-1), best, undecided)


def _check_inputs(about, kinds, artifact, model):
    if set(about["inputs"]) not in kinds:
        wanted = " or ".join(" and ".join(sorted(kind)) for kind in kinds)
        raise ValueError(
            f"The artifact must take {wanted}, as the model does. Received: "
            f"{str(artifact)!r} with {', '.join(sorted(about['inputs']))}, "
            f"model={model.name!r}"
        )


def _check_outputs(about, names, artifact):
    if not set(about["outputs"]) & set(names):
        raise ValueError(
            f"The artifact must return {' or '.join(names)}. Received: "
            f"{str(artifact)!r} with {', '.join(about['outputs'])}"
        )


def _call(model, inputs):
    """A Keras model's float32 outputs; `predict` would compile it first."""
    outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
    return outputs.astype("float32")
