"""The model that a recipe starts from, with its own head or a new one."""

import keras
import numpy as np

from kanets import zoo
from kanets.data.framing import fit_whole_pictures
from kanets.layers.batch_normalization import set_norm_momentum
from kanets.progress import progress
from kanets.zoo.loading import head_name
from kanets.zoo.saving import class_order

# Of the regression that a head may start from.
HEAD_PICTURES, HEAD_STEPS, HEAD_DECAY = 5_000, 300, 0.01


def pretrained(recipe, name, class_names, input_shape, say, **options):
    """A model to start from, as the recipe's section `finetune` says.

    Args:
        recipe: the recipe; a `precision` other than "float32" takes the place
            of the one the model was saved with.
        name, **options: of `kanets.create_model`.
        class_names: of the data, in the order of the labels.
        input_shape: (H, W, 3), sizes may be None.
        say: function that prints which head it is, and why.

    Returns:
        A `keras.Model` of as many outputs as there are class names. Where its
        head is kept it has `class_names`, those of the data.

    Raises:
        ValueError: what `create_model` raises; a head to keep that has not as
            many outputs as there are class names.
    """
    classes = len(class_names)
    loaded = options.get("pretrained", True)
    source = options.get("weights", name)
    known = zoo.saved_class_names(source) if loaded else None
    new_head, why = _choose(recipe.finetune.new_head, known, class_names)
    model = zoo.create_model(
        name,
        num_classes=classes if new_head else None,
        input_shape=input_shape,
        dtype=None if recipe.precision == "float32" else recipe.precision,
        **options,
    )
    if new_head:
        say(f"A new head for {classes} classes{why}.")
    else:
        _keep_head(model, known, class_names)
        say(f"The head is kept{why}.")
    set_norm_momentum(model, recipe.finetune.norm_momentum)
    fit_whole_pictures(model)  # as the pictures of the recipe are
    return model


def fit_head(model, train_set):
    """Lets a new head start as a softmax regression on what the body says.

    The body looks once at the augmented pictures of the first batches, as in
    inference; the head is then where the loss on all of these features is
    least, with a weight decay of `HEAD_DECAY` in it (Adam, `HEAD_STEPS` steps
    at a rate that falls to zero).

    Args:
        model: a classifier whose last layer, one of
            `kanets.zoo.loading.HEADS`, is a `Dense` with softmax or logits.
        train_set: batches of pictures and labels (B, classes).

    Cost: a forward pass over at most `HEAD_PICTURES` pictures, and twice
    classes times features multiply-adds a picture and step.
    """
    head = model.get_layer(head_name([layer.name for layer in model.layers]))
    body = keras.Model(model.input, head.input)
    epoch, seen = train_set.epoch, 0
    features, labels = [], []
    with progress(min(HEAD_PICTURES, train_set.num_pictures)) as advance:
        for x, y in train_set:
            features.append(body.predict_on_batch(x))
            labels.append(keras.ops.convert_to_numpy(y))
            seen += len(labels[-1])
            advance(len(labels[-1]))
            if seen >= HEAD_PICTURES:
                break
    train_set.epoch = epoch  # a `tf.data.Dataset` counts this look
    features = np.concatenate(features).astype("float32")
    labels = np.concatenate(labels)
    regression = keras.Sequential(
        [
            keras.layers.Dense(
                labels.shape[-1],
                activation="softmax",
                kernel_initializer="zeros",
                kernel_regularizer=keras.regularizers.L2(HEAD_DECAY / 2),
                dtype="float32",
            )
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.1, HEAD_STEPS)
    regression.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
    regression.fit(
        features,
        labels,
        batch_size=len(features),
        epochs=HEAD_STEPS,
        shuffle=False,
        verbose=0,
    )
    head.set_weights(regression.get_weights())


def _choose(new_head, known, class_names):
    """Whether the head is to be new, and why."""
    if new_head != "auto":
        return new_head, f", as new_head = {str(new_head).lower()} says"
    if known is None:
        return True, ": the model has no class names"
    if sorted(known) == sorted(class_names):
        why = f": the model has the same {len(known)} classes"
        if list(known) != list(class_names):
            why += " in another order; its outputs are put in that of the data"
        return False, why
    if _folded(known) == _folded(class_names):
        return True, (
            ": the model's differ in capitals or spaces; with "
            "new_head = false its head is kept"
        )
    return True, ": the model has others"


def _folded(names):
    return sorted("".join(name.split()).casefold() for name in names)


def _keep_head(model, known, class_names):
    """Puts the outputs, if they have names, in the order of the data."""
    head = model.get_layer(head_name([layer.name for layer in model.layers]))
    outputs = model.outputs[0].shape[-1]
    if outputs != len(class_names):
        raise ValueError(
            "finetune.new_head may be false where the model has as many "
            f"classes as the data. Received: new_head=False, {model.name!r} "
            f"of {outputs} classes, data of {len(class_names)}"
        )
    if known is not None and sorted(known) == sorted(class_names):
        order = class_order(known, class_names)
        for weight in head.weights:
            weight.assign(keras.ops.take(weight, order, axis=-1))
    model.class_names = tuple(class_names)
