"""Where a model errs, as figures and pictures in a folder.

A report is told of batches as they are measured, by the one pass that
`evaluate` makes, and keeps counts and the few worst pictures. What it writes:

- `report.json`: all figures, the most confused pairs, the most wrong pictures;
- `confusion.png`: the confusion matrix;
- `classes.png`: the figure of each class;
- `mistakes.png`: the most wrong pictures, if there are any.
"""

import abc
import heapq
import json
from pathlib import Path

import numpy as np

from kanets import files, visualize
from kanets.data.pictures import PictureError, read_picture

NAME = "report.json"
_PICTURES = ("confusion.png", "classes.png", "mistakes.png")
_PAIRS = 20
_MISTAKES = 24
_OVERLAYS = 6
_WEAKEST = 3
_TOP = 5


def check_folder(folder):
    """Refuses a folder that holds something else than an earlier report.

    Raises:
        ValueError: it does, or is a file.
    """
    folder = Path(folder)
    ours = (NAME, *_PICTURES)
    if not folder.exists():
        return
    if (
        not (folder.is_dir() and folder.name)  # "." cannot be replaced
        or any(p.name not in ours for p in folder.iterdir())
    ):
        raise ValueError(
            "A report is written to a folder that is new, empty, or that of "
            f"an earlier report. Received: report={str(folder)!r}"
        )


class Report(abc.ABC):
    """What reports of all kinds have in common.

    Args:
        class_names: sequence of str.

    Attributes:
        counts: int64 array (classes, classes), truth by what was said.
        pictures: int, how many were told of.
    """

    # Of a class: the key of its figure, the title of the bars, what counts.
    figure = title = unit = None

    def __init__(self, class_names):
        self.class_names = list(class_names)
        self.counts = np.zeros((len(class_names),) * 2, np.int64)
        self.pictures = 0
        self._worst = []  # a heap of (badness, -index, what is kept of it)

    @abc.abstractmethod
    def result(self):
        """What `evaluate` returns, a dict; its first item is the figure."""

    @abc.abstractmethod
    def class_figures(self):
        """The figure of each class that occurs: a dict, by name."""

    @abc.abstractmethod
    def most_wrong(self):
        """The most wrong pictures, the worst first: a list of dicts."""

    @abc.abstractmethod
    def draw_mistakes(self, path):
        """Draws the most wrong pictures."""

    def write(self, folder):
        """Writes the report, whole or not at all.

        Args:
            folder: new, or of an earlier report, which is replaced.

        Returns:
            A dict: `weakest`, of at most three class names the figures, those
            that are below 1; and `report`, the folder.

        Raises:
            ValueError: as `check_folder`.
            OSError: it cannot be written.
        """
        check_folder(folder)
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        figures = self.class_figures()
        with files.whole(folder) as fresh:
            fresh.mkdir()
            content = {
                **self.result(),
                "classes": self._classes(figures),
                "most_confused": self._pairs(),
                "most_wrong": self.most_wrong(),
                "class_names": self.class_names,
                "confusion": self.counts.tolist(),
            }
            files.write_text(fresh / NAME, _to_json(content))
            confusion, classes, mistakes = (fresh / name for name in _PICTURES)
            visualize.confusion_matrix(self.counts, self.class_names, confusion)
            bars = [(k, v, self._note(k)) for k, v in figures.items()]
            whole = next(iter(self.result().values()))
            visualize.class_bars(bars, classes, self.title, whole)
            if self._worst:
                self.draw_mistakes(mistakes)
        weakest = sorted(figures, key=figures.get)[:_WEAKEST]
        weakest = {name: figures[name] for name in weakest if figures[name] < 1}
        return {"weakest": weakest, "report": str(folder)}

    def _keep(self, badness, index, kept, most):
        """Keeps one of the worst; `kept` is a function, called if it is."""
        place = (badness, -index)
        if len(self._worst) < most:
            heapq.heappush(self._worst, (*place, kept()))
        elif place > self._worst[0][:2]:
            heapq.heapreplace(self._worst, (*place, kept()))

    def _ranked(self):
        """The worst first: pairs of the index of a picture and what is kept."""
        worst = sorted(self._worst, key=lambda w: w[:2], reverse=True)
        return [(-index, kept) for _, index, kept in worst]

    def _classes(self, figures):
        rows = zip(self.class_names, self.counts, strict=True)
        return [
            {
                "name": name,
                "count": int(row.sum()),
                "correct": int(row[i]),
                self.figure: figures.get(name),
            }
            for i, (name, row) in enumerate(rows)
        ]

    def _pairs(self):
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [
            {
                "class": self.class_names[i],
                "said": self.class_names[j],
                "count": int(wrong[i, j]),
                "share": float(wrong[i, j] / self.counts[i].sum()),
            }
            for i, j in pairs
            if wrong[i, j]
        ]

    def _note(self, name):
        """What a class was most often taken for."""
        label = self.class_names.index(name)
        row = self.counts[label].copy()
        right, total = row[label], row.sum()
        note = f"{right:,} of {total:,} {self.unit}"
        row[label] = 0
        if not row.any():
            return note
        said = self.class_names[row.argmax()]
        return f"{note}; {row.max():,} taken for {said}"


