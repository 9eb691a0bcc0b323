"""KANetSegmenter: a body, of a KANet or another net, that labels every pixel.

DeepLab's parts at a KANet's price. The body keeps its last maps large by
dilation; atrous spatial pyramid pooling (Chen et al., "Rethinking Atrous
Convolution for Semantic Image Segmentation", 2017) reads them at several
distances, and a decoder joins them with finer maps (Chen et al.,
"Encoder-Decoder with Atrous Separable Convolution", ECCV 2018). It differs in
that all 3x3 convolutions are depthwise separable, that activations are ReLU6,
and that Kronecker attention (Gao, Wang and Ji, KDD 2020) over the whole map
follows the pyramid.
"""

import keras

from kanets.attention.table import make
from kanets.checks import positive_integer
from kanets.layers.resize_like import ResizeLike
from kanets.nets.backbones import MAPS, segmenter_body
from kanets.nets.parts import (
    check_arguments,
    conv_norm_relu6,
    norm_relu6,
    width,
)

# Distances of the taps in the pyramid, for each output stride.
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
ASPP_CHANNELS = 256
LEVEL2_CHANNELS = 48


def KANetSegmenter(  # noqa: N802
    input_shape=None,
    alpha=1.0,
    classes=21,
    *,
    output_stride=16,
    attention="kao_qkv",
    backbone=None,
    backbone_attention="kao_qkv",
    strides=(2, 2, 2, 2, 2),
    aspp_channels=None,
    dropout_rate=0.1,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="kanet_segmenter",
):
    """A segmentation net of pixels, as a functional Keras model.

    With F2 the body's maps at level 2 and F5 its last:

        P = ASPP(F5)                          1x1, three dilated 3x3, pooling
        A = P + g * attention(P)
        D = separable3x3([up(A), conv1x1(F2)])
        Y = softmax(up(conv1x1(D)))

    where "up" is bilinear, to the size of F2 and of the picture, and the gate
    g, a number for each channel, starts at 0, as SAGAN's (Zhang et al., ICML
    2019, equation 3): the net starts as one without attention and takes what
    helps. The maps are not normalised as a KANet's are: they are nearly the
    same all over a picture, and a batch holds few pictures
    (`benchmarks/NOTES.md`).
    The body's layers are named as in its own net; `feature_maps(model)` gives
    the levels.

    Args:
        input_shape: (H, W, 3); default (None, None, 3), any picture.
        alpha: width; channels are multiplied by it and rounded as in `KANet`,
            but for a body that is another net's.
        classes: number of classes.
        output_stride: 8 or 16: how much smaller F5 is than the picture. 8 is
            finer and dearer. The weights do not depend on it.
        attention: after the pyramid: one of `kanets.attention.names()`
            ("ylg" is for a known input size), a dictionary of such a name and
            arguments, or what else `kanets.attention.make` takes; None leaves
            it out.
        backbone: what the body is and starts from; its weights are copied.
            None or "kanet" is a fresh KANet; a name or path of
            `kanets.load_model`, such as "efficientnet_lite0_imagenet" (also
            "efficientnet_lite0") or "kanet_lite0_imagenet", which attends,
            is a trained net; or a `keras.Model`:

            - a KANet, whose `alpha` and attention must be those given here;
            - another net that `feature_maps` knows, such as an
              EfficientNetLite or a MobileNetV4;
            - a feature model, from pixels to a dict with maps "level2" and
              "level5".

            Strides of its convolutions beyond `output_stride` become 1, and
            the kernels behind them are dilated.

        backbone_attention: `attention` of a KANet body's modules.
        strides: of a KANet's body: five numbers, 1 or 2; small pictures want
            fewer early strides.
        aspp_channels: channels of P; default 256 * alpha.
        dropout_rate: before the classifier.
        classifier_activation: None gives logits.
        include_preprocessing: whether the model takes pixels in 0..255 and
            maps them to -1..1 itself; without it the caller does. A body that
            is no KANet's takes what its net does.
        name: the model's name.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, H, W, classes) in float32. With `keras.mixed_precision` set, all
        before the classifier computes in half precision.

    Raises:
        ValueError: an argument out of its range, named with its value; a
            KANet of other layers, where the first that differs is named; an
            argument of a KANet's body for another's; a backbone that is none
            of these, or that the zoo does not know.

    Training wants batches of several pictures: the pooled branch of the
    pyramid is normalised over the batch alone.

    Cost: at 360x480 pixels and 21 classes, without the resizing:

    | alpha | output stride | trainable parameters | multiply-adds |
    |-------|---------------|----------------------|---------------|
    | 1.0   | 16            | 2.69 M               | 2.89 G        |
    | 1.0   | 8             | 2.69 M               | 7.45 G        |
    | 0.5   | 16            | 0.70 M               | 0.80 G        |
    | 0.5   | 8             | 0.70 M               | 1.98 G        |

    Resizing adds 0.5 to 0.6 G in plain matrix products. With the body of
    EfficientNet-Lite0, 11 classes and the resizing: 3.86 M and 4.1 G at alpha 1
    and output stride 16, 11.3 G at 8; 3.30 M and 3.1 G at 0.5 and 16.

    Example:

    >>> model = KANetSegmenter((60, 80, 3), 0.25, classes=11)
    >>> model.output_shape
    (None, 60, 80, 11)

    References: Chen et al., "Encoder-Decoder with Atrous Separable
    Convolution for Semantic Image Segmentation", ECCV 2018, figure 2; Gao,
    Wang and Ji, "Kronecker Attention Networks", KDD 2020.
    """
    check_arguments(input_shape, alpha, strides, output_stride)
    classes = positive_integer("classes", classes)
    if output_stride is None:
        raise ValueError(
            "output_stride must be 8 or 16. Received: output_stride=None"
        )
    if aspp_channels is None:
        aspp_channels = width(ASPP_CHANNELS, alpha)
    shape = (None, None, 3) if input_shape is None else input_shape

    # Body
    body = segmenter_body(
        backbone,
        shape,
        alpha,
        output_stride,
        strides=strides,
        backbone_attention=backbone_attention,
        include_preprocessing=include_preprocessing,
    )
    inputs, level2, x = body.input, *map(body.output.get, MAPS)

    # Pyramid and attention
    x = _pyramid(x, aspp_channels, RATES[output_stride])
    if attention is not None:
        x = _attended(x, attention)

    # Decoder
    x = ResizeLike(name="decoder_resize")([x, level2])
    fine = conv_norm_relu6(
        level2, width(LEVEL2_CHANNELS, alpha), 1, 1, "decoder_level2"
    )
    x = keras.layers.Concatenate(name="decoder_concat")([x, fine])
    x = _separable(x, aspp_channels, 1, "decoder")
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    x = _classifier(x, inputs, classes, classifier_activation)
    return keras.Model(inputs, x, name=name)


