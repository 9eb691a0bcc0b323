"""What the generator and the discriminator are both made of."""

import keras

from ylg.layers import LocalSparseAttention2D, NonLocalAttention2D
from ylg.layers.initializers import fresh
from ylg.layers.spectral_normalization import SpectralNormalization

ATTENTIONS = ("ylg", "dense", None)


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

    def attention(self, x, kind, num_heads):
        arguments = {
            "num_heads": num_heads,
            "spectral_norm": True,
            "iterate_at_inference": self.official,
            "kernel_initializer": fresh(self.kernel_initializer),
            "dtype": self.dtype,
            "name": "attention",
        }
        if kind == "dense":
            return NonLocalAttention2D(**arguments)(x)
        alignment = "tiled" if self.official else "spatial"
        return LocalSparseAttention2D(alignment=alignment, **arguments)(x)

    def _wrap(self, layer, name):
        return SpectralNormalization(
            layer,
            only_shrink=self.official,
            iterate_at_inference=self.official,
            name=name,
        )


def check_positive(**integers):
    """Raises ValueError where a named value is no integer of 1 or more."""
    from kanets.checks import positive_integer  # late: kanets imports ylg

    for name, value in integers.items():
        positive_integer(name, value)


def check_arguments(image_size, table, width, num_classes, attention):
    """Raises ValueError for what neither network takes."""
    if image_size not in table:
        raise ValueError(
            f"image_size must be one of {sorted(table)}. "
            f"Received: image_size={image_size!r}"
        )
    check_positive(width=width)
    if num_classes is not None:
        check_positive(num_classes=num_classes)
    if attention not in ATTENTIONS:
        raise ValueError(
            f"attention must be one of {ATTENTIONS}. "
            f"Received: attention={attention!r}"
        )


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
