"""The recipe of a fine-tune, from a model and what differs from the usual."""

import math

from kanets import tasks, zoo
from kanets.data.survey import survey
from kanets.distribute.devices import accelerators
from kanets.evaluation.files import check_takes_pictures
from kanets.train.recipes.files import from_dict

# What a fine-tune of a classifier is by itself; chosen on pictures held out of
# the training sets of ants and bees and of flowers (benchmarks/NOTES.md).
PICTURES_SEEN = 20_000  # in all epochs together
EPOCHS = 3, 20  # the fewest and the most for it
LEARNING_RATE = 1e-3
FEW, FEW_RATE = 5_000, 3e-4  # pictures: batch norm stays as it is, and the rate
# Pictures seen, beyond which, without an accelerator, they have this side.
QUICK, SIDE = 6_000, 160
LEAST_SIDE = 96
LARGER = 2  # than themselves, pictures are made at most


def finetune_recipe(
    model,
    data,
    *,
    attention=None,
    epochs=None,
    frozen_epochs=None,
    new_head=None,
    layer_decay=None,
    learning_rate=None,
    batch_size=None,
    seed=0,
    precision=None,
    jit_compile=None,
    image_size=None,
    ignore_label=None,
    int8=False,
    on_error="stop",
    say=lambda text: None,
):
    """How a pretrained model is trained further, on other pictures.

    AdamW. The head of a classifier, where it is new, starts as a regression on
    what the body says; that of a segmenter is trained alone at first. Then all
    layers learn.

    Args:
        model: zoo name, run or model folder of a classifier or segmenter, or
            what else `kanets.load_model` reads, as "hf://timm/<name>" or
            "keras.applications.<Net>".
        data: the pictures, `Data.source` of the recipe.
        attention: of a classifier whose net is known: what it is to have, one
            of `kanets.attention.names()`, closed at the start; default what
            it has.
        epochs: in all; default of a classifier: so many that it sees
            `PICTURES_SEEN` pictures, within `EPOCHS`; of a segmenter 10.
        frozen_epochs: first epochs, that train the head alone; at most all;
            default 0, of a segmenter 2.
        new_head: whether the last layer starts anew; default: unless the
            classes are, by name, the model's.
        layer_decay: learning-rate factor per layer below the head; default 1.
        learning_rate: the peak; default `LEARNING_RATE`, of a classifier with
            less than `FEW` pictures `FEW_RATE`.
        batch_size: default 32, of a segmenter 8.
        seed: of all that is random.
        precision: a Keras dtype policy; default: the model's, on an
            accelerator "mixed_bfloat16".
        jit_compile: whether XLA compiles the training step; default: as Keras
            does.
        image_size: (height, width); default: the model's; of a classifier at
            most `LARGER` times the pictures' own and, where more than `QUICK`
            are seen in all and there is no accelerator, `SIDE`.
        ignore_label: of a segmenter: the label of pixels that do not count.
        int8: of a classifier: whether the last quarter of the epochs, one at
            least, trains for 8 bits.
        on_error: "stop" at pictures that cannot be read, or "skip" them.
        say: function of a str, called with each choice and its reason.

    Returns:
        A `Recipe`, or for a segmenter a `SegmentationRecipe`.

    Raises:
        ValueError: no such model, or a generator; no `image_size` for a
            classifier of open size; an `ignore_label` for a classifier, an
            `attention` or `int8` for a segmenter; what no recipe may hold; a
            source that holds no pictures.
    """
    if application := zoo.application_name(model):
        model = application
        net = zoo.create_model(model, pretrained=False)  # to be looked at
    else:
        net = zoo.load_model(model)
    check_takes_pictures(net, model)
    if precision is None and accelerators():
        precision = "mixed_bfloat16"
        say(f"{precision}, as there is an accelerator.")
    given = _not_none(
        batch_size=batch_size, precision=precision, jit_compile=jit_compile
    )
    settings = _not_none(
        layer_decay=layer_decay,
        new_head=new_head,
        frozen_epochs=frozen_epochs,
    )
    source = {"source": str(data), "on_error": on_error}
    if tasks.of_model(net) is tasks.TASKS["segmentation"]:
        for name, value in {"attention": attention, "int8": int8}.items():
            if value not in (None, False):
                raise ValueError(
                    f"`{name}` is for a classifier. Received: "
                    f"{name}={value!r} for {str(model)!r}, a segmenter"
                )
        source |= {"image_size": image_size, "ignore_label": ignore_label}
        fields = _of_segmenter(10 if epochs is None else epochs)
        fields["segmenter"] = {"name": str(model)}
    else:
        if ignore_label is not None:
            raise ValueError(
                "`ignore_label` is for a segmenter. Received: "
                f"ignore_label={ignore_label} for {str(model)!r}, a classifier"
            )
        fields = _of_classifier(net, model, data, epochs, image_size, say)
        source["image_size"] = fields.pop("image_size")
        named = {"name": str(model)}
        fields["model"] = named | _not_none(attention=attention)
        if int8:
            fields["quantize"] = _quantize(fields["epochs"], say)
    if learning_rate is not None:
        fields["optimize"]["learning_rate"] = learning_rate
    fields["finetune"] |= settings
    frozen = fields["finetune"]["frozen_epochs"]
    fields["finetune"]["frozen_epochs"] = min(frozen, fields["epochs"])
    return from_dict({**fields, **given, "seed": seed, "data": source})


