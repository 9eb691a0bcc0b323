"""The generator: a residual network from a latent vector to a picture.

Blocks and spectral norm as in Miyato and Koyama, "cGANs with Projection
Discriminator" (ICLR 2018); attention in the middle as in Zhang et al., SAGAN
(ICML 2019), sparse as in Daras et al., "Your Local GAN" (CVPR 2020).
`official=True` is the network whose weights YLG's authors released.
"""

import keras

from kanets.attention.checks import check_positive
from ylg.gan.blocks import Normalized, attention_place, check_arguments
from ylg.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)

# Channels of each block's output, as multiples of `width`. Each block doubles
# the side of the picture, from 4. 128: SAGAN and YLG; 32: SNGAN (Miyato et
# al., ICLR 2018); 64 and 256: Brock et al., BigGAN (ICLR 2019).
CHANNELS = {
    32: (4, 4, 4),
    64: (16, 8, 4, 2),
    128: (16, 8, 4, 2, 1),
    256: (16, 8, 8, 4, 2, 1),
}
START = 4


def generator(
    image_size=128,
    width=64,
    num_classes=None,
    latent_size=128,
    attention="ylg",
    attention_size=None,
    num_heads=8,
    official=False,
    kernel_initializer="orthogonal",
    dtype=None,
    name="generator",
):
    """A Keras model that makes pictures.

        z -> dense -> 4x4 -> blocks, each x2 -> norm, relu, conv 3x3 -> tanh

    A block adds to norm, relu, x2, conv 3x3, norm, relu, conv 3x3 of its
    input a 1x1 map of the input, x2. All maps are spectrally normalised and
    have a bias. Norms are batch norms, conditional ones in the blocks if
    there are classes.

    Args:
        image_size: side of the pictures: 32, 64, 128 or 256.
        width: factor of the channels in `CHANNELS`; 64 in the papers.
        num_classes: number of classes, or None for an unconditional one.
        latent_size: length of z.
        attention: "ylg" (sparse), "dense" (SAGAN's, but for `num_heads`),
            another of `kanets.attention.names()`, a dictionary of a name and
            arguments, or what else `kanets.attention.make` takes; None is
            none. The maps of the first two are spectrally normalised; around
            the others is SAGAN's gate alone.
        attention_size: side of the map that the layer "attention" gets; None
            is 32, and 16 for pictures of 32 pixels. A block's output size.
        num_heads: of the attention, where it does not say itself; 8 is what
            the "ylg" patterns are for.
        official: the constants of the released model, to load its weights:
            - convolutions and the dense map divide by max(1, sigma), not by
              sigma. Ours bounds every map by the same Lipschitz constant,
              and does not let the scale of a small kernel drift.
            - one more power iteration, not stored, at each inference call.
              Ours takes the stored vector, which training keeps up to date.
            - "tiled" attention patterns: query q looks where key q modulo
              (number of keys) would. Ours are "spatial": where the key cell
              that covers q would, the locality the paper argues for.
            - momentum 0.999 of the moving averages; ours is 0.99, which
              forgets the first, bad steps within a short run.
        kernel_initializer: orthogonal kernels have singular values of 1 only:
            dividing by the largest does not weaken the others, and the first
            estimate of it is already exact.
        dtype: precision, such as "mixed_bfloat16"; None is Keras's default.
        name: of the model.

    Call arguments of the model:
        `[z, labels]`, or z alone if there are no classes: z float
        (B, latent_size), labels int (B,) in 0..num_classes - 1.

    Returns of the model:
        Pictures (B, image_size, image_size, 3) in [-1, 1], float32 in every
        precision.

    Layers to find: "block1", "block2", ... (the sums), "attention", "images".

    Raises:
        ValueError: an argument outside of what is listed above.

    Example:

    >>> model = ylg.gan.generator(32, width=64, num_classes=10)
    >>> labels = keras.ops.convert_to_tensor([0, 9])
    >>> model([keras.random.normal((2, 128)), labels]).shape
    (2, 32, 32, 3)

    References: Miyato and Koyama, ICLR 2018, appendix C; Zhang et al., ICML
    2019, section 4; Daras et al., CVPR 2020, section 5.
    """
    width, num_classes = check_arguments(
        image_size, CHANNELS, width, num_classes, attention
    )
    latent_size, num_heads = check_positive(
        latent_size=latent_size, num_heads=num_heads
    )
    channels = [multiple * width for multiple in CHANNELS[image_size]]
    sizes = [START * 2 ** (index + 1) for index in range(len(channels))]
    attend_after = attention_place(attention, attention_size, image_size, sizes)

    make = Normalized(official, kernel_initializer, dtype)
    z = inputs = keras.Input((latent_size,), name="latent")
    labels = None
    if num_classes is not None:
        labels = keras.Input((), dtype="int32", name="labels")
        inputs = [z, labels]
    norm = _norm(num_classes, 0.999 if official else 0.99, dtype)

    # From a vector to the smallest map.
    x = make.dense(z, START * START * channels[0], "dense")
    x = keras.layers.Reshape(
        (START, START, channels[0]), dtype=dtype, name="reshape"
    )(x)

    # Larger and larger maps.
    for index, filters in enumerate(channels):
        x = _block(x, labels, filters, make, norm, f"block{index + 1}")
        if index == attend_after:
            x = make.attention(x, attention, num_heads)

    # To colours.
    x = _relu(norm(x, None, "norm"), dtype, "relu")
    x = make.conv(x, 3, 3, "conv")
    images = keras.layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(inputs, images, name=name)


def _block(x, labels, filters, make, norm, name):
    # A 1x1 map of an enlarged picture is the enlarged 1x1 map: this order
    # gives the same numbers for a quarter of the work.
    shortcut = make.conv(x, filters, 1, f"{name}_shortcut")
    shortcut = _double(shortcut, make.dtype, f"{name}_shortcut_double")
    x = _relu(norm(x, labels, f"{name}_norm1"), make.dtype, f"{name}_relu1")
    x = _double(x, make.dtype, f"{name}_double")
    x = make.conv(x, filters, 3, f"{name}_conv1")
    x = _relu(norm(x, labels, f"{name}_norm2"), make.dtype, f"{name}_relu2")
    x = make.conv(x, filters, 3, f"{name}_conv2")
    return keras.layers.Add(dtype=make.dtype, name=name)([x, shortcut])


def _norm(num_classes, momentum, dtype):
    """`norm(x, labels, name)`: conditional where there are labels."""
    arguments = {"momentum": momentum, "epsilon": 1e-3, "dtype": dtype}

    def norm(x, labels, name):
        if labels is None:
            layer = keras.layers.BatchNormalization(name=name, **arguments)
            return layer(x)
        layer = ConditionalBatchNormalization(
            num_classes, name=name, **arguments
        )
        return layer([x, labels])

    return norm


def _relu(x, dtype, name):
    return keras.layers.ReLU(dtype=dtype, name=name)(x)


def _double(x, dtype, name):
    return keras.layers.UpSampling2D(
        2, data_format="channels_last", dtype=dtype, name=name
    )(x)
