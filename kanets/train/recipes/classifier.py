"""A classifier's recipe, run with `compile()` and `fit()`."""

import dataclasses

import keras

from kanets import data
from kanets.train.augment import Augmentation
from kanets.train.distillation import Distillation
from kanets.train.losses import DistillationCrossentropy
from kanets.train.recipes import supervised
from kanets.train.recipes.files import arguments
from kanets.train.recipes.folder import load
from kanets.train.recipes.pretrained import fit_head, pretrained
from kanets.train.recipes.rules import NETS


def train_classifier(recipe, directory, verbose=1, report=False):
    """Runs a `Recipe`; see `kanets.recipes.supervised.train`."""
    return supervised.train(PARTS, recipe, directory, verbose, report)


def _load(recipe):
    train_set, validation_set = load(recipe)
    classes = len(train_set.class_names)
    backend = keras.backend.backend()
    if backend != "tensorflow" and not isinstance(train_set, data.Batches):
        raise ValueError(
            "On another backend than TensorFlow, a data set must fit in memory "
            f"or be a folder of pictures. Received: backend={backend!r}, "
            f"data.source={recipe.data.source!r}, "
            f"{train_set.num_pictures:,} pictures of {train_set.image_size}"
        )
    augmentation = Augmentation(
        classes, train_set.image_size, **dataclasses.asdict(recipe.augment)
    )
    train_set = data.augmented(train_set, augmentation)
    if validation_set is not None:
        plain = Augmentation(classes, train_set.image_size, flip=False)
        validation_set = data.augmented(validation_set, plain)
    return train_set, validation_set


def _build(recipe, train_set, say=print):
    options = arguments(recipe.model)
    name = options.pop("name")
    shape = (*train_set.image_size, 3)
    names = train_set.class_names
    if name in NETS:
        return NETS[name](input_shape=shape, classes=len(names), **options)
    return pretrained(recipe, name, names, shape, say, **options)


def _start(recipe, model, train_set, say):
    if getattr(model, "class_names", None) is not None:
        return True  # the head is kept
    if recipe.finetune.fit_head:
        say("Fitting the head to what the body says of the pictures.")
        fit_head(model, train_set)
    return recipe.finetune.fit_head


def _loss(recipe, train_set, from_logits=False):
    smoothing, distill = recipe.optimize.label_smoothing, recipe.distill
    if distill.teacher:
        return DistillationCrossentropy(
            distill.weight, distill.temperature, smoothing
        )
    return keras.losses.CategoricalCrossentropy(
        from_logits=from_logits, label_smoothing=smoothing
    )


def _taught(recipe, train_set, logits, say):
    teacher = recipe.distill.teacher
    if not teacher:
        return logits
    if logits is None:
        raise ValueError(
            "A net that learns from a teacher must end in a softmax or in "
            f"logits. Received: model={recipe.model}, teacher={teacher!r}"
        )
    say(f"The teacher is {teacher}.")
    return Distillation(logits, teacher, train_set.class_names)


PARTS = supervised.Parts(
    load=_load,
    build=_build,
    start=_start,
    loss=_loss,
    metrics=lambda train_set: [keras.metrics.CategoricalAccuracy("accuracy")],
    taught=_taught,
)
