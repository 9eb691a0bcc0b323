"""Learned positions of a grid of patches, which follow its size.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1;
section 3.2 resizes the positions for pictures of another size.
"""

import keras
from keras import ops

from kanets.attention.checks import check_positive
from kanets.layers.resize_like import ResizeLike


@keras.saving.register_keras_serializable(package="kanets")
class PositionEmbeddings(keras.layers.Layer):
    """Adds a learned vector to every cell of a grid, whatever its size.

        Y[i, j] = X[i, j] + P[i, j]

    P has the size `grid`; for another it is resized bilinearly (half-pixel
    centres, as `ResizeLike`) at each call. Where weights of another `grid` are
    loaded, they are resized once.

    Args:
        grid: (h, w) of P.
        class_token: whether to make tokens of the cells, row by row, behind
            one more, which is learned and the same for all pictures. Its
            position is part of it.

    Call arguments:
        maps: float tensor (B, H, W, C); H and W may be None.

    Returns:
        Tensor (B, H, W, C), with `class_token` (B, 1 + H·W, C), in the
        compute dtype. Positions are resized in float32.

    Raises:
        ValueError: a `grid` that is not two positive integers; an input that
            is not of rank 4.

    Cost: one pass over X, and where P is resized that of `ResizeLike`.

    Example:

    >>> layer = PositionEmbeddings((4, 6), class_token=True)
    >>> layer(keras.ops.ones((2, 4, 6, 8))).shape
    (2, 25, 8)
    >>> layer(keras.ops.ones((2, 5, 5, 8))).shape
    (2, 26, 8)
    """

    def __init__(self, grid, class_token=False, **kwargs):
        super().__init__(**kwargs)
        self.grid = _checked(grid)
        self.class_token = class_token
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._resize = ResizeLike(dtype="float32", name="resize")

    def build(self, input_shape):
        channels = input_shape[-1]
        # In half precision, too, they are resized before they are rounded.
        self.positions = self.add_weight(
            shape=(1, *self.grid, channels),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            autocast=False,
            name="positions",
        )
        if self.class_token:
            self.token = self.add_weight(
                shape=(1, 1, channels),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name="class_token",
            )
        self.built = True

    def call(self, maps):
        positions = self.positions
        if tuple(maps.shape[1:3]) != self.grid:
            positions = self._resize([positions, maps])
        maps = maps + ops.cast(positions, maps.dtype)
        if not self.class_token:
            return maps
        _, height, width, channels = ops.shape(maps)
        cells = ops.reshape(maps, (-1, height * width, channels))
        token = ops.cast(self.token, cells.dtype)
        token = ops.broadcast_to(token, (ops.shape(cells)[0], 1, channels))
        return ops.concatenate([token, cells], axis=1)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        if not self.class_token:
            return tuple(input_shape)
        known = None not in (height, width)
        return (batch, 1 + height * width if known else None, channels)

    def resized(self, values):
        """Weights of a layer of another grid, as this one has them.

        Args:
            values: arrays in the order of `weights`.

        Returns:
            A list of arrays; what does not fit is as it was.
        """
        values = list(values)
        if values and len(values[0].shape) == 4:
            shape = tuple(values[0].shape)
            if shape[1:3] != self.grid:
                size = ops.zeros((1, *self.grid, 1))
                positions = ops.convert_to_tensor(values[0], "float32")
                resized = self._resize([positions, size])
                values[0] = ops.convert_to_numpy(resized)
        return values

    def load_own_variables(self, store):
        values = [store[key] for key in sorted(store.keys())]
        values = self.resized(values)
        super().load_own_variables({str(i): v for i, v in enumerate(values)})

    def get_config(self):
        return {
            **super().get_config(),
            "grid": list(self.grid),
            "class_token": self.class_token,
        }


def _checked(grid):
    try:
        height, width = grid
    except (TypeError, ValueError):
        raise ValueError(
            f"grid must be (height, width). Received: grid={grid!r}"
        ) from None
    return tuple(check_positive(**{"grid[0]": height, "grid[1]": width}))
