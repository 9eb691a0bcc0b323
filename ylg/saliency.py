"""What attention finds important in a picture, and distances that heed it.

Daras et al., "Your Local GAN" (CVPR 2020), section 6.

Letters: B batch, N heads, H W grid, C channels, hk wk key grid.
"""

import numpy as np
from keras import ops

INTERPOLATIONS = ("nearest", "bilinear")


def saliency(weights, patterns):
    """How much attention each key gets from those that look at it.

        s(k) = sum over q of a(q, k) / number of q with a(q, k) != 0

    and 0 for a key at which nobody looks. The divisor makes up for patterns
    that show a key to few queries.

    Args:
        weights: N tensors (B, n_q, degree), as `pattern_attention` and the
            layers' `attention_weights` return them.
        patterns: their N patterns, all on the same (hk, wk) grid of keys.

    Returns:
        float32 tensor (B, N, hk, wk).

    Raises:
        ValueError: numbers of weights and patterns that differ, weights that
            are not in the layout of their pattern, keys without a grid or on
            different ones.

    Cost: O(edges) time and memory.

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
    """
    weights, patterns = list(weights), list(patterns)
    if not patterns or len(weights) != len(patterns):
        raise ValueError(
            "Each head needs weights and a pattern. "
            f"Received: {len(weights)} weights, {len(patterns)} patterns"
        )
    grids = {pattern.key_shape for pattern in patterns}
    if len(grids) != 1 or len(patterns[0].key_shape) != 2:
        raise ValueError(
            "The keys of all patterns must be one grid (height, width). "
            f"Received: key shapes {sorted(grids)}"
        )
    for weight, pattern in zip(weights, patterns, strict=True):
        shape = tuple(weight.shape)
        if len(shape) != 3 or shape[1:] != pattern.neighbours.shape:
            raise ValueError(
                "Weights must be (batch, *pattern.neighbours.shape). Received: "
                f"shape={shape}, neighbours {pattern.neighbours.shape}"
            )
    heads = [
        _key_means(weight, pattern)
        for weight, pattern in zip(weights, patterns, strict=True)
    ]
    heads = ops.transpose(ops.stack(heads), (2, 0, 1))  # (B, N, n_k)
    return ops.reshape(heads, (-1, len(patterns), *patterns[0].key_shape))


def _key_means(weight, pattern):
    """Means over the non-zero entries of each column: (n_k, B)."""
    edges, keys = pattern.neighbours.size, pattern.num_keys
    weight = ops.cast(weight, "float32")
    weight = ops.transpose(ops.reshape(weight, (-1, edges)))
    seen = ops.cast(ops.not_equal(weight, 0.0), "float32")
    # One segment more than keys, for the padding.
    segments = pattern.neighbours.ravel()
    segments = np.where(segments < 0, keys, segments)
    total, count = (
        ops.segment_sum(x, segments, num_segments=keys + 1)[:keys]
        for x in (weight, seen)
    )
    return total / ops.maximum(count, 1.0)


def resize_saliency(saliency, size, interpolation="nearest"):
    """Saliency of the keys on another grid.

    Args:
        saliency: float tensor (B, N, hk, wk).
        size: (H, W).
        interpolation: "nearest", where a cell (i, j) takes the key cell
            (i hk // H, j wk // W), for the feature map; or "bilinear" with
            cells' centres at halves, for the picture.

    Returns:
        Tensor (B, N, H, W), in float32 if bilinear.

    Raises:
        ValueError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {INTERPOLATIONS}. "
            f"Received: interpolation={interpolation!r}"
        )
    if interpolation == "nearest":
        for axis, cells in zip((2, 3), size, strict=True):
            index = np.arange(cells) * saliency.shape[axis] // cells
            saliency = ops.take(saliency, index, axis=axis)
        return saliency
    saliency = ops.transpose(ops.cast(saliency, "float32"), (0, 2, 3, 1))
    saliency = ops.image.resize(
        saliency, size, interpolation="bilinear", data_format="channels_last"
    )
    return ops.transpose(saliency, (0, 3, 1, 2))


def weighted_distance(x, y, saliency):
    """Distance of feature maps where each head's saliency counts.

        d_h = || s_h (x - y) ||, not squared

    One number for each pair and head. The official script takes one norm over
    the whole batch, sqrt(sum over pairs of d_h^2), whose gradient for one
    pair shrinks as the others are farther away; ours does not couple them.

    Args:
        x, y: float tensors (B, H, W, C); B is 1 or the same.
        saliency: float tensor (B, N, H, W); B is 1 or the same.

    Returns:
        float32 tensor (B, N). At distance 0 the gradient is 0.

    Raises:
        ValueError: shapes that do not fit.

    Cost: O(B H W (C + N)) time.

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287), sec. 6
    """
    shapes = [tuple(tensor.shape) for tensor in (x, y, saliency)]
    ranks = [len(shape) for shape in shapes]
    grids = {shapes[0][1:3], shapes[1][1:3], shapes[2][2:]}
    if ranks != [4] * 3 or len(grids) > 1 or shapes[0][3] != shapes[1][3]:
        raise ValueError(
            "x and y must be (batch, height, width, channels) and saliency "
            "(batch, heads, height, width). Received: "
            "x={}, y={}, saliency={}".format(*shapes)
        )
    x, y, saliency = (ops.cast(t, "float32") for t in (x, y, saliency))
    squares = ops.sum(ops.square(x - y), axis=-1)[:, None]
    return root(ops.sum(ops.square(saliency) * squares, axis=(2, 3)))


def root(x):
    """Square root whose gradient at 0 is 0."""
    positive = x > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, x, 1.0)), 0.0)
