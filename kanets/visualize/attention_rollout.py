"""Attention rollout: what reaches a token through all layers of attention.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020,
section 3. Each layer passes on half of what it has beside, and half through its
attention; the product over the layers says what of the input arrives where.
"""

from functools import partial

import keras
import numpy as np

from kanets.attention.checks import check_choice, check_position
from kanets.visualize.attention import attention_layers, attention_weights
from kanets.visualize.heat import smooth_panel
from kanets.visualize.sheets import resized, save_sheet
from kanets.visualize.tokens import (
    cell_of,
    check_picture,
    inputs_of,
    said_of,
)

FUSIONS = {"mean": np.mean, "max": np.max, "min": np.min}


def rollout(weights, fuse="mean"):
    """Attention from the last of some layers to what the first receives.

        M = A / 2 + I / 2, each row divided by its sum;  R = M_L ... M_1

    Args:
        weights: for each layer, from the first on, an array (B, N, T, T) of
            its attention.
        fuse: how heads become one: "mean", as in the paper, "max" or "min".

    Returns:
        float64 array (B, T, T); the sum of a row is 1.

    Raises:
        ValueError: no layers, arrays that are not all of one such shape, or
            an unknown `fuse`.

    Cost: O(L·T³) time.
    """
    check_choice(FUSIONS, fuse=fuse)
    weights = [np.asarray(array, "float64") for array in weights]
    shapes = [array.shape for array in weights]
    tokens = {shape[2:] for shape in shapes}
    if (
        {len(shape) for shape in shapes} != {4}
        or len(tokens) != 1
        or len(set(*tokens)) != 1
    ):
        raise ValueError(
            "Rollout needs the weights of one layer or more, all (batch, "
            "heads, tokens, tokens) with the same tokens. "
            f"Received: shapes {shapes}"
        )
    total = np.eye(weights[0].shape[-1])
    for array in weights:
        mixed = (FUSIONS[fuse](array, axis=1) + np.eye(array.shape[-1])) / 2
        total = mixed / mixed.sum(-1, keepdims=True) @ total
    return total


def rollout_map(model, picture, position=None, fuse="mean"):
    """What of a picture reaches the head of a model, or one cell.

    For models whose attention has one grid, such as a `ViT` of any mechanism:
    without a class token, what a layer looks at is told by its
    `attention_maps`.

    Args:
        model: functional Keras model, from pixels (B, H, W, 3).
        picture: array (H, W, 3), of a size the model takes: pixels 0..255.
        position: (row, column) of a pixel of the picture, which stands for
            the cell it lies in; default what the head sees: the class token,
            or the mean of all cells where there is none.
        fuse: as in `rollout`.

    Returns:
        float array (h, w); its sum is 1, less what the class token holds.

    Raises:
        ValueError: a model without attention that can be mapped, or with
            several grids; a picture of a size the model does not take; a
            position outside of it; an unknown `fuse`.

    Cost: a call of each layer, without a class token one for each cell.
    """
    check_choice(FUSIONS, fuse=fuse)
    size = check_picture(picture, model.input_shape)
    if position is not None:
        check_position(position, size)
    layers = attention_layers(model)
    if not layers:
        raise ValueError(
            "Rollout needs a model with attention that can be mapped. "
            f"Received: model={model.name!r}"
        )
    inputs, grid = inputs_of(model, picture, list(layers))
    shapes = {tuple(tensor.shape[1:-1]) for tensor in inputs.values()}
    if len(shapes) != 1:
        raise ValueError(
            "Rollout needs a model whose attention has one grid. Received: "
            f"model={model.name!r} with {sorted(shapes)}"
        )
    [shape] = shapes
    has_token = len(shape) == 1 and grid is not None
    grid = grid if has_token else shape
    matrix = _tokens if has_token else _cells
    reached = rollout(
        (matrix(layer, inputs[name]) for name, layer in layers.items()), fuse
    )[0]
    first = int(has_token)
    if position is not None:
        row, column = cell_of(position, size, grid)
        found = reached[first + row * grid[1] + column]
    else:
        found = reached[0] if has_token else reached.mean(0)
    return found[first:].reshape(grid)


def rollout_sheet(model, pictures, path, fuse="mean"):
    """Draws what of each photo reaches the head of a model, as a PNG.

    A row for each photo: the photo, below the class that a classifier with
    `class_names` says and its score, and its `rollout_map` as heat, from zero
    to its largest.

    Args:
        model, fuse: as in `rollout_map`.
        pictures: arrays (H, W, 3) of 0..255, of a size the model takes.
        path: the PNG to write. Panels shrink until it is below 400 kB.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: no pictures; otherwise as `rollout_map`.
    """
    if not len(pictures):
        raise ValueError("A sheet needs pictures. Received: 0 pictures")
    rows = []
    for picture in pictures:
        found = rollout_map(model, picture, fuse=fuse)
        size = "x".join(map(str, found.shape))
        panel = partial(smooth_panel, picture, found)
        photo = partial(resized, picture)
        said = said_of(model, picture)
        rows.append([(said, photo), (f"rollout {size}", panel)])
    return save_sheet(rows, path)


def _tokens(layer, inputs):
    _, scores = layer(inputs, return_attention_scores=True)
    return keras.ops.convert_to_numpy(scores)


def _cells(layer, inputs):
    rows = [
        attention_weights(layer, inputs, cell)
        for cell in np.ndindex(*inputs.shape[1:3])
    ]
    rows = np.stack(rows, axis=2)
    return rows.reshape(*rows.shape[:3], -1)
