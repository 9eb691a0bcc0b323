"""What an exported model makes of pictures, against the Keras model.

The artifact runs in a process of its own, `runtimes.py` as a program, where
neither Keras nor this package can be imported. Picture files, batch by batch,
go to it and to the Keras model.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

from kanets import zoo
from kanets.data.pictures import fit_picture
from kanets.evaluation import files as reading
from kanets.export import runtimes
from kanets.export.bundle import positive_int
from kanets.export.classifier import outputs_logits
from kanets.export.generator import is_generator
from kanets.export.segmenter import is_segmenter

_BATCH = 16  # rows at a time, here and there
_SEED = 0  # of the latents


def verify(
    artifact,
    model,
    pictures=None,
    *,
    count=200,
    threads=1,
    rounds=30,
    image_size=None,
    from_logits=None,
):
    """Compares an exported model with the Keras model it was made from.

    Both see the same pictures, or, of a generator, the same latents and
    classes in turn, drawn from a fixed seed. Nothing is judged here: the
    report says how far they agree, and how fast the artifact is.

    Args:
        artifact: path of an exported model, as `runtimes.find` takes. Its
            inputs are `image_bytes`, files; or `images` (B, H, W, 3) float32,
            pixels 0..255, fitted to its size by the rules of
            `kanets.data.pictures`; or `z`, maybe with `label`.
        model: what `kanets.load_model` takes, or a Keras model.
        pictures: a picture file, a folder, or a sequence of them; of a
            segmenter's folder of data, `images/` is taken. Needed for
            everything but a generator, which takes none.
        count: positive int, the most pictures, taken evenly from all of them;
            for a generator, how many latents.
        threads: positive int, for the artifact.
        rounds: positive int, calls that are timed.
        image_size: pair of int, the size that a SavedModel was exported with,
            of a classifier that leaves it open.
        from_logits: bool, whether the Keras model's outputs need a softmax to
            be probabilities. Defaults to what its last activation says.

    Returns:
        A dict:

        - `artifact`: its path as given, str;
        - `format`, `runtime`: of `runtimes.load`, str;
        - `inputs`: how many pictures or latents were compared;
        - `greatest_difference`: float, the largest distance between two
          scores (0..1) or, of a generator, two pixel values (-1..1); inf if
          there is a NaN; None for an artifact that returns no scores;
        - `agreement`: float 0..1. Classifier: the share of pictures with the
          same best class (with one output: on the same side of 0.5).
          Segmenter: the share of pixels with the same class. Generator: the
          share of 8-bit values that differ by at most one level;
        - `bytes`: size of the artifact's files without labels.txt;
        - `latency_ms`: float, median of a call with one row (as many as a
          fixed batch has), after a warm-up;
        - `threads`: as given.

    Raises:
        FileNotFoundError: no such artifact, or no such picture.
        RuntimeError: the artifact's process failed; the message is its own,
            in one line, be it a missing package or a failed call.
        ValueError: an argument does not fit; the artifact does not take what
            the model takes or return what it returns; a file that cannot be
            read, or is no JPEG or PNG where the artifact takes files.

    Cost: memory for 16 pictures and their scores at a time; they pass
    through a temporary folder, of which nothing is left.
    """
    count = positive_int("count", count)
    threads = positive_int("threads", threads)
    rounds = positive_int("rounds", rounds)
    _, path = runtimes.find(artifact)
    if not reading.is_keras(model):
        model = zoo.load_model(model)
    compare = _comparison(model, pictures, count, image_size, from_logits)
    command = [str(artifact), "--threads", str(threads)]
    with _Artifact([*command, "--rounds", str(rounds)]) as process:
        compare.check(process.about, artifact)
        for start in range(0, compare.count, _BATCH):
            rows = slice(start, start + _BATCH)
            results = process.run(compare.feeds(rows))
            compare.add(rows, results)
        latency = process.finish()["latency_ms"]
    return {
        "artifact": str(artifact),
        "format": process.about["format"],
        "runtime": process.about["runtime"],
        "inputs": compare.count,
        "greatest_difference": compare.tally.difference,
        "agreement": compare.tally.agreement,
        "bytes": _size(path),
        "latency_ms": latency,
        "threads": threads,
    }


def _comparison(model, pictures, count, image_size, from_logits):
    if is_generator(model):
        if pictures is not None:
            raise ValueError(
                "A generator takes no pictures. "
                f"Received: pictures={pictures!r}, model={model.name!r}"
            )
        return _Latents(model, count)
    if pictures is None:
        raise ValueError(
            "`pictures` must be given for a model that takes pictures. "
            f"Received: pictures=None, model={model.name!r}"
        )
    return _Pictures(model, pictures, count, image_size, from_logits)


class _Tally:
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


class _Latents:
    """A generator on latents, and labels if it has classes."""

    def __init__(self, model, count):
        from ylg import gan
        from ylg.gan.sampling import num_classes

        self.count = count
        self.tally = _Tally()
        self._model = model
        size = model.inputs[0].shape[-1]
        self._given = {"z": gan.latents(size, count, _SEED)}
        if len(model.inputs) == 2:
            labels = np.arange(count) % (num_classes(model) or 1)
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


class _Pictures:
    """A classifier or a segmenter on picture files."""

    def __init__(self, model, pictures, count, image_size, from_logits):
        if isinstance(pictures, str | pathlib.Path):
            pictures = [pictures]
        self._files = reading.sample(model, pictures, count)
        self.count = len(self._files)
        self.tally = _Tally()
        self._model = model
        self._segments = is_segmenter(model)
        self._image_size = image_size
        self._from_logits = from_logits

    def check(self, about, artifact):
        """Also settles what is fed, files or pixels, and their size."""
        kinds = [{"image_bytes"}, {"images"}]
        _check_inputs(about, kinds, artifact, self._model)
        outputs = ["probabilities"] + ["label_map"] * self._segments
        _check_outputs(about, outputs, artifact)
        if "probabilities" in about["outputs"] and self._from_logits is None:
            self._from_logits = outputs_logits(self._model)
        self._takes_files = "image_bytes" in about["inputs"]
        own = tuple(self._model.input_shape[1:3])
        self._size = None if None in own else own
        if not self._takes_files:
            self._size = _size_of_images(about, artifact, own) or self._size
            return
        reading.jpeg_or_png(self._files, "stop")
        if self._size is None and self._image_size is not None:
            self._size = tuple(self._image_size)
        if self._size is None and not self._segments:  # no map tells the size
            raise ValueError(
                "`image_size` must be given, the size of the export, where "
                "the model leaves it open. Received: image_size=None, "
                f"model.input_shape={self._model.input_shape}"
            )

    def feeds(self, rows):
        files = self._files[rows]
        self._pictures = [self._fit(reading.read(file)) for file in files]
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
            expected = _softmax(expected) if self._from_logits else expected
            self.tally.scores(scores.astype("float32"), expected)
        found = _decide(scores, -1) if label_map is None else label_map
        self.tally.decisions(found, _decide(expected, -2))

    def _fit(self, picture):
        if self._size is None:
            return picture
        return fit_picture(picture, self._size)

    def _pixels(self):
        pictures = [self._fit(picture) for picture in self._pictures]
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


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


class _Artifact:
    """`runtimes.py` as a program, which answers job after job."""

    def __init__(self, arguments):
        self._arguments = arguments

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="kanets-verify-")
            )
            self._folder = pathlib.Path(folder)
            self._errors = stack.enter_context(
                open(self._folder / "errors", "w+", errors="replace")
            )
            # -P: nothing is imported from the folder of the program.
            self._process = subprocess.Popen(
                [sys.executable, "-P", runtimes.__file__, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
            )
            stack.callback(self._stop)
            self.about = self._read()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def run(self, feeds):
        """The outputs for one batch, a dict of arrays."""
        job = {
            name: str(self._folder / f"{name}.npz")
            for name in ("feeds", "results")
        }
        np.savez(job["feeds"], **feeds)
        with contextlib.suppress(BrokenPipeError):  # `_read` says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        self._read()
        with np.load(job["results"]) as file:
            return {name: file[name] for name in file.files}

    def finish(self):
        """The last answer, when all is done."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().splitlines() or ["nothing said"])[-1]
        if code == 1:
            raise RuntimeError(last)
        raise RuntimeError(
            "The artifact's process did not end by itself. "
            f"Received: exit status {code}, {last}"
        )

    def _stop(self):
        self._process.kill()  # of no effect once it has ended
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._process.wait()


def _size(path):
    """Bytes of an artifact's files without labels; `path` is of `find`."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    elif path.suffix == ".xml":
        files.append(path.with_suffix(".bin"))
    return sum(
        file.stat().st_size for file in files if file.name != "labels.txt"
    )
