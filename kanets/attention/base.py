"""What the layers of attention share: their arguments and how they are called.

`AttentionLayer` has the contract of all of them, `GridAttention` the learned
maps of those that work on any grid.
"""

import warnings

import keras

from kanets.attention.checks import (
    check_divides,
    check_position,
    check_positive,
    check_positive_or_none,
    check_scale,
)
from kanets.attention.core import check_heads, wide_of
from kanets.attention.grid import check_mask_shape, grid_axes
from kanets.attention.implementations import check

MAP_NAMES = {"q": "query", "k": "key", "v": "value", "o": "output"}


class AttentionLayer(keras.layers.Layer):
    """Attention of the cells of a grid to each other.

    A mechanism overrides `attend`, `check_inputs`, and `attention_maps` or,
    where its scores are (B, N, queries, keys), `_token_counts` and `_maps_at`.

    Args:
        num_heads: N.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D), or a
            number.
        implementation: deprecated, see `kanets.attention.implementation`;
            it is not saved.

    Call arguments:
        query: float tensor (B, *grid, C).
        key, value, key_mask: for attention to something else, which none of
            these layers has: None.
        mask: optional bool tensor (B, *grid), True where valid.
        training: as in Keras.
        return_attention_scores: also return the weights, (B, N, queries,
            keys) in float32.

    Returns:
        Tensor (B, *grid, C), and the weights on request.
    """

    implementations = ("auto", "xla")
    # Whether a branch of a net that was trained without it normalises first.
    wants_norm = True
    # Arguments of this class that a mechanism has no use for, and refuses.
    untaken = ()

    def __init__(
        self, num_heads=1, scale=None, implementation="auto", **kwargs
    ):
        super().__init__(**kwargs)
        self.num_heads = check_positive(num_heads=num_heads)
        check_scale(scale)
        check(implementation, self.implementations)
        if implementation != "auto":
            warnings.warn(
                "A layer's argument implementation is deprecated, and is not "
                "saved with it. Choose where it runs: with "
                f"kanets.attention.implementation({implementation!r}).",
                DeprecationWarning,
                stacklevel=3,
            )
        self.scale = scale
        self.implementation = implementation

    def __call__(self, *arguments, inputs=None, **named):
        if inputs is not None:  # as earlier versions called the query
            warnings.warn(
                "The argument inputs is query now: layer(x), or "
                "layer(query=x).",
                DeprecationWarning,
                stacklevel=2,
            )
            arguments = (inputs, *arguments)
        return super().__call__(*arguments, **named)

    def call(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        key_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        mask = _self_attention_mask(key, value, mask, key_mask)
        if isinstance(query, keras.KerasTensor):
            return self._spec(query, mask, return_attention_scores)
        return self.attend(query, mask, training, return_attention_scores)

    def compute_output_spec(self, *arguments, **named):
        return self.call(*arguments, **named)

    def _spec(self, query, mask, return_attention_scores):
        # A symbolic call runs no operator, which would find the errors.
        self.check_inputs(query, mask)
        shape = self.compute_output_shape(query.shape)
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return output
        _, scores = self.compute_output_shape(query.shape, True)
        return output, keras.KerasTensor(
            scores, dtype=wide_of(self.compute_dtype)
        )

    def compute_output_shape(self, input_shape, return_attention_scores=False):
        output = tuple(input_shape)
        if not return_attention_scores:
            return output
        queries, keys = self._token_counts(output[1:-1])
        return output, (output[0], self.num_heads, queries, keys)

    def check_inputs(self, inputs, mask=None):
        """Raises what a call would raise; the inputs may be symbolic.

        A mask, for example, where the mechanism does not say otherwise.
        """
        if mask is not None:
            raise ValueError(
                f"{type(self).__name__} takes no mask. "
                f"Received: mask.shape={tuple(mask.shape)}"
            )

    def start_at_zero(self):
        """Lets the last learned map start at zero, and the output with it.

        To be called before the layer is built. What the layer then learns
        first is that map: its gradient is not zero.

        Returns:
            Whether the output starts at zero: False where no learned map
            comes last, and for a layer that is built.
        """
        return False

    def attention_maps(self, inputs, position):
        """How much each cell of a picture counts for the output at one cell.

        Args:
            inputs: float tensor (B, H, W, C).
            position: (row, column) of a cell of the H x W grid.

        Returns:
            NumPy array (B, N, H, W), of sum 1 over each grid.

        Raises:
            ValueError: an input that is no picture, a position outside of
                the grid.

        Cost: one call of the layer.
        """
        grid = check_picture(inputs, position)
        _, scores = self(inputs, return_attention_scores=True)
        scores = keras.ops.convert_to_numpy(scores)
        return self._maps_at(scores, position, grid)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "scale": self.scale,
        }

    @classmethod
    def from_config(cls, config):
        # Saved by earlier versions; what runs is chosen where it runs.
        config = {k: v for k, v in config.items() if k != "implementation"}
        return super().from_config(config)


