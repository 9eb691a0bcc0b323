"""A segmenter's recipe, run with `compile()` and `fit()`."""

import keras

from kanets import data
from kanets.layers.batch_normalization import set_norm_momentum
from kanets.nets.backbones import is_kanet
from kanets.train.augment import SegmentationAugmentation
from kanets.train.losses import (
    SegmentationCrossentropy,
    median_frequency_weights,
)
from kanets.train.recipes import supervised
from kanets.train.recipes.files import arguments
from kanets.train.recipes.pretrained import pretrained
from kanets.train.recipes.rules import SEGMENTERS


def train_segmenter(recipe, directory, verbose=1, report=False):
    """Runs a `SegmentationRecipe`; see `kanets.recipes.supervised.train`."""
    return supervised.train(PARTS, recipe, directory, verbose, report)


def _load(recipe):
    settings = recipe.data
    if not settings.source:
        raise ValueError(
            "data.source must be a folder with images/ and labels/. "
            "Received: source=''"
        )
    train_set, validation_set = data.load_segmentation(
        settings.source,
        class_names=settings.class_names,
        ignore_label=settings.ignore_label,
        image_size=settings.image_size,
        batch_size=recipe.batch_size,
        validation=settings.validation,
        seed=recipe.seed,
        on_error=settings.on_error,
    )
    augmentation = SegmentationAugmentation(
        recipe.augment.crop_size,
        recipe.augment.flip,
        recipe.augment.scale,
        settings.ignore_label,
        recipe.augment.color,
    )
    return data.augmented(train_set, augmentation), validation_set


def _build(recipe, train_set, say=print):
    options = arguments(recipe.segmenter)
    name = options.pop("name")
    # Crops to train on, whole pictures to validate on: the size stays open.
    # Otherwise the model keeps it, and is evaluated and served at it.
    size = (None, None)
    if recipe.augment.crop_size is None:
        size = recipe.data.image_size or size
    shape = (*size, 3)
    names = train_set.class_names
    if name not in SEGMENTERS:
        return pretrained(recipe, name, names, shape, say, **options)
    model = SEGMENTERS[name](input_shape=shape, classes=len(names), **options)
    if options.get("backbone") is not None and not is_kanet(model):
        set_norm_momentum(model, recipe.finetune.norm_momentum)
    return model


def _loss(recipe, train_set, from_logits=False):
    weights = median_frequency_weights(train_set) if recipe.balanced else None
    return SegmentationCrossentropy(
        train_set.ignore_label, weights, from_logits=from_logits
    )


def _metrics(train_set):
    return [
        keras.metrics.MeanIoU(
            len(train_set.class_names),
            name="mean_iou",
            ignore_class=train_set.ignore_label,
            sparse_y_pred=False,
        )
    ]


PARTS = supervised.Parts(
    load=_load,
    build=_build,
    loss=_loss,
    metrics=_metrics,
)
