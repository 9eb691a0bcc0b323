"""Losses: of label maps, of pairs, and of what a teacher answers."""

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


@keras.saving.register_keras_serializable(package="kanets")
class ContrastiveLoss(keras.losses.Loss):
    """Cross-entropy of true pairs against the wrong ones of their batch.

    With scores s, and N(i) the pairs of other labels than pair i, and i,

        L_i = log(sum_{j in N(i)} exp s_ij) / 2
            + log(sum_{j in N(i)} exp s_ji) / 2 - s_ii

    so a picture is told from those of other sentences, and a sentence from
    others; what is the same is no wrong answer. It depends on the batch: the
    larger, the higher.

    Args:
        name: str.
        reduction: as in `keras.losses.Loss`.

    Call arguments:
        y_true: integer tensor (B, T), what is told of each pair: pairs of the
            same row are true of each other, too.
        y_pred: tensor (B, B), scores of pictures (rows) and sentences. What
            follows runs in float32.

    Returns:
        Float32, a scalar, or (B,) without reduction.

    Raises:
        ValueError: a tensor of another rank.

    References: van den Oord et al., "Representation learning with contrastive
    predictive coding", 2018, equation 4; both ways as in Radford et al.,
    "Learning transferable visual models from natural language supervision",
    ICML 2021, figure 3.
    """

    def __init__(
        self, name="contrastive_loss", reduction="sum_over_batch_size"
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true, y_pred):
        if len(y_true.shape) != 2 or len(y_pred.shape) != 2:
            raise ValueError(
                "Labels must be (batch, words) and scores (batch, batch). "
                f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of "
                f"{tuple(y_pred.shape)}"
            )
        same = ops.all(y_true[:, None] == y_true[None], axis=-1)
        pairs = ops.arange(ops.shape(y_true)[0])
        own = pairs[:, None] == pairs[None]
        others = ops.logical_or(own, ops.logical_not(same))
        scores = ops.where(others, y_pred, -1e30)
        both = ops.logsumexp(scores, axis=0) + ops.logsumexp(scores, axis=1)
        return both / 2 - ops.sum(ops.where(own, y_pred, 0.0), axis=1)


@keras.saving.register_keras_serializable(package="kanets")
class DistillationCrossentropy(keras.losses.Loss):
    """What labels and a teacher have to say of a student's logits.

    With `s` the student's logits, `t` the teacher's and `T` the temperature,

        (1 - weight) CE(labels, softmax(s))
            + weight T^2 KL(softmax(t / T) || softmax(s / T))

    The factor T^2 keeps the gradients of both terms alike in size whatever T
    is. `kanets.train.distillation.Distillation` adds the teacher's logits to
    the labels.

    Args:
        weight: float in 0..1, of the teacher's term.
        temperature: float above 0.
        label_smoothing: float in 0..1, of the labels alone.
        name: str.
        reduction: as in `keras.losses.Loss`.

    Call arguments:
        y_true: tensor (B, 2 classes), the labels, one-hot or soft, and after
            them the teacher's logits; or (B, classes), the labels alone: then
            their cross-entropy is all there is, whatever `weight` says, as in
            validation.
        y_pred: tensor (B, classes), the student's logits. Both may have any
            dtype; what follows runs in float32.

    Returns:
        Float32, a scalar, or (B,) without reduction.

    Raises:
        ValueError: an argument out of its range; `y_true` of another width.

    References: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural
    network", 2015, section 2.
    """

    def __init__(
        self,
        weight=0.5,
        temperature=2.0,
        label_smoothing=0.0,
        name="distillation_crossentropy",
        reduction="sum_over_batch_size",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        shares = {"weight": weight, "label_smoothing": label_smoothing}
        for argument, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f"`{argument}` must be in 0..1. "
                    f"Received: {argument}={value!r}"
                )
        if not 0 < temperature < math.inf:
            raise ValueError(
                "`temperature` must be a positive number. "
                f"Received: temperature={temperature!r}"
            )
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        if y_true.shape[-1] not in (classes, 2 * classes):
            raise ValueError(
                "`y_true` must be labels (batch, classes), or these and a "
                "teacher's logits (batch, 2 classes). Received: y_true of "
                f"shape {y_true.shape}, y_pred of {y_pred.shape}"
            )
        of_labels = keras.losses.categorical_crossentropy(
            y_true[:, :classes],
            y_pred,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )
        if y_true.shape[-1] == classes:
            return of_labels
        teacher = ops.log_softmax(y_true[:, classes:] / self.temperature)
        student = ops.log_softmax(y_pred / self.temperature)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), -1)
        return (
            1 - self.weight
        ) * of_labels + self.weight * self.temperature**2 * divergence

    def get_config(self):
        return {
            **super().get_config(),
            "weight": self.weight,
            "temperature": self.temperature,
            "label_smoothing": self.label_smoothing,
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
