"""The discriminator: a residual network from a picture to a logit.

Miyato and Koyama, "cGANs with Projection Discriminator" (ICLR 2018), with
attention as in Zhang et al., SAGAN (ICML 2019), sparse as in Daras et al.,
"Your Local GAN" (CVPR 2020). `official=True` is the network whose weights
YLG's authors released.
"""

import keras

from kanets.attention.checks import check_positive
from ylg.gan.blocks import Normalized, attention_place, check_arguments

# Channels of each block's output, as multiples of `width`, and how many of
# the blocks, from the first, halve the side of the picture. 128: SAGAN and
# YLG; 32: SNGAN (Miyato et al., ICLR 2018), with wider blocks as its
# generator; 64 and 256: Brock et al., BigGAN (ICLR 2019).
CHANNELS = {
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
}


def discriminator(
    image_size=128,
    width=64,
    num_classes=None,
    attention="ylg",
    attention_size=None,
    num_heads=8,
    official=False,
    kernel_initializer="orthogonal",
    dtype=None,
    name="discriminator",
):
    """A Keras model that tells real pictures from generated ones.

        h = sum over the last map of relu(blocks(picture))
        logit = dense(h) + <h, embedding[label]>

    A block adds to relu, conv 3x3, relu, conv 3x3 of its input, halved, a 1x1
    map of the halved input. The first has no relu before its first
    convolution, as pixels are not features; a block that neither halves nor
    changes the channels adds its input as it is. All maps are spectrally
    normalised and have a bias; there is no batch norm.

    Args:
        image_size: side of the pictures: 32, 64, 128 or 256.
        width: factor of the channels in `CHANNELS`; 64 in the papers.
        num_classes: number of classes, or None: then there is no second term
            in the logit.
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
            - convolutions, the dense map and the embedding divide by
              max(1, sigma). Ours divide by sigma: a bound that is not also
              reached below 1 makes the discriminator's slope depend on
              initialisation and learning rate.
            - one more power iteration, not stored, at each inference call.
              Ours takes the stored vector. (In the official code *every* run
              stores a step; ours stores in training only.)
            - "tiled" attention patterns, see `generator`; ours are "spatial".
        kernel_initializer: see `generator`.
        dtype: precision, such as "mixed_bfloat16"; None is Keras's default.
        name: of the model.

    Call arguments of the model:
        `[images, labels]`, or images alone if there are no classes: images
        float (B, image_size, image_size, 3) in [-1, 1], labels int (B,) in
        0..num_classes - 1 (what others give depends on the backend).

    Returns of the model:
        Logits (B, 1), float32 in every precision, as h is. A large one says
        real.

    Layers to find: "block1", "block2", ... (the sums), "attention", "logits".

    Raises:
        ValueError: an argument outside of what is listed above.

    Example:

    >>> model = ylg.gan.discriminator(32, width=32)
    >>> model(keras.random.uniform((2, 32, 32, 3), -1, 1)).shape
    (2, 1)

    References: Miyato and Koyama, ICLR 2018, equation 4 and appendix C; Zhang
    et al., ICML 2019, section 4; Daras et al., CVPR 2020, section 5.
    """
    width, num_classes = check_arguments(
        image_size, CHANNELS, width, num_classes, attention
    )
    num_heads = check_positive(num_heads=num_heads)
    multiples, halving = CHANNELS[image_size]
    sizes = [
        image_size // 2 ** min(index + 1, halving)
        for index in range(len(multiples))
    ]
    attend_after = attention_place(attention, attention_size, image_size, sizes)

    make = Normalized(official, kernel_initializer, dtype)
    x = inputs = keras.Input((image_size, image_size, 3), name="images")

    # Smaller and smaller maps.
    for index, multiple in enumerate(multiples):
        x = _block(
            x,
            multiple * width,
            make,
            f"block{index + 1}",
            halve=index < halving,
            first=index == 0,
        )
        if index == attend_after:
            x = make.attention(x, attention, num_heads)

    # To a logit, in float32.
    x = keras.layers.ReLU(dtype="float32", name="relu")(x)
    features = keras.ops.sum(x, axis=(1, 2))
    logits = make.dense(features, 1, "dense", dtype="float32")
    if num_classes is not None:
        labels = keras.Input((), dtype="int32", name="labels")
        inputs = [inputs, labels]
        embedded = make.embedding(
            labels, num_classes, features.shape[-1], "embedding", "float32"
        )
        product = keras.layers.Dot(axes=1, dtype="float32", name="projection")
        logits = keras.layers.Add(dtype="float32", name="logits")(
            [logits, product([features, embedded])]
        )
    return keras.Model(inputs, logits, name=name)


def _block(x, filters, make, name, halve, first):
    shortcut = x
    if halve or x.shape[-1] != filters:
        # Halving before the 1x1 map or after it gives the same; this is
        # cheaper by a factor of four.
        if halve:
            shortcut = _half(shortcut, make.dtype, f"{name}_shortcut_half")
        shortcut = make.conv(shortcut, filters, 1, f"{name}_shortcut")
    if not first:
        x = _relu(x, make.dtype, f"{name}_relu1")
    x = make.conv(x, filters, 3, f"{name}_conv1")
    x = _relu(x, make.dtype, f"{name}_relu2")
    x = make.conv(x, filters, 3, f"{name}_conv2")
    if halve:
        x = _half(x, make.dtype, f"{name}_half")
    return keras.layers.Add(dtype=make.dtype, name=name)([x, shortcut])


def _relu(x, dtype, name):
    return keras.layers.ReLU(dtype=dtype, name=name)(x)


def _half(x, dtype, name):
    return keras.layers.AveragePooling2D(
        2, data_format="channels_last", dtype=dtype, name=name
    )(x)
