"""What gates share: a picture times numbers that it gives rise to itself.

A gate chooses no cells for a query to look at: it describes the picture by
means, makes a number of 0 to 1 of them for each channel, row, column or cell,
and multiplies. So it costs next to nothing, and what a cell "sees" is what the
means of its gates are made of.

Letters: B batch, H W grid, C channels, R channels of the description.
"""

from keras import ops

from kanets.attention.core import wide_dtype
from kanets.attention.picture import PictureAttention

EPSILON = 1e-5


class Gate(PictureAttention):
    """A picture (B, H, W, C) times its gates.

    A mechanism overrides `build_maps`, `_gates` and `looks`.

    Args:
        as_branch: whether it stands in a residual branch, X + layer(X). Then
            what comes last before a gate starts at zero, where the gate is
            1/2, and the layer gives what twice the gates change, zero at
            first: Y = X 2G - X in place of Y = X G.
    """

    # What a net adds multiplies its maps as they are.
    wants_norm = False
    untaken = ("num_heads", "scale")

    def __init__(self, as_branch=False, **kwargs):
        for name in self.untaken:
            if name in kwargs:
                raise ValueError(
                    "A gate has no heads, and no scores to scale. "
                    f"Received: {name}={kwargs[name]!r}"
                )
        super().__init__(**kwargs)
        self.as_branch = as_branch

    def gates(self, inputs, training=False):
        """What the picture is multiplied by.

        Args:
            inputs: float tensor (B, H, W, C).
            training: as in a call.

        Returns:
            A tuple of tensors of 0 to 1, each (B, H or 1, W or 1, C or 1), in
            the compute dtype.

        Raises:
            ValueError: what is no picture.
        """
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        self.check_inputs(inputs)
        if not self.built:
            self.build(inputs.shape)
        return self._gates(inputs, training)

    def _gates(self, inputs, training):
        """As `gates`, of a tensor."""
        raise NotImplementedError

    def looks(self, inputs):
        """Shares of the cells in what a cell's gates are made of.

        Returns:
            Tensor (H·W, H·W), or (B, 1, H·W) where they are alike for all
            cells; of sum 1 over the last axis.
        """
        raise NotImplementedError

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        output = self.gated(inputs, training)
        if not return_attention_scores:
            return output
        batch, height, width, _ = ops.shape(inputs)
        shares = ops.cast(self.looks(inputs), wide_dtype(inputs))
        shape = (batch, height * width, height * width)
        return output, ops.broadcast_to(shares, shape)[:, None]

    def gated(self, inputs, training):
        x = inputs
        for gate in self._gates(inputs, training):
            x = x * (2.0 * gate if self.as_branch else gate)
        return x - inputs if self.as_branch else x

    def last(self, initializer):
        """The initializer of what comes last before a gate."""
        return "zeros" if self.as_branch else initializer

    def start_at_zero(self):
        if self.built:
            return False
        self.as_branch = True
        return True

    def get_config(self):
        config = super().get_config()
        for name in self.untaken:
            del config[name]
        return {**config, "as_branch": self.as_branch}


def reduced(channels, reduced_channels=None):
    """R: as given, or a 16th of the channels, and 8 at least."""
    if reduced_channels is None:
        return max(8, channels // 16)
    return reduced_channels


def picture_means(x):
    """Means of the channels: (B, H, W, C) -> (B, 1, 1, C), by float32 sums."""
    means = ops.mean(ops.cast(x, wide_dtype(x)), axis=(1, 2), keepdims=True)
    return ops.cast(means, x.dtype)


def near(size, reach=None):
    """Means of the cells of an axis that are near to each of them.

    Args:
        size: n, of the axis.
        reach: how many cells away they are at most; None is all.

    Returns:
        Tensor (n, n) in float32: shares, of sum 1 over the last axis.
    """
    places = ops.arange(size, dtype="int32")
    distance = ops.abs(places[:, None] - places)
    seen = distance <= (size if reach is None else reach)
    seen = ops.cast(seen, "float32")
    return seen / ops.sum(seen, axis=-1, keepdims=True)


def on_grid(rows, columns):
    """Shares of the cells of a grid, from those of its rows and columns.

    Args:
        rows: tensor (H, H).
        columns: tensor (W, W).

    Returns:
        Tensor (H·W, H·W), the products.
    """
    shares = rows[:, None, :, None] * columns[None, :, None, :]
    cells = ops.shape(rows)[0] * ops.shape(columns)[0]
    return ops.reshape(shares, (cells, cells))
