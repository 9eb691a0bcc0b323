"""ViT: a picture as tokens of patches, in blocks that attend.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image
Recognition at Scale", ICLR 2021; the sizes "tiny" and "small" are those of
Touvron et al., "Training data-efficient image transformers", ICML 2021. As
published: norms before attention and MLP, exact GELU, learned positions, a
class token. Ours takes any mechanism of the family in place of dense attention,
then on the grid of patches, of which the head sees the mean; and the token's
position is part of the token, as only their sum is seen.
"""

from typing import NamedTuple

import keras

from kanets.attention import table
from kanets.attention.dense import DenseAttention
from kanets.checks import positive_integer
from kanets.layers.pixel_scale import PixelScale
from kanets.layers.position_embeddings import PositionEmbeddings
from kanets.layers.split_tokens import SplitTokens
from kanets.nets.parts import (
    check_input_shape,
    check_pooling,
    check_variant,
    classifier,
    finished,
    make_input,
    pooled,
)

SIDE = 224
EPSILON = 1e-6


class Variant(NamedTuple):
    """Sizes of a ViT: channels of tokens and of the MLP between."""

    channels: int
    depth: int
    num_heads: int
    mlp_channels: int


VARIANTS = {
    "tiny": Variant(192, 12, 3, 768),
    "small": Variant(384, 12, 6, 1536),
}


