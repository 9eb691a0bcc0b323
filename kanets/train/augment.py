"""Augmentation of training batches, of classes and of label maps."""

import math

import keras
import numpy as np
from PIL import Image

from kanets.data.arguments import check_size
from kanets.data.label_map_files import sample_nearest
from kanets.data.streams import with_random_states

GREY = np.float32([0.299, 0.587, 0.114])  # of red, green and blue, Rec. 601


class Augmentation:
    """Turns `(images, labels)` into augmented images and one-hot labels.

    `Batches` reseed it for every batch, so that what a batch gets is a
    function of the run's seed, the epoch and the batch alone, and a resumed
    run sees what it would have seen. In a `tf.data.Dataset`, with TensorFlow
    as the backend, `seeded` does the same for many threads at once.

    Args:
        num_classes: int, width of the one-hot labels.
        image_size: (height, width) of the pictures.
        flip: bool, mirror half of the pictures.
        crop: int, pixels a picture is shifted by at most, in both
            directions; the border is filled by reflection.
        randaugment: int, operations of RandAugment per picture (0: none).
        magnitude: float in 0..1, their strength.
        mixup: float, alpha of MixUp (0: none).
        cutmix: float in 0..1, alpha of CutMix (0: none). With MixUp, each
            batch gets one of the two.

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
        if not crop < min(image_size):
            raise ValueError(
                "crop must be less than the pictures' sides. Received: "
                f"crop={crop} of pictures of {tuple(image_size)}"
            )
        of_all = {"data_format": "channels_last", "dtype": "float32"}
        self.picture_layers = []
        if flip:
            self.picture_layers.append(
                keras.layers.RandomFlip("horizontal", **of_all)
            )
        if crop:
            height, width = image_size
            self.picture_layers.append(
                keras.layers.RandomTranslation(
                    crop / height,
                    crop / width,
                    fill_mode="reflect",
                    interpolation="nearest",
                    **of_all,
                )
            )
        if randaugment:
            self.picture_layers.append(
                keras.layers.RandAugment(
                    (0, 255), num_ops=randaugment, factor=magnitude, **of_all
                )
            )
        self.mixing_layers = []
        if mixup:
            self.mixing_layers.append(keras.layers.MixUp(mixup, **of_all))
        if cutmix:
            # Of one number Keras draws alpha anew for each batch, from 0 on.
            self.mixing_layers.append(CutMix((cutmix, cutmix), **of_all))
        # Whether no picture's result depends on the pixels of others.
        self.each_alone = not self.mixing_layers
        self._which = keras.random.SeedGenerator(0)
        self._random_states = [
            variable
            for layer in self.picture_layers + self.mixing_layers
            for variable in layer.variables
        ]
        self._random_states.append(self._which.state)
        self._program = _compiled(self._augment, self._random_states)
        self.seeded = with_random_states(self._augment, self._random_states)

    def reseed(self, seed):
        """Makes what follows depend on `seed`, an int below 2**31."""
        generator = np.random.default_rng(seed)
        for variable in self._random_states:
            state = generator.integers(2**31, size=variable.shape)
            variable.assign(state.astype("uint32"))

    def __call__(self, images, labels):
        return self._program(images, labels)

    def _augment(self, images, labels):
        for layer in self.picture_layers:
            images = layer(images, training=True)
        labels = keras.ops.one_hot(labels, self.num_classes, dtype="float32")
        batch = {"images": images, "labels": labels}
        mixed = [layer(batch, training=True) for layer in self.mixing_layers]
        if len(mixed) == 2:
            one, other = mixed
            heads = keras.random.uniform((), seed=self._which) < 0.5
            mixed = [
                {k: keras.ops.where(heads, one[k], other[k]) for k in batch}
            ]
        if mixed:
            [batch] = mixed
        return batch["images"], batch["labels"]


def _compiled(function, variables):
    """Compiles a function of pictures that calls random Keras layers.

    Called as they are, those layers take three times as long on TensorFlow,
    and on JAX some compile their branches again for every batch.

    Args:
        function: function of arrays.
        variables: list of the Keras variables it reads and assigns.

    Returns:
        A function of the same arguments and results.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if keras.backend.backend() != "jax":
        return function
    import jax

    @jax.jit
    def program(states, *arrays):
        pairs = list(zip(variables, states, strict=True))
        with keras.StatelessScope(pairs) as scope:
            results = function(*arrays)
        return results, [scope.get_current_value(v) for v in variables]

    def stateful(*arrays):
        states = [variable.value for variable in variables]
        results, states = program(states, *arrays)
        for variable, state in zip(variables, states, strict=True):
            variable.assign(state)
        return results

    return stateful


class CutMix(keras.layers.CutMix):
    """Keras's, with the labels' shares those of the pixels.

    Keras takes them from the box before it is rounded to whole pixels, which
    is off by a few percent where pictures are small.
    """

    def _generate_batch_mask(self, images_shape, box_corners):
        pasted, _ = super()._generate_batch_mask(images_shape, box_corners)
        share = self.backend.cast(pasted, self.compute_dtype)
        return pasted, 1.0 - self.backend.numpy.mean(share, axis=(1, 2, 3))


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


