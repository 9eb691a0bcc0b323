"""Augmentation of training batches, from Keras's own layers."""

import keras
import numpy as np


class Augmentation:
    """Turns `(images, labels)` into augmented images and one-hot labels.

    Every random layer is reseeded for every batch, so that what a batch gets
    is a function of the run's seed, the epoch and the batch alone, and a
    resumed run sees what it would have seen.

    Args:
        num_classes: int, width of the one-hot labels.
        image_size: (height, width) of the pictures.
        flip: bool, mirror half of the pictures.
        crop: int, pixels a picture is shifted by at most, in both
            directions; the border is filled by reflection.
        randaugment: int, operations of RandAugment per picture (0: none).
        magnitude: float in 0..1, their strength.
        mixup: float, alpha of MixUp (0: none).
        cutmix: float, alpha of CutMix (0: none). With MixUp, each batch gets
            one of the two.

    Call arguments:
        images: float array (B, h, w, 3), 0..255.
        labels: integer array (B,).

    Returns:
        Images (B, h, w, 3) in 0..255 and labels (B, num_classes), float32.

    References: MixUp (Zhang et al., ICLR 2018), CutMix (Yun et al., ICCV
    2019), RandAugment (Cubuk et al., 2020), as in `keras.layers`.
    """

    def __init__(
        self,
        num_classes,
        image_size,
        flip=True,
        crop=0,
        randaugment=0,
        magnitude=0.5,
        mixup=0.0,
        cutmix=0.0,
    ):
        self.num_classes = num_classes
        self.picture_layers = []
        if flip:
            self.picture_layers.append(
                keras.layers.RandomFlip("horizontal", dtype="float32")
            )
        if crop:
            height, width = image_size
            self.picture_layers.append(
                keras.layers.RandomTranslation(
                    crop / height,
                    crop / width,
                    fill_mode="reflect",
                    interpolation="nearest",
                    dtype="float32",
                )
            )
        if randaugment:
            self.picture_layers.append(
                keras.layers.RandAugment(
                    (0, 255),
                    num_ops=randaugment,
                    factor=magnitude,
                    dtype="float32",
                )
            )
        self.mixing_layers = []
        if mixup:
            self.mixing_layers.append(
                keras.layers.MixUp(mixup, dtype="float32")
            )
        if cutmix:
            self.mixing_layers.append(
                keras.layers.CutMix(cutmix, dtype="float32")
            )
        self._generator = np.random.default_rng(0)

    def reseed(self, seed):
        """Makes what follows depend on `seed`, an int below 2**31."""
        self._generator = np.random.default_rng(seed)
        for layer in self.picture_layers + self.mixing_layers:
            for variable in layer.variables:
                state = self._generator.integers(2**31, size=variable.shape)
                variable.assign(state.astype("uint32"))

    def __call__(self, images, labels):
        for layer in self.picture_layers:
            images = layer(images, training=True)
        labels = keras.ops.one_hot(labels, self.num_classes, dtype="float32")
        if self.mixing_layers:
            choice = self._generator.integers(len(self.mixing_layers))
            mixed = self.mixing_layers[choice](
                {"images": images, "labels": labels}, training=True
            )
            images, labels = mixed["images"], mixed["labels"]
        return images, labels


class Mirror:
    """Mirrors half of the pictures, and leaves their labels alone.

    Call arguments:
        images: float array (B, h, w, 3).
        labels: array (B, ...).

    Returns:
        Images and labels of the same shapes.
    """

    def __init__(self):
        self._generator = np.random.default_rng(0)

    def reseed(self, seed):
        """Makes what follows depend on `seed`, an int below 2**31."""
        self._generator = np.random.default_rng(seed)

    def __call__(self, images, labels):
        turned = self._generator.integers(2, size=len(images)) == 1
        return np.where(
            turned[:, None, None, None], images[:, :, ::-1], images
        ), labels
