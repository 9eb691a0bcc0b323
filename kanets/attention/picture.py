"""What the layers of attention share that work on pictures alone."""

import keras

from kanets.attention.base import AttentionLayer
from kanets.attention.grid import cells


class PictureAttention(AttentionLayer):
    """Attention within pictures (B, H, W, C), of any size, without masks.

    A mechanism overrides `attend`, `build_maps`, and `_token_counts` and
    `_maps_at` where its keys are not the cells.

    Args:
        num_heads, scale: as in `AttentionLayer`.
    """

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, height, width, channels) with "
                f"known channels. Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        self.build_maps(channels)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
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
