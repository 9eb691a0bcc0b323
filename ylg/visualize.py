"""Pictures of what attention may see, looks at, and finds in a photo.

Needs matplotlib (`pip install kanets[viz]`), which is imported when a
picture is drawn.

Letters: N heads, H W picture, h w grid of queries, hk wk grid of keys.
"""

from pathlib import Path

import numpy as np
from keras import ops

SEEN = "tab:cyan"
QUERY = "red"
DPI = 100


def require_matplotlib():
    """Raises ImportError, with what to do, if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install kanets[viz]. "
            f"Received: {error}"
        ) from error


def plot_attention(image, weights, patterns, query, path):
    """Draws what each head may see from one pixel, and what it looks at.

    A column for each head. Above, the keys that its pattern shows to the
    query, tinted; below, their weights as heat, each head by its own scale,
    and the largest weight as a number. The query's cell has a red frame.

    Args:
        image: (H, W, 3), uint8, or float in [-1, 1].
        weights: N tensors (1, h w, degree), as a layer's
            `attention_weights` returns them for this picture.
        patterns: their N patterns, as the layer's `patterns` returns them,
            from one grid of queries (h, w) to grids of keys.
        query: (row, column) of a pixel of the picture.
        path: the PNG to write.

    Returns:
        `Path` of the picture.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a pixel outside of the picture, weights that are not in
            the layout of their patterns, patterns without a grid, a picture
            of another shape.
    """
    require_matplotlib()
    pixels = _pixels(image)
    weights = [np.asarray(ops.convert_to_numpy(w)) for w in weights]
    patterns = list(patterns)
    _check_layout(weights, patterns)
    size, grid = pixels.shape[:2], patterns[0].query_shape
    row, column = _check_query(query, size)
    cell = (row * grid[0] // size[0], column * grid[1] // size[1])
    index = np.ravel_multi_index(cell, grid)

    figure, axes = _panels(2, len(patterns), size)
    for head, pattern in enumerate(patterns):
        keys = pattern.neighbours[index]
        heat = np.zeros(pattern.num_keys, "float32")
        heat[keys[keys >= 0]] = weights[head][0, index][keys >= 0]
        may_see = np.zeros(pattern.num_keys, "float32")
        may_see[keys[keys >= 0]] = 1.0
        upper, lower = axes[:, head]
        title = f"head {head}\n{pattern.name.replace('_', ' ')}"
        upper.set_title(title, fontsize=9)
        _photo(upper, pixels)
        _tint(upper, may_see.reshape(pattern.key_shape), size)
        lower.set_title(f"largest weight {heat.max():.2f}", fontsize=9)
        _photo(lower, pixels, faded=True)
        _heat(lower, heat.reshape(pattern.key_shape), size)
        for panel in (upper, lower):
            _frame(panel, cell, grid, size)
    axes[0, 0].set_ylabel("may see", fontsize=11)
    axes[1, 0].set_ylabel("looks at", fontsize=11)
    return _save(figure, path)


def plot_saliency(image, saliency, path):
    """Draws the photo, the mean of the heads' saliency, and each head's.

    Each map has its own scale, from its lowest to its largest value; both
    are written above the map of a head.

    Args:
        image: (H, W, 3), uint8, or float in [-1, 1].
        saliency: float (N, hk, wk) of any grid, such as
            `Inversion.saliency` or one picture of `ylg.inversion.saliency`.
        path: the PNG to write.

    Returns:
        `Path` of the picture.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: arrays of another shape.
    """
    require_matplotlib()
    pixels = _pixels(image)
    saliency = np.asarray(ops.convert_to_numpy(saliency), "float32")
    if saliency.ndim != 3 or not saliency.size:
        raise ValueError(
            "saliency must be (heads, height, width). "
            f"Received: shape={saliency.shape}"
        )
    # The mean of heads on one scale, or one head would hide the others.
    largest = saliency.max(axis=(1, 2), keepdims=True)
    mean = np.mean(saliency / np.where(largest > 0, largest, 1), axis=0)
    maps = [("photo", None), ("mean of heads", mean)]
    maps += [
        (f"head {head}: {heat.min():.3g} to {heat.max():.3g}", heat)
        for head, heat in enumerate(saliency)
    ]
    columns = min(len(maps), 5)
    rows = -(-len(maps) // columns)
    figure, axes = _panels(rows, columns, pixels.shape)
    for panel in axes.flat[len(maps) :]:
        panel.set_axis_off()
    for panel, (title, heat) in zip(axes.flat, maps, strict=False):
        panel.set_title(title, fontsize=9)
        _photo(panel, pixels, faded=heat is not None)
        if heat is not None:
            heat = _resized(heat - heat.min(), pixels.shape[:2])
            _heat(panel, heat, pixels.shape[:2])
    return _save(figure, path)


def plot_inversion(image, inversion, path, count=4):
    """Draws the target, the best reconstructions, and the losses of all.

    Args:
        image: (H, W, 3), uint8, or float in [-1, 1], the target.
        inversion: `ylg.inversion.Inversion`.
        path: the PNG to write.
        count: how many reconstructions, at most.

    Returns:
        `Path` of the picture.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a picture of another shape.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    pixels = _pixels(image)
    shown = inversion.images[:count]
    columns = 1 + len(shown)
    figure = Figure(figsize=(max(2.0 * columns, 6), 5.4), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(2, 3))
    pictures = [("target", pixels)]
    for loss, picture in zip(inversion.losses, shown, strict=False):
        pictures.append((f"loss {loss:.3g}", _pixels(picture)))
    for column, (title, picture) in enumerate(pictures):
        panel = figure.add_subplot(grid[0, column])
        panel.set_title(title, fontsize=10)
        _photo(panel, picture)
        panel.set(xticks=[], yticks=[])
    curves = figure.add_subplot(grid[1, :])
    history = np.where(np.isfinite(inversion.history), inversion.history, None)
    for start in reversed(range(history.shape[1])):
        best = start == 0
        curves.plot(
            np.arange(1, len(history) + 1),
            history[:, start].astype("float32"),
            color="tab:blue" if best else "0.7",
            linewidth=1.8 if best else 1.0,
            label="best start" if best else None,
        )
    curves.set(xlabel="step", ylabel="loss", ylim=(0, None))
    curves.grid(alpha=0.3)
    curves.legend(frameon=False)
    return _save(figure, path)


