"""Attention as a residual branch that starts closed.

y = x + attention(norm(x)): at first the branch gives zero, so y is x to the
last bit, and a net that was trained without the branch answers as before.
While it is trained the branch opens. Nothing multiplies it: what starts at
zero is its own last projection, a full map of channels, which gets a gradient
at the first step (a gate of one number a channel hardly opened when tried).
"""

import keras

from kanets.attention import table
from kanets.attention.checks import check_choice
from kanets.layers.batch_normalization import (
    BatchNormalization,
    set_norm_momentum,
)


def residual_attention(
    x,
    attention,
    *,
    gate="zero",
    momentum=0.9,
    dtype=None,
    name="attention",
):
    """Adds attention to maps, as a branch that starts closed.

        y = x + attention(norm(x))

    Three layers in a functional graph: "<name>_norm", a batch normalisation,
    but for a mechanism that goes without ("kao_rectified", gates); "<name>",
    the mechanism, with its last learned map at zero (o of a layer
    with that projection, otherwise v; `out` of the patterns of YLG; what a
    gate is made of, and the branch is then what twice the gate changes); and
    "<name>_add". A mechanism with no such map (`projections=""`, "ylg" with
    a residual or a spectral norm of its own, a layer whose
    `start_at_zero()` is false or missing) is followed by a fourth,
    "<name>_scale", a batch normalisation whose scale starts at zero.

    Args:
        x: float tensor (B, H, W, C), symbolic, C known. H and W may be None
            where the mechanism allows it: all but "ylg", whose patterns need
            them.
        attention: a name of `kanets.attention.names()`, a dictionary of such
            a name and arguments, or a function of the keywords scale, dtype
            and name that returns a new layer, as in
            `kanets.attention.make`; no layer, as it would be shared between
            the places it is put in. Logits are multiplied by 1/sqrt(D) where
            the dictionary does not say, as in the modules of a KANet.
        gate: "zero", or None for a branch that starts open, with the
            mechanism's own initializers.
        momentum: of the moving averages of the normalisation, and of those
            within the mechanism until it is saved. They begin at mean 0 and
            variance 1, far from those of a trained net, and fine-tuning is
            short: so less than Keras's 0.99.
        dtype: policy of the new layers; None is Keras's default. Where its
            compute dtype is that of `x`, the sum keeps the dtype.
        name: str, of the mechanism's layer.

    Returns:
        Tensor (B, H, W, C), in the compute dtype; equal to `x` until
        something is trained, if `x` is finite.

    Raises:
        ValueError: `x` is no (B, H, W, C) of floats with known C; a layer in
            place of what makes one; an unknown `gate`; what
            `kanets.attention.make` or the mechanism refuses; a mechanism that
            changes the shape.

    Cost: the mechanism's, and three passes over x.

    Example:

    >>> x = keras.Input((16, 16, 32))
    >>> y = residual_attention(x, "kao_qkv", name="looks")
    >>> [layer.name for layer in keras.Model(x, y).layers[1:]]
    ['looks_norm', 'looks', 'looks_add']
    """
    _check_maps(x)
    check_choice(("zero", None), gate=gate)
    if isinstance(attention, keras.layers.Layer):
        raise ValueError(
            "attention must be a name, a dictionary or a function that makes "
            "a new layer: one layer would be shared between its places. "
            f"Received: attention={attention!r}"
        )
    arguments = {"momentum": momentum, "dtype": dtype}
    if attention is None:
        raise ValueError(
            "attention must be what a branch is made of. Received: None"
        )
    layer = table.make(attention, scale="rsqrt", dtype=dtype, name=name)
    closed = gate is None or _starts_at_zero(layer)
    branch = x
    if getattr(layer, "wants_norm", True):
        branch = BatchNormalization(name=f"{name}_norm", **arguments)(x)
    branch = layer(branch)
    set_norm_momentum(layer, momentum)
    if tuple(branch.shape) != tuple(x.shape):
        raise ValueError(
            "Attention in a residual branch must keep the shape. Received: "
            f"attention={attention!r}, which makes {tuple(branch.shape)} of "
            f"{tuple(x.shape)}"
        )
    if not closed:
        branch = BatchNormalization(
            gamma_initializer="zeros", name=f"{name}_scale", **arguments
        )(branch)
    return keras.layers.Add(dtype=dtype, name=f"{name}_add")([x, branch])


def _starts_at_zero(layer):
    start = getattr(layer, "start_at_zero", None)
    return start is not None and start()


def _check_maps(x):
    if (
        len(x.shape) != 4
        or x.shape[-1] is None
        or "float" not in keras.backend.standardize_dtype(x.dtype)
    ):
        raise ValueError(
            "x must be floats (batch, height, width, channels) with known "
            f"channels. Received: x.shape={tuple(x.shape)}, x.dtype={x.dtype}"
        )
