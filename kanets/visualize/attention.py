"""Where a position of a feature map looks, as weights and over the photo.

What counts how much, a layer says itself: `attention_maps` of
`kanets.attention`. Any layer with such a method can be drawn.
"""

from functools import partial

import keras
import numpy as np
from PIL import ImageDraw

from kanets.attention.checks import check_position
from kanets.visualize.heat import heated
from kanets.visualize.sheets import resized, save_sheet
from kanets.visualize.tokens import (
    cell_of,
    check_picture,
    inputs_of,
    said_of,
)

_MARK = (0, 255, 255)


def attention_weights(layer, inputs, position):
    """How much each cell of a map counts for the output at one cell.

    For dense attention, and Kronecker attention with mode "kv", the output
    there is `o(sum_ij weights[i, j] v(X_ij))`, head by head. With mode "qkv"
    it is the sum of what its row and its column found; the weights are the
    mean of theirs, and the output is twice that.

    Args:
        layer: one of `kanets.attention` or another with `attention_maps`.
        inputs: float tensor (B, H, W, C).
        position: (row, column) of a cell of the H x W grid.

    Returns:
        float array (B, N, H, W), of sum 1 over each grid.

    Raises:
        ValueError: another layer, an input that is no picture, a position
            outside of the grid.

    Cost: one call of the layer.
    """
    if not hasattr(layer, "attention_maps"):
        raise ValueError(
            "layer must be Kronecker, dense or other attention that has "
            f"attention_maps. Received: layer={layer!r}"
        )
    return keras.ops.convert_to_numpy(layer.attention_maps(inputs, position))


def attention_layers(model):
    """The layers of a model whose attention can be mapped.

    Args:
        model: functional Keras model, such as a KANet.

    Returns:
        A dict from the name of a layer, in the order of the model, to its
        attention, or itself if it is one.
    """
    found = {}
    for layer in model.layers:
        attention = getattr(layer, "attention", layer)
        if hasattr(attention, "attention_maps"):
            found[layer.name] = attention
    return found


def attention_map(model, picture, layer=None, position=None):
    """Where a position of a picture looks, in one attention layer.

    Args:
        model: functional Keras model, from pixels (B, H, W, 3).
        picture: array (H, W, 3), of a size the model takes: pixels 0..255.
        layer: name, one of `attention_layers`; default the last.
        position: (row, column) of a pixel of the picture, which stands for
            the cell of the map it lies in; default the centre.

    Returns:
        float array (h, w) of the layer's grid, the mean of the heads; its
        sum is 1. Of a ViT with a class token, the grid is that of the patches.

    Raises:
        ValueError: a model without such layers, a layer that is none of
            them, a picture of a size the model does not take, a position
            outside of it.
    """
    layers = list(attention_layers(model))[-1:] if layer is None else [layer]
    [weights] = _maps(model, picture, layers, position).values()
    return weights


def attention_sheet(model, pictures, path, positions=None, layers=None):
    """Draws where a position of each photo looks, as a PNG.

    A row for each photo: the photo, below the class that a classifier with
    `class_names` says and its score, with a ring around the position, and for
    each layer its map as heat, with a frame around the cell of the position.
    Each map has its own scale, from its lowest to its largest weight, unless
    they differ by less than 1 %; both are written above it, as multiples of
    an even weight, 1 / (h w).

    Args:
        model: as in `attention_map`.
        pictures: arrays (H, W, 3) of 0..255, of a size the model takes.
        path: the PNG to write. Panels shrink until it is below 400 kB.
        positions: a pixel (row, column) for each picture; default their
            centres.
        layers: names, some of `attention_layers`; default the last of each
            size of the map.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: no pictures, or not a position for each; otherwise as in
            `attention_map`.
    """
    positions = [None] * len(pictures) if positions is None else positions
    if not len(pictures) or len(pictures) != len(positions):
        raise ValueError(
            "There must be a position for each picture. Received: "
            f"{len(pictures)} pictures, {len(positions)} positions"
        )
    rows = [
        [
            (
                said_of(model, picture),
                partial(_photo_panel, picture, position),
            ),
            *attention_panels(model, picture, position, layers),
        ]
        for picture, position in zip(pictures, positions, strict=True)
    ]
    return save_sheet(rows, path)