def _panels(rows, columns, size):
    """Axes [rows, columns] for pictures of one size."""
    from matplotlib.figure import Figure

    side = 1.9
    height = side * np.clip(size[0] / size[1], 0.3, 3)
    figure = Figure(
        figsize=(side * columns + 0.3, (height + 0.45) * rows),
        layout="constrained",
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    return figure, axes


def _photo(panel, pixels, faded=False):
    """The photo; grey and dark under heat, whose colours then speak."""
    if faded:
        grey = pixels @ np.array([0.299, 0.587, 0.114])
        pixels = np.repeat(grey[..., None] * 0.55, 3, axis=-1).astype("uint8")
    panel.imshow(pixels, extent=_extent(pixels.shape), interpolation="nearest")


def _tint(panel, mask, size):
    """Colours the cells of `mask`, and darkens the others."""
    from matplotlib.colors import to_rgba

    tint = np.where(
        mask[..., None] > 0, to_rgba(SEEN, 0.55), to_rgba("black", 0.35)
    )
    panel.imshow(tint, extent=_extent(size), interpolation="nearest")


def _heat(panel, heat, size):
    """Colour for large values, transparent for 0."""
    from matplotlib import colormaps

    largest = heat.max()
    share = heat / largest if largest > 0 else heat
    colours = colormaps["inferno"](0.25 + 0.75 * share)
    colours[..., 3] = 0.85 * np.sqrt(share)
    panel.imshow(colours, extent=_extent(size), interpolation="nearest")


def _frame(panel, cell, grid, size):
    """A red frame around the cell of the query."""
    from matplotlib.patches import Rectangle

    height, width = size[0] / grid[0], size[1] / grid[1]
    corner = (cell[1] * width, cell[0] * height)
    panel.add_patch(
        Rectangle(
            corner,
            width,
            height,
            fill=False,
            edgecolor=QUERY,
            linewidth=1.5,
            clip_on=False,
        )
    )


def _resized(heat, size):
    from ylg.inversion import resize_saliency

    heat = ops.convert_to_tensor(np.asarray(heat, "float32")[None, None])
    return ops.convert_to_numpy(resize_saliency(heat, size, "bilinear"))[0, 0]


def _extent(size):
    """Pixels as coordinates, the first row on top."""
    return (0, size[1], size[0], 0)


def _save(figure, path):
    figure.savefig(path, dpi=DPI)
    return Path(path)


def _pixels(image):
    """The picture as uint8 (H, W, 3)."""
    from ylg.gan import to_pixels

    image = np.asarray(ops.convert_to_numpy(image))
    is_picture = image.ndim == 3 and image.shape[-1] == 3
    if not is_picture or image.dtype.kind not in "fu":
        raise ValueError(
            "A picture must be (height, width, 3), uint8 or float in "
            f"[-1, 1]. Received: shape={image.shape}, dtype={image.dtype}"
        )
    return image if image.dtype == np.uint8 else to_pixels(image)


def _check_layout(weights, patterns):
    layouts = [(1, *pattern.neighbours.shape) for pattern in patterns]
    shapes = [weight.shape for weight in weights]
    if shapes != layouts or not layouts:
        raise ValueError(
            "Each head needs weights (1, *pattern.neighbours.shape) of one "
            f"picture. Received: shapes {shapes}, patterns' layouts {layouts}"
        )
    grids = {pattern.query_shape for pattern in patterns}
    ranks = [len(p.query_shape + p.key_shape) for p in patterns]
    if len(grids) != 1 or set(ranks) != {4}:
        raise ValueError(
            "The patterns must be from one grid (height, width) to grids. "
            f"Received: {patterns}"
        )


def _check_query(query, size):
    row, column = query
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        raise ValueError(
            "query must be a pixel (row, column) of the picture. "
            f"Received: query={tuple(query)}, picture {tuple(size)}"
        )
    return row, column
