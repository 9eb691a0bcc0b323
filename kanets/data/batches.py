"""Batches of pictures for `fit()`: in order, seeded, without TensorFlow."""

import copy
import threading

import keras
import numpy as np

from kanets.data.pictures import PictureError, fit_picture
from kanets.data.records import read
from kanets.data.streams import each_pass
from kanets.data.threads import map_in_threads
from kanets.data.transforms import seeded, transformed

_LISTED = 20


# Pictures that fit in this many bytes are kept decoded, as 8-bit pixels.
MEMORY_BUDGET = 2 * 1024**3


class BadPicturesError(ValueError):
    """Pictures or label maps that cannot be used, all in one report.

    Attributes:
        pictures: list of `(path, reason)`.
    """

    def __init__(self, pictures):
        self.pictures = list(pictures)
        lines = [f"  {path}: {why}" for path, why in self.pictures[:_LISTED]]
        if len(self.pictures) > _LISTED:
            lines.append(f"  ... and {len(self.pictures) - _LISTED} more")
        super().__init__(
            "Every picture must be sound (`on_error='skip'` leaves the "
            f"others out). Received: {len(self.pictures)} bad picture(s):\n"
            + "\n".join(lines)
        )


def read_stack(paths, read):
    """Reads files of one shape in parallel.

    Args:
        paths: list of str, or of records of a pack.
        read: function from one of them to an array.

    Returns:
        The arrays, stacked.

    Raises:
        BadPicturesError: `read` raised a `PictureError`; the file is named.
    """

    def named(path):
        try:
            return read(path)
        except PictureError as e:  # It was readable when checked.
            raise BadPicturesError([(str(path), str(e))]) from e

    return np.stack(map_in_threads(named, paths))


class ArrayPictures:
    """Pictures held in memory: `(n, H, W, 1 or 3)`, uint8 or float32.

    `paths` are the files they were read from, list of str, or None.
    """

    def __init__(self, pixels, paths=None):
        self.pixels = pixels
        self.paths = paths
        self.image_size = tuple(pixels.shape[1:3])

    def take(self, rows):
        pixels = self.pixels[rows].astype(np.float32)
        return pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, -1)


class FilePictures:
    """Pictures decoded and resized each time they are asked for.

    `files` are paths or records of a pack, `paths` the names of all.
    """

    def __init__(self, files, image_size):
        self.files = files
        self.image_size = image_size

    @property
    def paths(self):
        return [str(file) for file in self.files]

    def take(self, rows):
        return read_stack([self.files[row] for row in rows], self._read)

    def _read(self, file):
        picture = fit_picture(read(file), self.image_size)
        return picture.astype(np.float32)


