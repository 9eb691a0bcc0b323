"""What the generator and the discriminator are both made of."""

import keras

from kanets.attention.base import fresh
from kanets.attention.checks import check_positive, check_positive_or_none
from kanets.attention.spectral_normalization import SpectralNormalization
from kanets.attention.table import make, parameters, resolve
from ylg.layers.gated_attention import GatedAttention


class Normalized:
    """Makes layers whose kernels are spectrally normalised.

    Holds what all of them share: the precision, the initializer, and whether
    the norm is taken as in the released model (`official`).
    """

    def __init__(self, official, kernel_initializer, dtype):
        self.official = official
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dtype = dtype

    def conv(self, x, filters, kernel_size, name):
        layer = keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            data_format="channels_last",
            kernel_initializer=fresh(self.kernel_initializer),
            dtype=self.dtype,
            name="conv",
        )
        return self._wrap(layer, name)(x)

    def dense(self, x, units, name, dtype=None):
        layer = keras.layers.Dense(
            units,
            kernel_initializer=fresh(self.kernel_initializer),
            dtype=self.dtype if dtype is None else dtype,
            name="dense",
        )
        return self._wrap(layer, name)(x)

    def embedding(self, labels, num_classes, units, name, dtype=None):
        layer = keras.layers.Embedding(
            num_classes,
            units,
            embeddings_initializer=fresh(self.kernel_initializer),
            dtype=self.dtype if dtype is None else dtype,
            name="embedding",
        )
        return self._wrap(layer, name)(labels)

    def attention(self, x, identifier, num_heads):
        """A mechanism's own block, or a gate around its layer."""
        mechanism, given = resolve(identifier, block=True)
        if mechanism is None:
            layer = make(identifier, dtype=self.dtype)
            return self._gated(layer)(x)
        if mechanism.block is None:
            if "num_heads" in parameters(mechanism.layer):
                given = {"num_heads": num_heads, **given}
            layer = mechanism.layer(
                **{"dtype": self.dtype, **mechanism.arguments, **given}
            )
            return self._gated(layer)(x)
        arguments = {
            "num_heads": num_heads,
            "spectral_norm": True,
            "iterate_at_inference": self.official,
            "kernel_initializer": fresh(self.kernel_initializer),
            "dtype": self.dtype,
            "name": "attention",
        }
        if self.official and "alignment" in parameters(mechanism.block):
            arguments["alignment"] = "tiled"
        return mechanism.block(**{**arguments, **given})(x)

    def _gated(self, layer):
        return GatedAttention(layer, dtype=self.dtype, name="attention")

    def _wrap(self, layer, name):
        return SpectralNormalization(
            layer,
            only_shrink=self.official,
            iterate_at_inference=self.official,
            name=name,
        )


def check_arguments(image_size, table, width, num_classes, attention):
    """Width and number of classes; a ValueError for what neither takes."""
    if image_size not in table:
        raise ValueError(
            f"image_size must be one of {sorted(table)}. "
            f"Received: image_size={image_size!r}"
        )
    width = check_positive(width=width)
    num_classes = check_positive_or_none(num_classes=num_classes)
    if attention is not None:
        resolve(attention, block=True)
    return width, num_classes


def attention_place(attention, attention_size, image_size, sizes):
    """The index of the block after which to attend; None for no attention.

    Args:
        sizes: the side of the map that each block returns.
    """
    if attention is None:
        return None
    if attention_size is None:
        attention_size = 32 if image_size > 32 else 16
    if attention_size not in sizes:
        raise ValueError(
            f"attention_size must be one of {sorted(set(sizes))}. "
            f"Received: attention_size={attention_size!r}"
        )
    return sizes.index(attention_size)
