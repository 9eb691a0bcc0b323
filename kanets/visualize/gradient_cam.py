"""Grad-CAM: which cells of a map speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017, section 3.
"""

from functools import partial

import keras
import numpy as np
from keras import ops

from kanets import compat
from kanets.checks import as_integer, nearest
from kanets.nets.logits import logits_model
from kanets.visualize.attention import attention_layers
from kanets.visualize.gradients import gradient
from kanets.visualize.heat import smooth_panel
from kanets.visualize.sheets import resized, save_sheet
from kanets.visualize.tokens import check_picture, class_token_layer, said_of


def grad_cam(model, picture, class_index=None, layer=None):
    """How much each cell of a layer's maps speaks for a class.

        alpha_c = mean over cells of d score / d A[i, j, c]
        cam[i, j] = relu(sum_c alpha_c A[i, j, c]),  divided by its largest

    The score is the logit of the class, before a softmax.

    Args:
        model: functional Keras model, from pixels (B, H, W, 3) to scores
            (B, classes).
        picture: array (H, W, 3), of a size the model takes: pixels 0..255.
        class_index: int; default the class of the highest score.
        layer: name of a layer with maps (B, h, w, C), or with the tokens of a
            ViT; default the last such, before its means are taken. Of a ViT
            with a class token it is the norm before the last attention, as
            what the patches are after that is not seen by the head.

    Returns:
        float32 array (h, w) of 0..1; all zero where nothing speaks for it.

    Raises:
        ValueError: a model that does not return scores, a picture of a size
            it does not take, a layer without maps, an unknown class, another
            backend than TensorFlow, JAX and PyTorch.

    Cost: a call of the model, and forward and backward from the layer on.
    """
    check_picture(picture, model.input_shape)
    if isinstance(model.output, dict | list) or len(model.output.shape) != 2:
        raise ValueError(
            "Grad-CAM needs a model that returns scores (batch, classes). "
            f"Received: model={model.name!r} of {model.output_shape}"
        )
    class_index = _checked_class(class_index, model.output.shape[-1])
    with_logits = logits_model(model)
    model = model if with_logits is None else with_logits
    cells, tokens = _maps_of(model, layer), class_token_layer(model)
    ends = [cells, model.output, *([] if tokens is None else [tokens.input])]
    x = np.asarray(picture, "float32")[None]
    found = keras.Model(model.input, ends)(x, training=False)
    maps, scores, *patches = (_float32(tensor) for tensor in found)
    if class_index is None:
        class_index = int(scores[0].argmax())
    rest = keras.Model([model.input, cells], model.output)

    def score(maps):
        maps = ops.cast(maps, cells.dtype)
        scores = rest([ops.convert_to_tensor(x), maps], training=False)
        return ops.cast(ops.sum(scores[:, class_index]), "float32")

    gradients = gradient(score, maps)
    if len(maps.shape) == 3:  # without the class token
        shape = (1, *patches[0].shape[1:3], maps.shape[-1])
        maps, gradients = (t[:, 1:].reshape(shape) for t in (maps, gradients))
    cam = np.maximum((maps * gradients.mean((1, 2), keepdims=True)).sum(-1), 0)
    return cam[0] / cam.max() if cam.max() > 0 else cam[0]


def grad_cam_sheet(model, pictures, path, classes=None, layer=None):
    """Draws what speaks for a class in each photo, as a PNG.

    A row for each photo: the photo, below the class that a classifier with
    `class_names` says and its score, and its `grad_cam` as heat.

    Args:
        model: as in `grad_cam`.
        pictures: arrays (H, W, 3) of 0..255, of a size the model takes.
        path: the PNG to write. Panels shrink until it is below 400 kB.
        classes: int for each picture; default the class of its highest score.
        layer: as in `grad_cam`.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: no pictures, or not a class for each; otherwise as
            `grad_cam`.
    """
    classes = [None] * len(pictures) if classes is None else list(classes)
    if not len(pictures) or len(pictures) != len(classes):
        raise ValueError(
            "There must be a class for each picture. Received: "
            f"{len(pictures)} pictures, {len(classes)} classes"
        )
    rows = []
    for picture, class_index in zip(pictures, classes, strict=True):
        if class_index is None:
            x = np.asarray(picture, "float32")[None]
            class_index = int(_float32(model(x, training=False))[0].argmax())
        names = getattr(model, "class_names", None)
        name = names[class_index] if names else f"class {class_index}"
        cam = grad_cam(model, picture, class_index, layer)
        size = "x".join(map(str, cam.shape))
        rows.append(
            [
                (said_of(model, picture), partial(resized, picture)),
                (f"{name}, {size}", partial(smooth_panel, picture, cam)),
            ]
        )
    return save_sheet(rows, path)


def _maps_of(model, name):
    """The symbolic maps of a layer of a model, by name or the last."""
    tokens = class_token_layer(model)
    ranks = (4,) if tokens is None else (3, 4)
    maps = {
        operation.name: outputs[0]
        for operation, _, outputs, _ in compat.calls(model)
        if len(outputs) == 1
        and len(outputs[0].shape) in ranks
        and outputs[0].shape[1:-1] not in ((1,), (1, 1))
        and not isinstance(operation, keras.layers.InputLayer)
    }
    if name is None and tokens is not None:
        last = list(attention_layers(model))[-1]
        return model.get_layer(last).input
    if name is None and maps:
        return list(maps.values())[-1]
    if name not in maps:
        raise ValueError(
            "layer must be one with maps (batch, height, width, channels)"
            f"{nearest(str(name), maps)}. Received: layer={name!r} of "
            f"{model.name!r}"
        )
    return maps[name]


def _checked_class(class_index, classes):
    if class_index is None:
        return None
    number = as_integer(class_index)
    if number is None or not 0 <= number < classes:
        raise ValueError(
            f"class_index must be an integer from 0 to {classes - 1}. "
            f"Received: class_index={class_index!r}"
        )
    return number


def _float32(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
