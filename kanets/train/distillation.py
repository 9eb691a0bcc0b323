"""A net that learns from a larger one.

The teacher's logits are made in the training step, of the very pictures that
the student sees, and join the labels on their way to the loss. They are no
part of the model: its weights, state and metrics are the student's.
"""

import collections

import keras
from keras import ops

from kanets import tasks, zoo
from kanets.nets.logits import outputs_logits
from kanets.zoo.saving import class_order

# Of a teacher's softmax. Its logarithm stays finite.
_LEAST_PROBABILITY = 1e-30
_LISTED = 10


class Distillation(keras.Model):
    """A student that is trained with a frozen teacher.

    In `fit()`, the loss is given the labels and, after them, the teacher's
    logits, as `kanets.losses.DistillationCrossentropy` wants them. In
    `evaluate()` and validation it is given the labels alone, and metrics are
    at all times. The teacher is in inference mode, and none of this model's
    weights: they are those of the student, shared with it, in its order.

    It is for training, and cannot be saved; save the student.

    Args:
        student: a functional `keras.Model` from pictures to logits, as
            `kanets.nets.logits_model` makes it.
        teacher: a classifier that ends in a softmax or in logits, as a
            `keras.Model`, which is frozen and must share no layer with the
            student, or as what `kanets.load_model` reads. Pictures of another
            size than its own, where it has one, are resized (bilinear).
        class_names: of the student's outputs. If the teacher has names, too,
            its outputs are put in their order.

    Call arguments:
        inputs: as of the student: pixels (B, H, W, C) in 0..255 for the nets
            of `kanets`. Labels are (B, classes), one-hot or soft.

    Raises:
        ValueError: what `kanets.load_model` raises; a teacher that is no
            classifier, has other classes, or ends in neither a softmax nor
            logits.

    Cost: of a training step, besides the student's, a forward pass of the
    teacher.

    Example:

    >>> model = kanets.KANet((32, 32, 3), 0.25, classes=10)
    >>> student = kanets.nets.logits_model(model)
    >>> trained = Distillation(student, "kanet_qkv_cifar10")
    >>> loss = kanets.losses.DistillationCrossentropy(0.5, temperature=2.0)
    >>> trained.compile("adamw", loss, metrics=["accuracy"])
    >>> # trained.fit(...), then:
    >>> model.set_weights(trained.get_weights())
    """

    def __init__(self, student, teacher, class_names=None):
        super().__init__(student.input, student.output, name=student.name)
        # A function, as Keras would count a model as a part of this one.
        self._answers = _answers(teacher, student.output_shape[-1], class_names)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if training:
            y = ops.cast(y, "float32")
            y = ops.concatenate([y, self._answers(x)], axis=-1)
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def _answers(teacher, classes, class_names):
    """A function from pictures to a frozen teacher's logits, in float32."""
    is_model = isinstance(teacher, keras.Model)
    net = teacher if is_model else zoo.load_model(teacher)
    order = _order(net, teacher, classes, class_names)
    try:
        gives_logits = outputs_logits(net, ("softmax",))
    except ValueError as error:
        raise ValueError(
            "A teacher must end in a softmax or in logits. "
            f"Received: {net.name!r} of teacher={teacher!r}"
        ) from error
    net.trainable = False
    size = tuple(net.input_shape[1:3])

    def answers(pictures):
        if None not in size and size != tuple(pictures.shape[1:3]):
            pictures = ops.image.resize(
                pictures, size, data_format="channels_last"
            )
        outputs = ops.cast(net(pictures, training=False), "float32")
        if not gives_logits:
            outputs = ops.log(ops.maximum(outputs, _LEAST_PROBABILITY))
        return outputs if order is None else ops.take(outputs, order, axis=-1)

    return answers


def _order(net, teacher, classes, class_names):
    """Which output of a teacher stands for each class; None: as they are."""
    if tasks.of_model(net) is not tasks.TASKS["classification"]:
        raise ValueError(
            "A teacher must be a classifier. "
            f"Received: {net.name!r} of teacher={teacher!r}"
        )
    known = getattr(net, "class_names", None)
    if known is not None and class_names is not None:
        theirs, ours = (collections.Counter(x) for x in (known, class_names))
        if theirs != ours:
            raise ValueError(
                "A teacher must have the classes of the data, by name. "
                f"Received: teacher={teacher!r}, which alone has "
                f"{_some(theirs - ours)}, and lacks {_some(ours - theirs)}"
            )
        order = class_order(known, class_names)
        return None if order == sorted(order) else order
    outputs = net.output_shape[-1]
    if outputs != classes:
        raise ValueError(
            f"A teacher must have as many classes as its student, {classes}. "
            f"Received: teacher={teacher!r} of {outputs}"
        )
    return None


def _some(names):
    """The first of some names, and how many more there are."""
    names = sorted(names.elements())
    more = len(names) - _LISTED
    return f"{names[:_LISTED]}" + (f" and {more} more" if more > 0 else "")