def ViT(  # noqa: N802
    input_shape=None,
    variant="tiny",
    include_top=True,
    weights=None,
    input_tensor=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
    *,
    attention="dense",
    patch_size=16,
    depth=None,
    representation_size=None,
    dropout_rate=0.0,
    include_preprocessing=True,
):
    """A vision transformer for classification, as a functional Keras model.

    | variant | channels | blocks | heads | parameters | multiply-adds |
    |---------|----------|--------|-------|------------|---------------|
    | tiny    | 192      | 12     | 3     | 5,717,224  | 1,254 M       |
    | small   | 384      | 12     | 6     | 22,050,280 | 4,599 M       |

    Parameters and multiply-adds are those at 224 px and patches of 16. The
    class token goes with dense attention alone: all other mechanisms work on
    the grid of patches, and the head sees the mean of that.

    Args:
        input_shape: (H, W, 3) or (None, None, 3); default (224, 224, 3). Sizes
            that `patch_size` does not divide are padded. Learned positions
            have the grid of this size (with open sizes that of 224), and are
            resized for all others; weights of another size fit.
        variant: "tiny" or "small".
        include_top: whether the classifier is part of the model.
        weights: None for random, or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build upon, instead of a new input.
        pooling: without the top: None (maps (B, h, w, C) of the patches),
            "avg" or "max" of these, or "token", the class token.
        classes: number of classes.
        classifier_activation: of the top; None gives logits.
        name: the model's name; default "vit_<variant>".
        attention: of the blocks: one of `kanets.attention.names()`; a
            dictionary of a name and arguments, {"name": "kao_kv",
            "num_heads": 4}; or what else `kanets.attention.make` takes to make
            a new layer for each block. Logits are multiplied by 1/sqrt(D)
            where it does not say. A mechanism with `projections` has all four,
            with biases, and the variant's heads, where the dictionary does not
            say; others have their own defaults.
        patch_size: side of a patch in pixels; small pictures want 4 or 8.
        depth: number of blocks; None is the variant's.
        representation_size: channels of a dense layer with tanh before the
            classifier, as the paper has it for pretraining; None is without.
        dropout_rate: before the classifier.
        include_preprocessing: whether the model takes pixels in 0..255 and
            maps them to -1..1 itself; without it the caller does.

    Returns:
        A `keras.Model` from pixels (B, H, W, 3) to probabilities
        (B, classes) in float32. With `keras.mixed_precision` set, the body
        computes in half precision and the classifier in float32.

    Raises:
        ValueError: an argument out of its range, named with its value;
            `pooling="token"` with a mechanism that has none.

    Example:

    >>> model = ViT((32, 32, 3), classes=10, patch_size=4, attention="kao_qkv")
    >>> model.output_shape
    (None, 10)

    References: https://arxiv.org/abs/2010.11929, section 3.1 and table 1.
    """
    sizes = _checked(variant, depth)
    check_input_shape(input_shape)
    patch_size = positive_integer("patch_size", patch_size)
    classes = positive_integer("classes", classes)
    has_token = _has_token(attention)
    if pooling != "token":
        check_pooling(pooling)
    elif not has_token:
        raise ValueError(
            'pooling="token" needs dense attention, as only there is a class '
            f"token. Received: pooling='token', attention={attention!r}"
        )
    inputs = make_input(input_shape, input_tensor, SIDE)
    x = inputs
    if include_preprocessing:
        x = PixelScale(1 / 127.5, -1.0, name="preprocessing")(x)

    # Body
    x = patches = _patches(x, sizes.channels, patch_size)
    grid = [-(-(side or SIDE) // patch_size) for side in inputs.shape[1:3]]
    x = PositionEmbeddings(grid, has_token, name="positions")(x)
    attention = _filled(attention, sizes.num_heads)
    for block in range(sizes.depth):
        x = _block(x, sizes, attention, f"block_{block}")
    x = _norm(x, "norm")

    # Head
    token, maps = None, x
    if has_token:
        token, maps = SplitTokens(name="split")([x, patches])
    if not include_top:
        x = token if pooling == "token" else pooled(maps, pooling)
    else:
        x = token if has_token else pooled(maps, "avg")
        if representation_size is not None:
            size = positive_integer("representation_size", representation_size)
            x = keras.layers.Dense(size, "tanh", name="representation")(x)
        x = classifier(x, classes, classifier_activation, dropout_rate)
    name = f"vit_{variant}" if name is None else name
    return finished(name, inputs, x, input_tensor, weights)


def _patches(x, channels, patch_size):
    return keras.layers.Conv2D(
        channels,
        patch_size,
        patch_size,
        "same",
        data_format="channels_last",
        name="patches",
    )(x)


def _block(x, sizes, attention, name):
    def named(layer):
        return f"{name}_{layer}"

    entering = x
    x = _norm(x, named("attention_norm"))
    layer = table.make(attention, scale="rsqrt", name=named("attention"))
    x = layer(x)
    x = keras.layers.Add(name=named("attention_add"))([x, entering])
    entering = x
    x = _norm(x, named("mlp_norm"))
    x = keras.layers.Dense(sizes.mlp_channels, name=named("mlp_expand"))(x)
    x = keras.layers.Activation("gelu", name=named("mlp_gelu"))(x)
    x = keras.layers.Dense(sizes.channels, name=named("mlp_project"))(x)
    return keras.layers.Add(name=named("mlp_add"))([x, entering])


def _norm(x, name):
    return keras.layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _has_token(attention):
    """Whether a mechanism is dense, so that a token more is seen by all."""
    if attention is None or isinstance(attention, keras.layers.Layer):
        raise ValueError(
            "attention must be a name, a dictionary or a callable that makes a "
            "new layer for each block, not one layer or none. "
            f"Received: attention={attention!r}"
        )
    table.check(attention)
    mechanism, given = table.resolve(attention)
    if mechanism is None or mechanism.layer is not DenseAttention:
        return False
    return {**mechanism.arguments, **given}.get("pool_size") == 1


def _filled(attention, num_heads):
    """The identifier with what a transformer has, where it does not say."""
    mechanism, given = table.resolve(attention)
    if mechanism is None or "projections" not in table.parameters(
        mechanism.layer
    ):
        return attention
    name = attention if isinstance(attention, str) else attention["name"]
    letters = "".join(mechanism.layer.map_names)
    default = {"num_heads": num_heads, "projections": letters, "use_bias": True}
    return {"name": name, **default, **mechanism.arguments, **given}


def _checked(variant, depth):
    check_variant(variant, VARIANTS)
    sizes = VARIANTS[variant]
    if depth is None:
        return sizes
    return sizes._replace(depth=positive_integer("depth", depth))
