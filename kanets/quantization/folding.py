"""Layers with weights as they are deployed: 8 bits, batch norm folded in.

A convolution and the batch normalisation after it are one convolution,

    y = conv(x, w g / d) + b + (c - m) g / d,   d = sqrt(v + epsilon)

with g, c scale and offset, m, v mean and variance, b the bias. Each output
channel of the kernel has a scale of its own, so that rounding the folded kernel
is folding the rounded one: in training, batch normalisation runs as it is, with
the moments of the batch, after the convolution with w rounded.
"""

import keras
from keras import ops

from kanets.layers.batch_normalization import BatchNormalization
from kanets.quantization.operators import fake_quantize_kernel

KINDS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
NORMS = (keras.layers.BatchNormalization, BatchNormalization)


class Folded:
    """One of `KINDS` without its activation, with a normalisation or without.

    Args:
        layer: a built layer of `KINDS`; its weights are used, and no others.
        norm: the built layer of `NORMS` after it, or None.
        quantize: whether the kernel is rounded.
    """

    def __init__(self, layer, norm=None, quantize=True):
        self.layer, self.norm, self.quantize = layer, norm, quantize

    def __call__(self, x, training=None):
        layer, norm = self.layer, self.norm
        kernel = ops.convert_to_tensor(layer.kernel)
        bias = ops.convert_to_tensor(layer.bias) if layer.use_bias else None
        if norm is None:
            return self._linear(x, kernel, bias)
        if training and norm.trainable:
            return norm(self._linear(x, kernel, bias), training=training)
        scale, offset = scale_and_offset(norm)
        if bias is not None:
            offset = offset + bias * scale
        if is_depthwise(layer):
            scale = ops.reshape(scale, kernel.shape[2:])
        return self._linear(x, kernel * scale, offset)

    def _linear(self, x, kernel, bias):
        if self.quantize:
            outputs = 2 if is_depthwise(self.layer) else 1  # axes of channels
            axes = range(len(kernel.shape) - outputs)
            kernel = fake_quantize_kernel(kernel, tuple(axes))
        return linear(self.layer, x, kernel, bias)


class Normalized:
    """A normalisation of maps (B, H, W, C) after no convolution.

    It is deployed as a depthwise convolution of 1x1, whose weights 8 bits and
    a scale for each hold exactly.

    Args:
        norm: a built layer of `NORMS`.
    """

    def __init__(self, norm):
        self.norm = norm

    def __call__(self, x, training=None):
        if len(x.shape) != 4 or (training and self.norm.trainable):
            return self.norm(x, training=training)
        scale, offset = scale_and_offset(self.norm)
        x, scale, offset = (
            ops.cast(t, self.norm.compute_dtype) for t in (x, scale, offset)
        )
        kernel = ops.reshape(scale, (1, 1, -1, 1))
        return ops.depthwise_conv(x, kernel, data_format="channels_last") + (
            offset
        )


def linear(layer, x, kernel, bias=None):
    """What a layer of `KINDS` computes, with another kernel and bias."""
    x, kernel = (ops.cast(t, layer.compute_dtype) for t in (x, kernel))
    if isinstance(layer, keras.layers.Dense):
        y = ops.matmul(x, kernel)
    elif is_depthwise(layer):
        y = ops.depthwise_conv(
            x,
            kernel,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
    else:
        y = layer.convolution_op(x, kernel)
    return y if bias is None else y + ops.cast(bias, y.dtype)


def is_depthwise(layer):
    """Whether a layer of `KINDS` is a depthwise convolution."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def scale_and_offset(norm):
    """What a normalisation does at inference: x scale + offset, float32."""
    scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma
    offset = -norm.moving_mean * scale
    return scale, offset + norm.beta if norm.center else offset


def is_of_last_axis(norm):
    """Whether a built normalisation is of the channels, which are last."""
    return norm.axis in (-1, norm.input_spec.ndim - 1)
