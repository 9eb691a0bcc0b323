"""What the layers of attention share that work on pictures alone."""

import keras

from kanets import compat
from kanets.attention.base import AttentionLayer, fresh
from kanets.attention.grid import cells

EPSILON = 1e-5  # of norms, as in PyTorch's nets


class PictureAttention(AttentionLayer):
    """Attention within pictures (B, H, W, C), of any size, without masks.

    A mechanism overrides `attend`, `build_maps`, and `_token_counts` and
    `_maps_at` where its keys are not the cells.

    Args:
        num_heads, scale: as in `AttentionLayer`.
    """

    output_channels = None  # of the output, where they are not the input's

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, height, width, channels) with "
                f"known channels. Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        self.build_maps(channels)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        compat.freeze_within(self)
        self.built = True

    def new_layer(self, kind, channels, name, **arguments):
        """A layer within, built for maps (B, H, W, channels)."""
        layer = kind(dtype=self.dtype_policy, name=name, **arguments)
        layer.build((None, None, None, channels))
        return layer

    def new_map(self, channels, filters, name, use_bias=False, **arguments):
        """A map of channels, a 1x1 convolution, built."""
        return self.new_layer(
            keras.layers.Conv2D,
            channels,
            name,
            filters=filters,
            kernel_size=1,
            data_format="channels_last",
            use_bias=use_bias,
            **arguments,
        )

    def new_normed_map(self, name, channels, filters, gamma_initializer="ones"):
        """A map of channels and its batch normalisation, for `normed`."""
        linear = self.new_map(channels, filters, name)
        norm = self.new_layer(
            keras.layers.BatchNormalization,
            filters,
            f"{name}_norm",
            epsilon=EPSILON,
            gamma_initializer=gamma_initializer,
        )
        return linear, norm

    def compute_output_shape(self, input_shape, return_attention_scores=False):
        output = tuple(input_shape)
        if self.output_channels is not None:
            output = (*output[:-1], self.output_channels)
        if not return_attention_scores:
            return output
        return output, super().compute_output_shape(input_shape, True)[1]

    def check_inputs(self, inputs, mask=None):
        super().check_inputs(inputs, mask)
        if len(inputs.shape) != 4:
            raise ValueError(
                "inputs must be (batch, height, width, channels). "
                f"Received: inputs.shape={tuple(inputs.shape)}"
            )

    def _token_counts(self, grid):
        return cells(grid), cells(grid)

    def _maps_at(self, scores, cell, grid):
        keys = scores[:, :, cell[0] * grid[1] + cell[1]]
        return keys.reshape(*keys.shape[:2], *grid)


class NormedAttention(PictureAttention):
    """Attention that ends in a batch normalisation.

    Args:
        num_heads, scale: as in `AttentionLayer`.
        gamma_initializer: of the batch normalisation's scale; "zeros" lets
            the output start at zero.
    """

    def __init__(
        self, num_heads=1, scale=None, gamma_initializer="ones", **kwargs
    ):
        super().__init__(num_heads, scale, **kwargs)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def start_at_zero(self):
        if self.built:
            return False
        self.gamma_initializer = keras.initializers.Zeros()
        return True

    def get_config(self):
        return {
            **super().get_config(),
            "gamma_initializer": keras.initializers.serialize(
                self.gamma_initializer
            ),
        }


class MappedAttention(PictureAttention):
    """Attention between maps of channels, the last of them called "output".

    Args:
        num_heads, scale: as in `AttentionLayer`.
        use_bias: whether the maps have a bias.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of the last map; None is
            `kernel_initializer`.
    """

    def __init__(
        self,
        num_heads=1,
        scale=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(num_heads, scale, **kwargs)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def linear_map(self, name, channels, filters, use_bias=None):
        """A map with the initializer of its name, built."""
        initializer = self.kernel_initializer
        if name == "output" and self.output_initializer is not None:
            initializer = self.output_initializer
        return self.new_map(
            channels,
            filters,
            name,
            self.use_bias if use_bias is None else use_bias,
            kernel_initializer=fresh(initializer),
        )

    def start_at_zero(self):
        if self.built:
            return False
        self.output_initializer = keras.initializers.Zeros()
        return True

    def get_config(self):
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "output_initializer": keras.initializers.serialize(
                self.output_initializer
            ),
        }


def normed(layers, x, training):
    """What a map and its batch normalisation make of x."""
    linear, norm = layers
    return norm(linear(x), training=training)