class SegmentationAugmentation:
    """Scales, crops and mirrors pictures together with their label maps.

    And gives them another light, so that a city by day is of use at dusk.

    Each picture on its own: a scale drawn log-uniformly from `1/scale` to
    `scale`; a crop at a random place of the scaled picture, padded where that
    is smaller (grey 127.5, `ignore_label`); mirrored half of the time. Then
    its brightness, contrast to its mean grey and saturation are each
    multiplied by a number from 1 - `color` to 1 + `color`, one after the
    other, and what leaves 0..255 is cut off.

    A scaled picture is resized by the rule of the package, antialiased
    bilinear, and rounded to 8 bits; its label map is sampled at the centres
    of the same new pixels. Only what the crop shows is resized.

    Args:
        crop_size: (height, width) of the results; None keeps that of the
            pictures.
        flip: bool, mirror half of the pictures.
        scale: float, at least 1, which is no scaling.
        ignore_label: int, the label of what is padded; None where the crop
            always fits into the picture.
        color: float in [0, 1), how much the light differs; 0 leaves it.

    Call arguments:
        images: float array (B, H, W, 3), 0..255.
        labels: integer array (B, H, W).

    Returns:
        Images (B, h, w, 3), float32, and labels (B, h, w), int32.

    Raises:
        ValueError: an argument, named; when called, a crop that needs padding
            without `ignore_label`.
    """

    each_alone = True

    def __init__(
        self,
        crop_size=None,
        flip=True,
        scale=1.0,
        ignore_label=None,
        color=0.0,
    ):
        if not 1 <= scale < math.inf:
            raise ValueError(
                "`scale` must be at least 1, which is no scaling. "
                f"Received: scale={scale!r}"
            )
        if not 0 <= color < 1:
            raise ValueError(
                "`color` must be in [0, 1), where 0 leaves the light as it "
                f"is. Received: color={color!r}"
            )
        self.crop_size = check_size("crop_size", crop_size)
        self.flip = flip
        self.scale = scale
        self.ignore_label = ignore_label
        self.color = color
        self._generator = np.random.default_rng(0)

    def reseed(self, seed):
        """Makes what follows depend on `seed`, an int below 2**31."""
        self._generator = np.random.default_rng(seed)

    def __call__(self, images, labels):
        grid = labels.shape[1:]
        size = grid if self.crop_size is None else self.crop_size
        if self.ignore_label is None and any(
            int(length / self.scale) < crop
            for length, crop in zip(grid, size, strict=True)
        ):
            raise ValueError(
                "A crop that can be larger than the scaled picture needs "
                f"`ignore_label`. Received: ignore_label=None, crop {size} of "
                f"pictures {grid}, scale={self.scale}"
            )
        shape = (len(images), *size)
        new_images = np.full((*shape, 3), 127.5, np.float32)
        padding = 0 if self.ignore_label is None else self.ignore_label
        new_labels = np.full(shape, padding, np.int32)
        for row in range(len(images)):
            self._one(
                images[row], labels[row], new_images[row], new_labels[row]
            )
        return new_images, new_labels

    def _one(self, image, label_map, new_image, new_label_map):
        """Fills one result, given as views that hold the padding."""
        random = self._generator
        scale = self.scale ** random.uniform(-1, 1)
        places = [
            _place(length, crop, scale, random)
            for length, crop in zip(
                label_map.shape, new_label_map.shape, strict=True
            )
        ]
        (top, rows, above, height), (left, columns, before, width) = places
        image = _resized(image, (top, left, rows, columns), (height, width))
        label_map = sample_nearest(
            label_map, (top, left, rows, columns), (height, width)
        )
        if self.flip and random.integers(2):
            image, label_map = image[:, ::-1], label_map[:, ::-1]
        if self.color:
            factors = random.uniform(1 - self.color, 1 + self.color, 3)
            image = _relit(image, *factors)
        window = np.s_[above : above + height, before : before + width]
        new_image[window], new_label_map[window] = image, label_map


def _relit(image, brightness, contrast, saturation):
    """A picture (h, w, 3) in 0..255 with these three multiplied in turn."""
    image = np.clip(image * np.float32(brightness), 0, 255)
    mean = (image @ GREY).mean()
    image = np.clip(mean + np.float32(contrast) * (image - mean), 0, 255)
    grey = (image @ GREY)[..., None]
    return np.clip(grey + np.float32(saturation) * (image - grey), 0, 255)


def _place(length, crop, scale, random):
    """Places a crop along one axis.

    Returns:
        `(start, part, offset, size)`: the part of the picture that is shown,
        in its own pixels, and where and how long it is in the crop.
    """
    scaled = int(length * scale)
    if scaled >= crop:
        start = random.integers(scaled - crop + 1) / scale
        return start, min(crop / scale, length - start), 0, crop
    size = max(1, scaled)
    return 0, length, random.integers(crop - size + 1), size


def _resized(image, box, size):
    """Resizes a box of a picture; one of that size is copied as it is."""
    top, left, rows, columns = box
    if (rows, columns) == size:  # Then top and left are whole pixels, too.
        top, left = int(top), int(left)
        return image[top : top + size[0], left : left + size[1]]
    picture = Image.fromarray(np.rint(image).astype(np.uint8))
    box = (left, top, left + columns, top + rows)
    return np.asarray(
        picture.resize(size[::-1], Image.Resampling.BILINEAR, box)
    )
