"""Neighbourhood attention: every cell sees the k cells nearest to it.

Hassani et al., "Neighborhood Attention Transformer" (CVPR 2023); dilated:
Hassani and Shi, arXiv 2209.15001; with stride and causal axes: Hassani et al.,
"Generalized Neighborhood Attention", arXiv 2504.16922. Unlike a sliding
window, that of a cell near the border is shifted inside, so that all see
equally many.

Letters: B batch, H W grid, C channels, N heads, D and E sizes of a head, X
extra keys, k, d and s kernel, dilation and stride.
"""

import dataclasses

import keras

from kanets.attention.checks import check_bool, one_per_axis
from kanets.attention.local import LocalAttention, local_attention
from kanets.attention.local_tiles import Axis, check_sizes, visible_pairs


@dataclasses.dataclass(frozen=True)
class NeighborhoodAxis(Axis):
    """The neighbourhood along one axis; if `clip`, as large as there are."""

    kernel_size: int
    dilation: int = 1
    stride: int = 1
    causal: bool = False
    clip: bool = False

    def __post_init__(self):
        # A causal query that is far before the centre would see nothing.
        if self.stride > self.kernel_size and (self.causal or not self.clip):
            raise ValueError(
                "stride must be at most kernel_size. Received: "
                f"stride={self.stride}, kernel_size={self.kernel_size}"
            )

    @property
    def extent(self):
        return self.kernel_size + self.stride - 2

    def seen(self, number, length, xp):
        kernel = self.kernel_size
        first = number // self.stride * self.stride
        if self.causal:
            centre = xp.minimum(first + self.stride - 1, length - 1)
            return xp.maximum(centre - kernel + 1, 0), number + 1
        centre = xp.minimum(first + self.stride // 2, length - 1)
        kernel = xp.minimum(length, kernel)
        start = xp.minimum(centre - kernel // 2, length - kernel)
        start = xp.maximum(start, 0)
        return start, start + kernel

    def check_size(self, size):
        if self.kernel_size * self.dilation > size and not self.clip:
            raise ValueError(
                "kernel_size times dilation must be at most the size of the "
                f"axis. Received: kernel_size={self.kernel_size}, "
                f"dilation={self.dilation}, size={size}"
            )


def neighborhood_attention(
    query,
    key,
    value,
    kernel_size=7,
    dilation=1,
    stride=1,
    causal=False,
    scale="rsqrt",
    mask=None,
    extra_key=None,
    extra_value=None,
    clip=False,
    implementation="auto",
    return_attention_scores=False,
):
    """Attention of every cell to its neighbourhood, in 1-D, 2-D, 3-D.

    Axis by axis, a cell falls into the group of cells at its distance modulo
    d, of which it is number u of n. With c = min((u // s) s + s // 2, n - 1)
    it sees the numbers from clip(c - k // 2, 0, n - k) on, k of them; on a
    causal axis max(0, c - k + 1) to u, with c the last of its s.

    Args:
        query, key: float tensors (B, *grid, N, D).
        value: float tensor (B, *grid, N, E).
        kernel_size: k, an integer, or one for each axis.
        dilation: d, alike; k d is the size of the axis at most.
        stride: s, alike, k at most: s cells share a neighbourhood.
        causal: whether a cell sees nothing behind it, or one for each axis.
        scale: factor of the logits: "rsqrt" is 1/sqrt(D), None is none, or
            a number.
        mask: optional bool tensor (B, *grid), True where valid: padding is
            not seen, and its output is zero.
        extra_key, extra_value: optional (B, X, N, D) and (B, X, N, E), which
            every cell sees beside its neighbourhood, in the same softmax.
        clip: whether to take what there is, where k d is larger than an axis
            or s than k. Where a size is open, it is done without asking.
        implementation: "xla", in tiles; "reference", masked and dense; or
            "auto", what `kanets.attention.implementation` has set.
        return_attention_scores: also return the weights, for looking:
            O(n²) time and memory.

    Returns:
        Tensor (B, *grid, N, E) in the dtype of `value`; with
        `return_attention_scores` a pair of it and the weights (B, N, n,
        X + n) in float32, for n cells row by row. Softmax in float32.

    Raises:
        ValueError: shapes that do not fit each other; a kernel, dilation or
            stride that does not fit the grid; a bad `scale`.

    Cost: O(n k^axes (D + E)) time, O(n k^axes) memory for each head.

    Example:

    >>> x = keras.random.normal((1, 28, 28, 4, 16))
    >>> neighborhood_attention(x, x, x, kernel_size=7, dilation=2).shape
    (1, 28, 28, 4, 16)

    References: Generalized Neighborhood Attention, section 3.
    """
    axes = neighborhood_axes(
        len(query.shape) - 3, kernel_size, dilation, stride, causal, clip
    )
    return local_attention(
        query,
        key,
        value,
        [axes],
        scale,
        mask,
        (extra_key, extra_value, None),
        implementation,
        return_attention_scores,
    )


def neighborhood_mask(
    grid, kernel_size=7, dilation=1, stride=1, causal=False, clip=False
):
    """Which cell sees which in `neighborhood_attention`.

    Args:
        grid: sizes of the axes.
        kernel_size, dilation, stride, causal, clip: as there.

    Returns:
        NumPy bool array (n, n), query by key, n cells row by row.

    Raises:
        ValueError: what does not fit the grid.

    Example:

    >>> neighborhood_mask((4,), 3).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1],
           [0, 1, 1, 1]])
    """
    axes = neighborhood_axes(
        len(grid), kernel_size, dilation, stride, causal, clip
    )
    check_sizes(axes, grid)
    return visible_pairs(axes, grid)


def neighborhood_axes(rank, kernel_size, dilation, stride, causal, clip):
    """A `NeighborhoodAxis` for each axis of a grid."""
    clip = check_bool(clip=clip)
    arguments = zip(
        one_per_axis("kernel_size", kernel_size, rank),
        one_per_axis("dilation", dilation, rank),
        one_per_axis("stride", stride, rank),
        one_per_axis("causal", causal, rank, bool),
        strict=True,
    )
    return tuple(NeighborhoodAxis(*each, clip) for each in arguments)


@keras.saving.register_keras_serializable(package="kanets")
class NeighborhoodAttention(LocalAttention):
    """Attention of every cell to the cells nearest to it.

        Y = o(Attn(q(X), k(X), v(X)))

    where the queries see what `neighborhood_attention` says, which has the
    rule. For sequences (B, T, C), pictures and video.

    Args:
        kernel_size: k, an integer, or one for each axis of the grid.
        dilation, stride: alike; k times the dilation is the size of an axis
            at most, the stride k.
        causal: whether a cell sees nothing behind it, or one for each axis.
        clip: whether to take what there is where the grid is smaller; if
            not, it is refused. In nets, by name, True.
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`, but all four maps are learned by default,
            and the scale is 1/sqrt(D).

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights (B, N, n, n) in
            float32, O(n²): for looking.

    Returns:
        Tensor (B, *grid, C), and the weights on request. Softmax in float32.

    Raises:
        ValueError: an argument out of its range, or not one for each axis;
            a grid that is too small for it.

    Cost: O(n (C² + k^axes C)) time, O(n k^axes N) memory.

    Example:

    >>> layer = NeighborhoodAttention(kernel_size=7, num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Hassani et al., "Neighborhood Attention Transformer", CVPR
    2023, section 3; code: SHI-Labs/NATTEN.
    """

    def __init__(
        self,
        kernel_size=7,
        dilation=1,
        stride=1,
        causal=False,
        clip=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = one_per_axis("kernel_size", kernel_size)
        self.dilation = one_per_axis("dilation", dilation)
        self.stride = one_per_axis("stride", stride)
        self.causal = one_per_axis("causal", causal, kind=bool)
        self.clip = check_bool(clip=clip)

    def head_axes(self, rank):
        return [
            neighborhood_axes(
                rank,
                self.kernel_size,
                self.dilation,
                self.stride,
                self.causal,
                self.clip,
            )
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "stride": self.stride,
            "causal": self.causal,
            "clip": self.clip,
        }
