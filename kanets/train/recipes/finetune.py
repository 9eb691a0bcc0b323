"""The recipe of a fine-tune, from a model and what differs from the usual."""

from kanets import tasks, zoo
from kanets.evaluation.files import check_takes_pictures
from kanets.train.recipes.files import from_dict


def finetune_recipe(
    model,
    data,
    *,
    epochs=10,
    frozen_epochs=2,
    new_head=None,
    layer_decay=None,
    learning_rate=1e-3,
    batch_size=None,
    seed=0,
    precision=None,
    jit_compile=None,
    image_size=None,
    ignore_label=None,
    on_error="stop",
):
    """How a pretrained model is trained further, on other pictures.

    AdamW, first on the head alone, then on all layers, the lower the slower.

    Args:
        model: zoo name, run or model folder of a classifier or segmenter.
        data: the pictures, `Data.source` of the recipe.
        epochs: in all.
        frozen_epochs: first epochs, that train the head alone; at most all.
        new_head: whether the last layer starts anew; default: unless the
            classes are, by name, the model's.
        layer_decay: learning-rate factor per layer below the head; default
            0.9, of a segmenter 1, as its branches lie side by side.
        learning_rate: the peak.
        batch_size: default 32, of a segmenter 8.
        seed: of all that is random.
        precision: a Keras dtype policy; default: the model's.
        jit_compile: whether XLA compiles the training step; default: as Keras
            does.
        image_size: (height, width); default: the model's.
        ignore_label: of a segmenter: the label of pixels that do not count.
        on_error: "stop" at pictures that cannot be read, or "skip" them.

    Returns:
        A `Recipe`, or for a segmenter a `SegmentationRecipe`.

    Raises:
        ValueError: no such model, or a generator; no `image_size` for a
            classifier of open size; an `ignore_label` for a classifier; what
            no recipe may hold.
    """
    net = zoo.load_model(model)
    check_takes_pictures(net, model)
    segments = tasks.of_model(net) is tasks.TASKS["segmentation"]
    if ignore_label is not None and not segments:
        raise ValueError(
            "`ignore_label` is for a segmenter. Received: "
            f"ignore_label={ignore_label} for {str(model)!r}, a classifier"
        )
    if image_size is None and not segments:
        image_size = _size_of(net, model)
    fields = {
        "epochs": epochs,
        "batch_size": 8 if segments else 32,
        "seed": seed,
        "data": {
            "source": str(data),
            "on_error": on_error,
            "image_size": image_size,
        },
        "optimize": {
            "name": "adamw",
            "learning_rate": learning_rate,
            "weight_decay": 0.05,
        },
        "finetune": {
            "frozen_epochs": min(frozen_epochs, epochs),
            "layer_decay": 1.0 if segments else 0.9,
        },
    }
    if segments:
        fields["segmenter"] = {"name": str(model)}
        fields["data"]["ignore_label"] = ignore_label
    else:
        fields["model"] = {"name": str(model)}
        fields["augment"] = {"crop": min(image_size) // 10}
        fields["optimize"]["label_smoothing"] = 0.1
    fields |= _not_none(
        batch_size=batch_size, precision=precision, jit_compile=jit_compile
    )
    fields["finetune"] |= _not_none(layer_decay=layer_decay, new_head=new_head)
    return from_dict(fields)


def _not_none(**values):
    return {name: x for name, x in values.items() if x is not None}


def _size_of(net, model):
    size = net.input_shape[1:3]
    if None in size:
        raise ValueError(
            "A model of open size needs `image_size`, HEIGHT and WIDTH. "
            f"Received: {str(model)!r} with input size {size}"
        )
    return size