def _of_segmenter(epochs):
    return {
        "epochs": epochs,
        "batch_size": 8,
        "optimize": _optimize(LEARNING_RATE),
        "finetune": {"frozen_epochs": 2},
    }


def _of_classifier(net, model, data, epochs, image_size, say):
    pictures, side = survey(data)
    if epochs is None:
        epochs = _epochs(pictures, say)
    if image_size is None:
        image_size = _size(net, model, side, epochs * pictures, say)
    few = pictures < FEW
    if few:
        say(
            f"Batch norm stays as it was trained, as {pictures:,} pictures "
            f"are less than {FEW:,}."
        )
    return {
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": 32,
        "patience": max(3, epochs // 3),
        "augment": {"crop": min(image_size) // 10},
        "optimize": {
            **_optimize(FEW_RATE if few else LEARNING_RATE),
            "label_smoothing": 0.1,
            # Epochs of few pictures have few steps.
            "warmup_epochs": epochs / 5 if few and epochs > 5 else 1.0,
        },
        "finetune": {
            "frozen_epochs": 0,
            "fit_head": True,
            "freeze_norm": few,
        },
    }


def _quantize(epochs, say):
    count = max(1, epochs // 4)
    say(f"The last {count} of {epochs} epochs train for 8 bits.")
    return {"from_epoch": epochs - count + 1}


def _optimize(rate):
    return {"name": "adamw", "learning_rate": rate, "weight_decay": 0.05}


def _epochs(pictures, say):
    fewest, most = EPOCHS
    epochs = min(max(round(PICTURES_SEEN / pictures), fewest), most)
    say(
        f"{epochs} epochs of {pictures:,} pictures: about {PICTURES_SEEN:,} "
        f"in all, but {fewest} to {most} epochs."
    )
    return epochs


def _size(net, model, side, seen, say):
    """The size of the pictures: the model's, or less where less will do."""
    size = net.input_shape[1:3]
    if None in size:
        raise ValueError(
            "A model of open size needs `image_size`, HEIGHT and WIDTH. "
            f"Received: {str(model)!r} with input size {size}"
        )
    found, why = max(size), "as the model was trained"
    if size[0] != size[1] or found <= LEAST_SIDE:
        return size
    if found > SIDE and seen > QUICK and not accelerators():
        found, why = SIDE, "as there is no accelerator"
    if side is not None:
        own = max(LEAST_SIDE, 32 * math.ceil(LARGER * side / 32))
        if own < found:
            found, why = own, f"as they have {side}"
    say(f"Pictures of {found} x {found}, {why}.")
    return found, found


def _not_none(**values):
    return {name: x for name, x in values.items() if x is not None}
