"""Numbers rounded as 8-bit integers would hold them, and kept as floats.

Training with these ("fake quantization") lets a net find weights that lose
little by it: Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018; weights with a scale
for each channel: Krishnamoorthi, arXiv:1806.08342. The grids are those of
LiteRT's 8-bit specification.
"""

import keras
from keras import ops

LEVELS = 255  # steps of 8 bits
_LARGEST = 127  # of a weight, in steps, whose grid has its middle at 0
_LEAST = 1e-6  # length of a range, and of a channel's weights


def fake_quantize(x, low, high):
    """Rounds to the nearest of 256 values from `low` to `high`.

        y = s (clip(round(x / s) + z, 0, 255) - z),   s = (high - low) / 255

    z is the integer nearest to -low / s, so that 0 is among the values (a
    convolution pads with it).

    Args:
        x: float tensor of any shape.
        low, high: scalars, float32, low <= 0 <= high.

    Returns:
        Tensor of the shape and dtype of `x`; computed in float32. The gradient
        is that of the identity ("straight through") where x is within the
        range, and 0 elsewhere; `low` and `high` have none.

    On TensorFlow this is its own operation, from which LiteRT's converter
    reads the range.
    """
    low, high = _range(low, high)
    wide = ops.cast(x, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        y = tf.quantization.fake_quant_with_min_max_vars(wide, low, high)
        return tf.cast(y, x.dtype)
    step = (high - low) / LEVELS
    zero = ops.clip(ops.floor(0.5 - low / step), 0.0, LEVELS)
    low, high = -zero * step, (LEVELS - zero) * step
    rounded = ops.floor((ops.clip(wide, low, high) - low) / step + 0.5)
    passes = ops.cast((wide >= low) & (wide <= high), "float32")
    y = ops.stop_gradient(rounded * step + low)
    y = y + ops.stop_gradient(passes) * (wide - ops.stop_gradient(wide))
    return ops.cast(y, x.dtype)


def fake_quantize_kernel(kernel, axes):
    """Rounds weights to integers in -127..127 times a scale of their channel.

        y = s round(w / s),   s = max |w| / 127

    Args:
        kernel: float tensor.
        axes: those of one channel, over which the maximum is taken.

    Returns:
        Tensor as `kernel`, whose gradient is the identity's.
    """
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    step = ops.stop_gradient(ops.maximum(largest, _LEAST) / _LARGEST)
    rounded = ops.stop_gradient(ops.round(kernel / step) * step)
    return rounded + (kernel - ops.stop_gradient(kernel))


def observed_range(x):
    """The least and the greatest number, with 0 among them, in float32."""
    x = ops.stop_gradient(ops.cast(x, "float32"))
    return ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)


def _range(low, high):
    low, high = (
        ops.stop_gradient(ops.convert_to_tensor(bound, "float32"))
        for bound in (low, high)
    )
    return low, ops.maximum(high, low + _LEAST)