def _attended(x, attention):
    """x + g * attention(x), with a g for each channel that starts at 0."""
    maps = make(attention, scale="rsqrt", name="attention")(x)
    maps = keras.layers.DepthwiseConv2D(
        1,
        data_format="channels_last",
        use_bias=False,
        depthwise_initializer="zeros",
        name="attention_gate",
    )(maps)
    return keras.layers.Add(name="attention_add")([x, maps])


def _classifier(x, inputs, classes, activation):
    """Maps to the classes of each pixel of the inputs."""
    x = keras.layers.Conv2D(
        classes,
        1,
        data_format="channels_last",
        dtype="float32",
        name="predictions",
    )(x)
    x = ResizeLike(dtype="float32", name="predictions_resize")([x, inputs])
    return keras.layers.Activation(
        activation, dtype="float32", name="classifier_activation"
    )(x)


def _pyramid(x, channels, rates):
    branches = [conv_norm_relu6(x, channels, 1, 1, "aspp_1x1")]
    for number, rate in enumerate(rates, start=1):
        branches.append(_separable(x, channels, rate, f"aspp_dilated{number}"))
    pooled = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", keepdims=True, name="aspp_pool"
    )(x)
    pooled = conv_norm_relu6(pooled, channels, 1, 1, "aspp_pool")
    branches.append(ResizeLike(name="aspp_pool_resize")([pooled, x]))
    x = keras.layers.Concatenate(name="aspp_concat")(branches)
    return conv_norm_relu6(x, channels, 1, 1, "aspp_project")


def _separable(x, channels, dilation_rate, name):
    x = keras.layers.DepthwiseConv2D(
        3,
        padding="same",
        data_format="channels_last",
        dilation_rate=dilation_rate,
        use_bias=False,
        name=f"{name}_depthwise",
    )(x)
    x = norm_relu6(x, f"{name}_depthwise")
    return conv_norm_relu6(x, channels, 1, 1, name)