class ClassReport(Report):
    """Of a classifier: accuracy, and the surest of its mistakes.

    With more than five classes also top-5 accuracy: the share of pictures
    whose class is among the five of the highest scores, as `predict` ranks.
    """

    figure = "accuracy"
    title = "Accuracy by class"
    unit = "pictures"

    def __init__(self, class_names):
        super().__init__(class_names)
        self._among_top = 0

    def add(self, labels, scores, paths=None, images=None):
        """Tells of a batch.

        Args:
            labels: int array (B,).
            scores: float array (B, classes), probabilities.
            paths: list of B paths, or None for pictures that are no files.
            images: array (B, H, W, 3), 0..255, or None where paths are those
                of files.
        """
        top = np.argsort(-scores, axis=-1, kind="stable")[:, :_TOP]
        self._among_top += int((top == labels[:, None]).sum())
        said = top[:, 0]
        np.add.at(self.counts, (labels, said), 1)
        for row in np.flatnonzero(said != labels):

            def kept(row=row):
                path = None if paths is None else str(paths[row])
                pixels = None
                of_file = path is not None and Path(path).is_file()
                if images is not None and not of_file:
                    pixels = np.asarray(images[row]).astype(np.uint8)
                true, best = int(labels[row]), int(said[row])
                figures = float(scores[row, best]), float(scores[row, true])
                return path, pixels, true, best, figures

            sure = float(scores[row, said[row]])
            self._keep(sure, self.pictures + int(row), kept, _MISTAKES)
        self.pictures += len(labels)

    def result(self):
        correct = int(np.trace(self.counts))
        found = {
            "accuracy": correct / self.pictures,
            "correct": correct,
            "pictures": self.pictures,
        }
        if len(self.class_names) > _TOP:
            found["top_5_accuracy"] = self._among_top / self.pictures
        return found

    def class_figures(self):
        totals = self.counts.sum(1)
        return {
            name: float(self.counts[i, i] / totals[i])
            for i, name in enumerate(self.class_names)
            if totals[i]
        }

    def most_wrong(self):
        return [
            {
                "picture": path,
                "index": index,
                "class": self.class_names[true],
                "said": self.class_names[best],
                "probability": figures[0],
                "probability_of_class": figures[1],
            }
            for index, (path, _, true, best, figures) in self._ranked()
        ]

    def draw_mistakes(self, path):
        tiles = []
        for index, (file, pixels, true, best, figures) in self._ranked():
            said = f"{100 * figures[0]:.0f} % {self.class_names[best]}"
            name = f"picture {index}" if file is None else Path(file).name
            picture = _read(file) if pixels is None else pixels  # of a pack
            tiles.append((picture, self.class_names[true], said, name))
        wrong = self.pictures - int(np.trace(self.counts))
        some = f"The {len(tiles)} surest of {wrong:,}"
        some = some if wrong > len(tiles) else f"All {wrong}"
        title = f"{some} mistakes in {self.pictures:,} pictures"
        visualize.mistakes_sheet(tiles, path, title)


class SegmentReport(Report):
    """Of a segmenter: intersection over union, and its worst pictures.

    Args:
        class_names: as of `Report`.
        ignore_label: the label of pixels that do not count, or None.
    """

    figure = "iou"
    title = "Intersection over union by class"
    unit = "pixels"

    def __init__(self, class_names, ignore_label=None):
        super().__init__(class_names)
        self.ignore_label = ignore_label

    def add(self, labels, maps, images, paths=None):
        """Tells of a batch.

        Args:
            labels, maps: int arrays (B, H, W), true and found.
            images: array (B, H, W, 3), 0..255.
            paths: list of B paths, or None for pictures that are no files.
        """
        classes = len(self.class_names)
        for row, (label, found) in enumerate(zip(labels, maps, strict=True)):
            counts = confusion(label, found, classes, self.ignore_label)
            self.counts += counts
            right = float(np.trace(counts) / max(counts.sum(), 1))

            def kept(row=row, label=label, found=found, right=right):
                path = None if paths is None else str(paths[row])
                pixels = np.asarray(images[row]).astype(np.uint8)
                return path, pixels, label.copy(), found.copy(), right

            if counts.any() and right < 1:
                self._keep(1 - right, self.pictures + row, kept, _OVERLAYS)
        self.pictures += len(labels)

    def result(self):
        if not self.counts.any():
            raise ValueError(
                "A pixel must have a class, or there is nothing to measure. "
                f"Received: label maps of ignore_label={self.ignore_label} "
                "alone"
            )
        measured = figures(self.counts, self.class_names)
        return {**measured, "pictures": self.pictures}

    def class_figures(self):
        return figures(self.counts, self.class_names)["iou"]

    def most_wrong(self):
        return [
            {"picture": path, "index": index, "pixel_accuracy": right}
            for index, (path, *_, right) in self._ranked()
        ]

    def draw_mistakes(self, path):
        kept = [kept for _, kept in self._ranked()]
        _, images, labels, maps, _ = zip(*kept, strict=True)
        names, ignored = self.class_names, self.ignore_label
        visualize.overlay_sheet(images, labels, maps, names, path, ignored)


def confusion(labels, found, classes, ignore_label=None):
    """How many pixels of each class were taken for which.

    Args:
        labels, found: int arrays of one shape.
        classes: number of classes.
        ignore_label: the label of pixels that do not count, or None.

    Returns:
        int64 array (classes, classes): labels by what was found.
    """
    counted = np.ones(labels.shape, bool)
    if ignore_label is not None:
        counted = labels != ignore_label
    pairs = labels[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def figures(counts, names):
    """Mean IoU, pixel accuracy and IoU of the classes that occur."""
    hits = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    iou = {
        name: float(hit / total)
        for name, hit, total in zip(names, hits, union, strict=True)
        if total
    }
    return {
        "mean_iou": float(np.mean(list(iou.values()))),
        "pixel_accuracy": float(hits.sum() / counts.sum()),
        "iou": iou,
    }


def _read(path):
    """The picture; a grey one if it can no longer be read."""
    try:
        return read_picture(path)
    except PictureError:
        return np.full((8, 8, 3), 128, np.uint8)


def _to_json(content):
    """JSON with each item of a list on a line of its own."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list):
            items = ",\n  ".join(json.dumps(item) for item in value)
            text = f"[\n  {items}\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