def attention_panels(model, picture, position=None, layers=None):
    """The maps of a row of `attention_sheet`.

    Args:
        model, picture, position, layers: as there, of one picture.

    Returns:
        A list of (caption, function from a width to a PIL image).
    """
    maps = _maps(model, picture, layers, position)
    if layers is None:
        last = {weights.shape: name for name, weights in maps.items()}
        maps = {name: maps[name] for name in last.values()}
    panels = []
    for name, weights in maps.items():
        size = "x".join(map(str, weights.shape))
        low, high = weights.min(), weights.max()
        low, high = low * weights.size, high * weights.size
        caption = f"{name} {size}, {low:.2f} to {high:.2f} x even"
        panels.append(
            (caption, partial(_heat_panel, picture, weights, position))
        )
    return panels


def _maps(model, picture, names, position):
    """The map of each named layer (all, if None) at a pixel, by name."""
    found = attention_layers(model)
    names = list(found if names is None else names)
    if not names or set(names) - set(found):
        within = [x.name for x in model.layers if isinstance(x, keras.Model)]
        hint = f", and of a model within that alone: {within}" if within else ""
        raise ValueError(
            "layers must be attention of the model that can be mapped, or "
            f"modules with one: {list(found)}{hint}. Received: {names}"
        )
    size = check_picture(picture, model.input_shape)
    pixel = _or_centre(position, size)
    check_position(pixel, size)
    inputs, grid = inputs_of(model, picture, names)
    maps = {}
    for name in names:
        if len(inputs[name].shape) == 3 and grid is not None:
            cell = cell_of(pixel, size, grid)
            weights = _among_tokens(found[name], inputs[name], cell, grid)
        else:
            cell = cell_of(pixel, size, inputs[name].shape[1:3])
            weights = attention_weights(found[name], inputs[name], cell)
        maps[name] = weights[0].mean(axis=0)
    return maps


def _among_tokens(layer, tokens, cell, grid):
    """Of a cell behind a class token, without what it gives to that."""
    _, scores = layer(tokens, return_attention_scores=True)
    index = 1 + cell[0] * grid[1] + cell[1]
    row = keras.ops.convert_to_numpy(scores)[:, :, index, 1:]
    row = row / row.sum(-1, keepdims=True)
    return row.reshape(*row.shape[:2], *grid)


def _photo_panel(picture, position, width):
    size = picture.shape[:2]
    row, column = _or_centre(position, size)
    image = resized(picture, width)
    scale = width / size[1]
    draw = ImageDraw.Draw(image)
    x, y = (column + 0.5) * scale, (row + 0.5) * scale
    for radius, colour in ((9, "black"), (8, _MARK), (6, "black")):
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), None, colour
        )
    return image


def _heat_panel(picture, weights, position, width):
    """The map over the photo, which is grey and dark under it."""
    size, grid = picture.shape[:2], weights.shape
    rows, columns = (
        np.arange(side) * cells // side
        for side, cells in zip(size, grid, strict=True)
    )
    # What differs by less than 1 % of the mean is shown as even.
    spread = max(np.ptp(weights), 0.01 * weights.mean())
    share = (weights - weights.min()) / spread
    image = resized(heated(picture, share[rows[:, None], columns]), width)
    row, column = cell_of(_or_centre(position, size), size, grid)
    height, width = image.height / grid[0], image.width / grid[1]
    corners = (column * width, row * height)
    corners += ((column + 1) * width - 1, (row + 1) * height - 1)
    ImageDraw.Draw(image).rectangle(corners, outline=_MARK, width=2)
    return image


def _or_centre(position, size):
    return (size[0] // 2, size[1] // 2) if position is None else position
