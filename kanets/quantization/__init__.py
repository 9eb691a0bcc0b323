"""Training for 8-bit integers: nets that compute with the errors of these.

    prepared = kanets.quantization.prepare(model)
    prepared.compile(...); prepared.fit(...)
    kanets.export_litert(prepared, "phone", precision="int8")

| of a net | in training, and in the LiteRT file |
|---|---|
| `Conv2D`, `DepthwiseConv2D`, `Dense` | kernel in -127..127 and a scale for each output channel |
| `BatchNormalization` after one of these alone | folded into that kernel, then rounded |
| another `BatchNormalization` | of maps a depthwise 1x1 convolution, exact |
| ReLU and ReLU6 | part of the layer before: one rounding, after them |
| what a layer gives to another | 0..255 steps of a learned range that holds 0 |
| concatenation | its own range; what enters is rounded twice |
| padding, reshaping, slices, max pooling, dropout | as it is: numbers stay rounded |
| average pooling, resizing | the range of what enters |
| sigmoid, tanh, softmax | their own range, 1/256 or 1/128 a step; SiLU as x sigmoid(x) |
| nested models, the modules of a KANet | opened, layer by layer |
| attention of `kanets.attention` | opened, where products, sums, means and softmax are all of it |

The softmax or sigmoid that a net ends in is rounded in the file alone: a loss
learns nothing of a probability that is rounded to 0.

In floats stay: the scaling of pixels before the first layer; attention that sorts, gathers, masks or normalises by lengths ("lsh", "smyrf",
"ylg", "adaptive_span", "cross_covariance", "efficient_additive", "linear"), or
has weights beside its maps ("window", "neighborhood"); layer and group
normalisation, GELU and other activations, and layers without weights that are
none of these. What they take and give is rounded. Other layers with weights are
refused, by name.
"""  # noqa: E501

import keras  # noqa: F401, before ours: see `kanets.registered`

from kanets.quantization.net import QuantizationAware
from kanets.quantization.operators import (
    fake_quantize,
    fake_quantize_kernel,
)
from kanets.quantization.preparing import (
    check_backend,
    check_trained,
    is_prepared,
    net_of,
    prepare,
    strip,
)

__all__ = [
    "QuantizationAware",
    "check_backend",
    "check_trained",
    "fake_quantize",
    "fake_quantize_kernel",
    "is_prepared",
    "net_of",
    "prepare",
    "strip",
]
