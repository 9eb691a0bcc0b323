"""What to look at while a GAN trains: sample pictures and their distance."""

from pathlib import Path

import keras
import numpy as np

from ylg.metrics.evaluation import distances


class SampleGrid(keras.callbacks.Callback):
    """Writes a PNG of generated pictures after every epoch.

    The latents are always the same, so that pictures can be compared; with
    classes, each column is a class.

    Args:
        directory: folder of `epoch_0001.png`, `epoch_0002.png`, ...
        rows, columns: of the grid.
        seed: of the latents.
        draw: function of the pictures (n, H, W, 3) in [-1, 1] and `columns`
            that lays them out as uint8 pixels; default `picture_grid`.
    """

    def __init__(self, directory, rows=8, columns=10, seed=0, draw=None):
        super().__init__()
        self.directory = Path(directory)
        self.rows = rows
        self.columns = columns
        self.seed = seed
        self.draw = picture_grid if draw is None else draw

    def on_epoch_end(self, epoch, logs=None):
        labels = None
        if self.model.num_classes is not None:
            classes = np.arange(self.columns) % self.model.num_classes
            labels = np.tile(classes, self.rows)
        pictures = self.model.generate(
            self.rows * self.columns, labels, seed=self.seed
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        grid = self.draw(pictures, self.columns)
        path = self.directory / self.name_of(epoch + 1)
        keras.utils.save_img(path, grid, scale=False)

    @staticmethod
    def name_of(epochs):
        """The name of the file after so many epochs."""
        return f"epoch_{epochs:04d}.png"


class Evaluation(keras.callbacks.Callback):
    """Adds metrics of generated pictures to an epoch's logs.

    Put it before callbacks that read the logs.

    Args:
        real: uint8 pictures (n, H, W, 3), or features (n, F) of them.
        extractor: a `ylg.metrics.FeatureExtractor`.
        count: how many pictures to generate; labels in the proportions of
            all classes alike.
        every: epochs from one measurement to the next.
        seed: of the latents.

    Adds to the logs: "frechet_distance", "kernel_distance" and
    "kernel_distance_std"; NaN where a picture is not finite.
    """

    names = ("frechet_distance", "kernel_distance", "kernel_distance_std")

    def __init__(self, real, extractor, count=2000, every=1, seed=1):
        super().__init__()
        self.extractor = extractor
        self.real = real
        self.count = count
        self.every = every
        self.seed = seed
        self._real = None

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every or logs is None:
            return
        pictures = self.model.generate(self.count, seed=self.seed)
        if not np.all(np.isfinite(pictures)):  # it diverged: say so, and go on
            logs.update(dict.fromkeys(self.names, np.nan))
            return
        if self._real is None:
            self._real = self._extract(self.real)
        logs.update(distances(self._real, self._extract(pictures)))

    def _extract(self, pictures):
        if pictures.ndim == 2:
            return pictures
        features, _ = self.extractor(pictures)
        return features


def picture_grid(pictures, columns):
    """Lays pictures out in rows, with a line between them.

    Args:
        pictures: float (n, H, W, 3) in [-1, 1].
        columns: pictures in a row.

    Returns:
        uint8 array (rows * (H + 2) - 2, columns * (W + 2) - 2, 3).
    """
    pictures = to_pixels(pictures)
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    grid = np.full((rows, columns, height + 2, width + 2, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        grid[row, column, :height, :width] = picture
    grid = grid.transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * (height + 2), -1, 3)[:-2, :-2]


def to_pixels(pictures):
    """Pictures in [-1, 1] as uint8 pixels, of the same shape."""
    pixels = (np.asarray(pictures, np.float32) + 1.0) * 127.5
    return np.rint(np.clip(pixels, 0.0, 255.0)).astype(np.uint8)
