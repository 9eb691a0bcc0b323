"""Losses for training on label maps."""

import math

import keras
import numpy as np
from keras import ops

# Not Keras's epsilon, 1e-7: a pixel that is wrong by more would have no
# gradient. What a loss scale of float16 multiplies stays finite.
_LEAST_PROBABILITY = 1e-30


@keras.saving.register_keras_serializable(package="kanets")
class SegmentationCrossentropy(keras.losses.Loss):
    """Cross-entropy over the pixels of a batch that have a class.

    With `p` the probability that the net gives to a pixel's label, and `w`
    the weight of that class, the loss is `sum(-w log p) / sum(w)` over the
    labelled pixels of the whole batch; 0 if there are none.

    A label that is no class is never read as another one: its pixel counts
    for nothing, as if it were unlabelled. Labels are checked where they are
    loaded (`kanets.data.load_segmentation`), not here.

    Args:
        ignore_label: int, the label of pixels without a class; None if every
            pixel has one.
        class_weight: sequence of float, a weight for every class; None for
            equal weights. See `median_frequency_weights`.
        name: str.
        reduction: as in `keras.losses.Loss`; the loss is a scalar already.
        from_logits: bool, whether `y_pred` are logits: then the gradient is
            exact however wrong they are. Of probabilities it ends where they
            reach 1e-30.

    Call arguments:
        y_true: integer tensor (B, H, W) or (B, H, W, 1), labels.
        y_pred: tensor (B, H, W, classes), probabilities or logits. Both may
            have any dtype; what follows runs in float32.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: `class_weight` has a negative weight or another length
            than the classes of `y_pred`; labels of another rank; a
            `sample_weight`, which the mean over the batch leaves no place for.
    """

    def __init__(
        self,
        ignore_label=None,
        class_weight=None,
        name="segmentation_crossentropy",
        reduction="sum_over_batch_size",
        from_logits=False,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.ignore_label = ignore_label
        self.from_logits = from_logits
        self.class_weight = class_weight
        if class_weight is not None:
            self.class_weight = [float(weight) for weight in class_weight]
            if not all(0 <= weight < math.inf for weight in self.class_weight):
                raise ValueError(
                    "`class_weight` must be finite and not negative. Received: "
                    f"class_weight={self.class_weight}"
                )

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(
                "Pixels are weighted by `class_weight` and `ignore_label` "
                "alone. Received: sample_weight of shape "
                f"{getattr(sample_weight, 'shape', None)}"
            )
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        shapes = (tuple(y.shape) for y in (y_true, y_pred))
        shapes = "y_true of shape {}, y_pred of {}".format(*shapes)
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        if len(y_true.shape) != len(y_pred.shape) - 1:
            raise ValueError(
                "Labels must be integers (batch, height, width). Received: "
                f"{shapes}"
            )
        num_classes = y_pred.shape[-1]
        class_weight = self.class_weight
        if class_weight is None:
            class_weight = [1.0] * num_classes
        if len(class_weight) != num_classes:
            raise ValueError(
                "`class_weight` must have one weight for each class. "
                f"Received: {len(class_weight)} weights, {shapes}"
            )
        labels = ops.cast(y_true, "int32")
        if self.ignore_label is not None:
            labels = ops.where(labels == self.ignore_label, -1, labels)
        # What is no class gets zeros, and with them the weight 0; PyTorch's
        # one-hot takes classes alone.
        labels = ops.expand_dims(labels, -1)
        classes = ops.arange(num_classes, dtype="int32")
        chosen = ops.cast(labels == classes, "float32")
        class_weight = ops.convert_to_tensor(class_weight, "float32")
        weights = ops.sum(chosen * class_weight, -1)
        if self.from_logits:
            logs = ops.sum(chosen * ops.log_softmax(y_pred), -1)
        else:
            picked = ops.sum(chosen * y_pred, -1)
            logs = ops.log(ops.maximum(picked, _LEAST_PROBABILITY))
        total = ops.sum(weights)
        return -ops.sum(weights * logs) / ops.where(total > 0, total, 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "ignore_label": self.ignore_label,
            "class_weight": self.class_weight,
            "from_logits": self.from_logits,
        }


def median_frequency_weights(batches):
    """Weights that let rare classes count as much as common ones.

    The frequency of a class is its share of the pixels of the pictures it
    occurs in; its weight is the median of all frequencies over its own.

    Args:
        batches: `kanets.data.Batches` of `kanets.data.load_segmentation`;
            the label maps are counted as they are stored, whatever augments
            them.

    Returns:
        List of float, one weight for each class.

    Raises:
        ValueError: a class does not occur.

    References: Eigen & Fergus, "Predicting depth, surface normals and
    semantic labels with a common multi-scale convolutional architecture",
    ICCV 2015, section 6.3.2.
    """
    num_classes = len(batches.class_names)
    pixels, seen = np.zeros((2, num_classes))
    for start in range(0, len(batches.rows), batches.batch_size):
        rows = batches.rows[start : start + batches.batch_size]
        for label_map in batches.labels[rows]:
            labelled = label_map[label_map != batches.ignore_label]
            counts = np.bincount(labelled, minlength=num_classes)
            pixels += counts
            seen += label_map.size * (counts > 0)
    if not pixels.all():
        missing = np.flatnonzero(pixels == 0)
        raise ValueError(
            "Every class must occur in the label maps. Received: no pixel of "
            f"{[batches.class_names[label] for label in missing]}"
        )
    frequency = pixels / seen
    return (np.median(frequency) / frequency).tolist()
