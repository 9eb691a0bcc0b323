"""Layers as they are folded: the same maps of constant arrays in float64.

`kanets.export.folding` puts these in place of layers, lets them take in what
comes before or after them, and calls them in float32.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.kronecker import kao_kv, kao_qkv
from kanets.attention.linear import attention_of_scales
from kanets.layers.resize_like import ResizeLike
from kanets.quantization import folding


class Linear:
    """A layer of `folding.KINDS`, without its activation, of constants."""

    def __init__(self, layer, kernel=None, bias=None):
        self.layer, self.kernel, self.bias = layer, kernel, bias
        if kernel is None:
            self.kernel = constant(layer.kernel)
            self.bias = constant(layer.bias) if layer.use_bias else None

    def __call__(self, x):
        y = folding.linear(self.layer, x, _narrow(self.kernel))
        return y if self.bias is None else _add_bias(y, _narrow(self.bias))

    @property
    def is_pointwise(self):
        """Whether each output is of one position's channels, all of them."""
        layer = self.layer
        return type(layer) is keras.layers.Conv2D and (
            layer.kernel_size == (1, 1) and layer.groups == 1
        )

    def normalize(self, scale, offset):
        """Takes in what follows, y scale + offset."""
        is_depthwise = folding.is_depthwise(self.layer)
        outputs = self.kernel.shape[2:] if is_depthwise else scale.shape
        self.kernel = self.kernel * scale.reshape(outputs)
        self.bias = offset if self.bias is None else self.bias * scale + offset

    def take_normalized(self, scale, offset):
        """Takes in what came before, of a map of (in, out)."""
        first = offset @ self.kernel
        self.kernel = scale[:, None] * self.kernel
        self.bias = first if self.bias is None else self.bias + first

    def part(self, start, stop, with_bias):
        """Of the inputs start to stop: all it makes of them, or, depthwise,
        what becomes of each."""
        kernel, bias = self.kernel[:, :, start:stop], self.bias
        if folding.is_depthwise(self.layer):
            bias = None if bias is None else bias[start:stop]
        elif not with_bias:
            bias = None
        return Linear(self.layer, kernel, bias)


class Affine:
    """x scale + offset along the last axis."""

    def __init__(self, scale, offset):
        self.scale, self.offset = scale, offset

    def __call__(self, x):
        return x * _narrow(self.scale) + _narrow(self.offset)

    def normalize(self, scale, offset):
        self.scale = self.scale * scale
        self.offset = self.offset * scale + offset


class Kronecker:
    """`KroneckerAttention` of constants; see there for q, k, v and o.

    Args:
        layer: the built layer.
        axes: of the grid, 1 of a sequence to 3 of a video.
    """

    def __init__(self, layer, axes):
        self.layer = layer
        self.maps = {
            n: Linear(linear) for n, linear in layer.learned_maps.items()
        }
        self.ends = axes if layer.mode == "qkv" else 1

    def __call__(self, x):
        layer = self.layer
        arguments = {"num_heads": layer.num_heads, "scale": layer.scale}
        if layer.mode == "qkv":
            operator, arguments["rectify"] = kao_qkv, layer.rectify
        else:
            operator = kao_kv
        is_known = None not in tuple(x.shape[1:])
        how = "pool" if len(x.shape) == 4 and is_known else "xla"
        maps, last = dict(self.maps), None
        if layer.mode == "qkv" and len(x.shape) == 4 and self._ends_wider():
            last = maps.pop("output")
        y = operator(x, implementation=how, **maps, **arguments)
        if last is None:
            return y
        kernel = _narrow(last.kernel[None, None])
        y = ops.conv(y, kernel, padding="same", data_format="channels_last")
        if last.bias is None:
            return y
        return _add_bias(y, _narrow(self.ends * last.bias))

    def _ends_wider(self):
        """Whether o widens what it is given.

        Then it is a 1x1 convolution after the sum of rows and columns, which
        runtimes keep in their layout, in place of sums of wide maps.
        """
        kernel = getattr(self.maps.get("output"), "kernel", None)
        return kernel is not None and kernel.shape[0] < kernel.shape[1]

    def normalize(self, scale, offset):
        """Takes in y scale + offset: in the last map, as weights sum to 1.

        In "qkv" mode a position is a sum of two tokens, which get half of the
        offset each.
        """
        last = "output"
        if last not in self.maps and not self.layer.rectify:
            last = "value"
        ones, zeros = np.ones_like(scale), np.zeros_like(scale)
        end = self.maps.setdefault(last, Affine(ones, zeros))
        end.normalize(scale, offset / self.ends)

    @property
    def takes_normalized(self):
        """Whether nothing but H + W means and learned maps see the input."""
        return self.layer.mode == "qkv" or "query" in self.maps

    def take_normalized(self, scale, offset):
        """Takes in what came before: of means as well as of positions."""
        for name in ("query", "key", "value"):
            if name in self.maps:
                self.maps[name].take_normalized(scale, offset)
            else:
                self.maps[name] = Affine(scale, offset)


class MultiScale:
    """`LinearAttention` of constants, and of convolutions of groups."""

    def __init__(self, layer):
        self.num_heads, self.maps = layer.num_heads, Linear(layer.maps)
        self.scales = [
            (Linear(depthwise), constant(groups.kernel))
            for depthwise, groups in layer.scales
        ]
        self.output = Linear(layer.output_map)
        norm = folding.scale_and_offset(layer.output_norm)
        self.output.normalize(*map(constant, norm))

    def __call__(self, x):
        scales = [self.maps(x)]
        for depthwise, kernel in self.scales:
            scales.append(_conv(depthwise(scales[0]), _narrow(kernel)))
        return self.output(attention_of_scales(scales, self.num_heads))


def resize(inputs):
    """`ResizeLike` by TensorFlow's operation, which every runtime has."""
    maps, reference = inputs
    size = tuple(reference.shape[1:3])
    if keras.backend.backend() != "tensorflow" or None in size:
        return ResizeLike()(inputs)
    import tensorflow as tf

    return tf.image.resize(maps, size, "bilinear")


def hard_swish(x):
    """x relu6(x + 3) / 6, in an order that LiteRT's converter leaves so."""
    return (x / 6.0) * ops.relu6(x + 3.0)


def _conv(x, kernel):
    if keras.backend.backend() != "tensorflow":
        return ops.conv(x, kernel, data_format="channels_last")
    import tensorflow as tf

    # Keras has XLA compile what has groups, for gradients.
    return tf.nn.conv2d(x, kernel, 1, "VALID")


def _add_bias(y, bias):
    if keras.backend.backend() != "tensorflow":
        return y + bias
    import tensorflow as tf

    # What its graph optimizer joins with a convolution; it does not with "+".
    return tf.nn.bias_add(y, bias)


def _narrow(array):
    return array.astype("float32")


def constant(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")