class Batches(keras.utils.PyDataset):
    """Labelled pictures in batches; made by `kanets.data.load`.

    Batch `i` is `(images, labels)`: float32 `(B, h, w, 3)` in 0..255 and
    int32 `(B,)`, or `(B, h, w)` where the labels are maps; the last one may
    be smaller. They are NumPy arrays; on JAX, what layers augmented is on
    its device. The order of a shuffled set is a function of `seed` and
    `epoch` alone.

    `epoch` counts whole passes: it advances when `fit()` ends an epoch and
    every batch of the pass was asked for, so the look Keras takes at a batch
    or two before training does not count (on sets of one or two batches it
    does). With `steps_per_epoch`, the next epoch goes on where the last one
    stopped; what is left at the end of a pass makes a shorter epoch, of which
    Keras warns, and a new `fit()` begins its pass anew: `Steps` do neither.

    To pin the order of a resumed run, set `epoch` at the start of each epoch
    (with `steps_per_epoch`, that of `Steps`), and pass `shuffle=False` to
    `fit()`: its default draws the order of a `PyDataset`'s batches from
    Python's global generator. Keep `workers=1` on JAX where you do: with
    more, Keras 3.15 serves batches it fetched for a first look again in the
    first epoch after `compile()`.

    Args:
        pictures: object with `image_size` and `take(rows)`.
        labels: integer array `(n,)`, the label of every row of `pictures`,
            or `(n, h, w)`, its label map; or what is indexed like one.
        rows: integer array, the rows that belong to this set.
        batch_size: int, pictures per batch.
        class_names: list of str; label `i` means `class_names[i]`.
        shuffle: bool, a new order every epoch. Default False.
        seed: non-negative int. Default 0.
        skipped: list of `(path, reason)`, pictures of the source left out.
        ignore_label: int, the label of the pixels of a label map that have
            no class, or None.
        is_test: bool, of a validation set: whether its source calls it test,
            so that it should choose nothing. Default False.
        **kwargs: `workers` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        class_names, image_size, skipped, ignore_label, is_test, num_pictures,
            epoch: see above.
        paths: list of str, the files in the order of `rows`, or None for
            what is not of files.
    """

    def __init__(
        self,
        pictures,
        labels,
        rows,
        *,
        batch_size,
        class_names,
        shuffle=False,
        seed=0,
        skipped=(),
        ignore_label=None,
        is_test=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pictures = pictures
        self.labels = labels
        self.rows = np.asarray(rows)
        self.batch_size = batch_size
        self.class_names = list(class_names)
        self.image_size = pictures.image_size
        self.shuffle = shuffle
        self.seed = seed
        self.skipped = list(skipped)
        self.ignore_label = ignore_label
        self.is_test = is_test
        self.num_pictures = len(self.rows)
        self._in_pass = -(-self.num_pictures // self.batch_size)
        self._steps = self._in_pass
        self._order = None
        self._transforms = ()
        self._begin(epoch=0)

    def _begin(self, epoch):
        self._lock = threading.Lock()
        self._in_epoch = False
        self.epoch = epoch

    @property
    def epoch(self):
        return self._epoch

    @epoch.setter
    def epoch(self, epoch):
        self._epoch = epoch
        self._start = 0  # which batch of the epoch index 0 means
        self._asked = set()

    @property
    def paths(self):
        """The files of the pictures, in the order of `rows`, or None."""
        paths = getattr(self.pictures, "paths", None)
        return None if paths is None else [paths[row] for row in self.rows]

    def __len__(self):
        return self._steps

    def __getitem__(self, index):
        batch = self._batch(index)
        with self._lock:
            self._asked.add(index)
        return batch

    def __iter__(self):
        for index in range(len(self)):
            yield self._batch(index)

    def on_epoch_begin(self):
        self._in_epoch = True

    def on_epoch_end(self):
        with self._lock:
            asked = len(self._asked)
            if self.workers > 1:
                # Whatever was fetched is served, except for a first look, and
                # the next epoch's indices begin at 0 again.
                asked *= self._in_epoch
            elif asked < len(self):
                return  # the next epoch's indices go on
            passes, self._start = divmod(self._start + asked, len(self))
            self._epoch += passes
            self._asked = set()
            self._in_epoch = False

    def order(self, epoch):
        """Returns the rows in the order of one pass.

        Args:
            epoch: int, number of the pass, counted from 0.

        Returns:
            Integer array `(num_pictures,)`.
        """
        if not self.shuffle:
            return self.rows
        known = self._order
        if known is None or known[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            known = self._order = epoch, rng.permutation(self.rows)
        return known[1]

    def _batch(self, index):
        if not 0 <= index < len(self):
            raise IndexError(
                f"A batch index must be in [0, {len(self)}). "
                f"Received: index={index}"
            )
        step = self._epoch * len(self) + self._start + index
        epoch, place = divmod(step, self._in_pass)
        start = place * self.batch_size
        rows = self.order(epoch)[start : start + self.batch_size]
        return self._augmented(self._read(rows), epoch, place)

    def _read(self, rows):
        return self.pictures.take(rows), self.labels[rows].astype(np.int32)

    def _augmented(self, batch, epoch, place):
        if self._transforms:
            with self._lock:
                for number, transform in enumerate(self._transforms):
                    key = [self.seed, 2, epoch, place, number]
                    batch = transformed(transform, batch, key)
        return batch


class Steps(Batches):
    """`Batches` without end, cut into epochs of a fixed number of steps.

    Step `i` of epoch `e` is a function of the set's seed, `e` and `i` alone:
    it is step `e * steps + i` of passes that follow one another.

    Args:
        batches: `Batches`; it is unchanged.
        steps: int, steps in an epoch.

    Attributes: as of `Batches`, where `epoch` counts epochs of `steps`.
    """

    def __init__(self, batches, steps):
        vars(self).update(vars(batches))
        self._steps = steps
        self._begin(epoch=0)


def gathered(batches, *, shuffle=False, seed=0):
    """Reads a `tf.data.Dataset` of `load` into memory, where it fits.

    Args:
        batches: what `load` returned: `Batches` and None are returned as
            they are.
        shuffle: bool, as in `Batches`.
        seed: int, as in `Batches`.

    Returns:
        `Batches`; or `batches` itself, if it needs more than
        `MEMORY_BUDGET` bytes.
    """
    if batches is None or isinstance(batches, Batches):
        return batches
    height, width = batches.image_size
    if batches.num_pictures * height * width * 3 > MEMORY_BUDGET:
        return batches
    parts = [
        (np.asarray(images).astype(np.uint8), np.asarray(labels))
        for images, labels in batches
    ]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return Batches(
        ArrayPictures(images),
        labels,
        np.arange(len(labels)),
        batch_size=len(parts[0][1]),
        class_names=batches.class_names,
        shuffle=shuffle,
        seed=seed,
        is_test=batches.is_test,
    )


def augmented(batches, transform):
    """Applies a layer or a function to every batch.

    Args:
        batches: `Batches` or a `tf.data.Dataset` of `(images, labels)`.
        transform: a Keras layer, called on the images with `training=True`,
            or a callable `(images, labels) -> (images, labels)`. For
            `Batches`, one with a method `reseed(seed)` is reseeded before
            each batch with an int that depends on the set's seed, the epoch
            and the batch alone, which makes a resumed run repeatable. Keras
            layers have no such method, and keep a generator of their own.
            For a `tf.data.Dataset`, one with a method
            `seeded(key, images, labels)` is called by it, with an int64 key
            `(2,)` that depends on the same; so are, with TensorFlow as the
            backend, Keras layers, as if they had one.

    Returns:
        New batches of the same kind with the same attributes; `batches`
        itself is unchanged. A `tf.data.Dataset` has the attribute `epoch`,
        the number of the next pass through it, which may be set.

    Raises:
        TypeError: `transform` is not callable.
    """
    if not callable(transform):
        raise TypeError(
            "`transform` must be a Keras layer or a callable. "
            f"Received: transform={transform!r}"
        )
    if isinstance(batches, Batches):
        new = copy.copy(batches)
        new._transforms = (*batches._transforms, transform)
        new._begin(batches.epoch)
        return new
    import tensorflow as tf

    apply = seeded(transform, batches)

    def step(key):
        return (
            batches.enumerate()
            .map(
                lambda place, batch: apply(
                    tf.random.fold_in(key, place), *batch
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .prefetch(tf.data.AUTOTUNE)
        )

    seed = getattr(batches, "seed", None) or 0
    new = each_pass(step, seed, batches.cardinality(), batches)
    for name in (
        "class_names",
        "image_size",
        "num_pictures",
        "skipped",
        "is_test",
        "seed",
    ):
        setattr(new, name, getattr(batches, name, None))
    return new