class GridAttention(AttentionLayer):
    """Up to four linear maps around one operator, the method `operator`.

    Args:
        num_heads: N, a divisor of the channels, but with `key_dim`.
        projections: which of q, k, v, o are learned C -> C maps; the others
            are identities.
        key_dim: D, the size of a head, with all four maps: q, k, v are then
            C -> N·D and o is N·D -> C. None is C / N.
        use_bias: whether the maps have a bias.
        kernel_initializer, kernel_regularizer: of the maps.
        output_initializer: of the kernel of the last map, o or, without it,
            v, in place of `kernel_initializer`; or None.
        scale, implementation: as in `AttentionLayer`.
    """

    map_names = MAP_NAMES

    def __init__(
        self,
        num_heads=1,
        projections="v",
        key_dim=None,
        scale=None,
        use_bias=False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(num_heads, scale, **kwargs)
        letters = "".join(self.map_names)
        if (
            not isinstance(projections, str)
            or set(projections) - set(letters)
            or len(set(projections)) != len(projections)
        ):
            raise ValueError(
                f'projections must be letters of "{letters}", each once at '
                f"most. Received: projections={projections!r}"
            )
        self.key_dim = check_positive_or_none(key_dim=key_dim)
        if key_dim is not None and set(projections) != set(letters):
            raise ValueError(
                f'key_dim is of layers with projections="{letters}". '
                f"Received: key_dim={key_dim} with projections={projections!r}"
            )
        self.projections = projections
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.supports_masking = True
        self._maps = {}

    def build(self, input_shape):
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, *grid, channels) with known "
                f"channels. Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        if self.key_dim is None:
            check_divides(self.num_heads, channels)
        for letter in self.map_names:
            if letter in self.projections:
                self._maps.update(self._new_maps(letter, input_shape))
        if self._maps:
            self.input_spec = keras.layers.InputSpec(
                min_ndim=3, axes={-1: channels}
            )
        self.built = True

    @property
    def learned_maps(self):
        """A dictionary of q, k, v and o, `Dense` layers, by their names."""
        return dict(self._maps)

    def _new_maps(self, letter, input_shape):
        """The learned maps of a letter, built, by their names."""
        name, is_last = self.map_names[letter], letter == self._last_map()
        return {name: self._new_map(letter, name, input_shape[-1], is_last)}

    def _width(self, letter, channels):
        """How many channels q, k and v have, and o is of."""
        if self.key_dim is None:
            return channels
        return self.num_heads * self.key_dim

    def _new_map(self, letter, name, channels, is_last):
        width = self._width(letter, channels)
        initializer = self.kernel_initializer
        if is_last and self.output_initializer is not None:
            initializer = self.output_initializer
        linear = keras.layers.Dense(
            channels if letter == "o" else width,
            use_bias=self.use_bias,
            kernel_initializer=fresh(initializer),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )
        linear.build((None, width if letter == "o" else channels))
        return linear

    def attend(self, inputs, mask, training, return_attention_scores):
        return self.operator(
            inputs,
            num_heads=self.num_heads,
            scale=self.scale,
            mask=mask,
            return_attention_scores=return_attention_scores,
            **self._maps,
        )

    def start_at_zero(self):
        if self.built or self._last_map() is None:
            return False
        self.output_initializer = keras.initializers.Zeros()
        return True

    def _last_map(self):
        """The letter of the map after which all is linear, or None."""
        return next((m for m in "ov" if m in self.projections), None)

    def check_inputs(self, inputs, mask=None):
        grid_axes(inputs)
        if self.key_dim is None:
            check_heads(inputs.shape[-1], inputs.shape[-1], self.num_heads)
        if mask is not None:
            check_mask_shape(mask, inputs)

    def get_config(self):
        return {
            **super().get_config(),
            "projections": self.projections,
            "key_dim": self.key_dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "output_initializer": keras.initializers.serialize(
                self.output_initializer
            ),
        }


def fresh(initializer):
    """A copy, so that two kernels of a shape do not start equal.

    Args:
        initializer: what `keras.initializers.get` returns: an
            `Initializer`, or a function (shape, dtype) -> tensor, which has
            no state and is returned as it is.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    return initializer.clone()


def check_picture(inputs, position):
    """(H, W) of a picture (B, H, W, C) with a cell at `position`, or raises."""
    if len(inputs.shape) != 4:
        raise ValueError(
            "inputs must be (batch, height, width, channels). "
            f"Received: inputs.shape={tuple(inputs.shape)}"
        )
    grid = tuple(inputs.shape[1:3])
    check_position(position, grid)
    return grid


def _self_attention_mask(key, value, mask, key_mask):
    """The mask; refuses what a grid that attends to itself has no use for."""
    dtype = getattr(key, "dtype", None)
    if mask is None and dtype is not None:
        if keras.backend.standardize_dtype(dtype) == "bool":
            warnings.warn(
                "A mask is given by its name now: mask=...",
                DeprecationWarning,
                stacklevel=2,
            )
            key, mask = None, key
    for name, given in (
        ("key", key),
        ("value", value),
        ("key_mask", key_mask),
    ):
        if given is not None:
            raise ValueError(
                "The cells of a grid attend to each other here: there is a "
                f"query alone, and its mask. Received: {name}, "
                f"{type(given).__name__}"
            )
    return mask
