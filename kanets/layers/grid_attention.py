"""Layers that attend over the cells of a grid: projections, one operator.

`KroneckerAttention` (KDD 2020) attends over the means of rows and columns;
`DenseAttention` over all positions, the yardstick it is measured against.
Both own up to four linear maps and call one function of `kanets.ops`.
"""

import keras

from kanets import ops
from ylg.layers.initializers import fresh
from ylg.ops.attention import check_implementation
from ylg.ops.scale import check_scale

_MAP_NAMES = {"q": "query", "k": "key", "v": "value", "o": "output"}
_OPERATORS = {"kv": ops.kao_kv, "qkv": ops.kao_qkv}


class _GridAttention(keras.layers.Layer):
    """Projections around an operator of `kanets.ops`, given by `operator`."""

    def __init__(
        self,
        num_heads=1,
        projections="v",
        scale=None,
        use_bias=False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(num_heads, int) or num_heads < 1:
            raise ValueError(
                "num_heads must be a positive integer. "
                f"Received: num_heads={num_heads!r}"
            )
        if (
            not isinstance(projections, str)
            or set(projections) - set(_MAP_NAMES)
            or len(set(projections)) != len(projections)
        ):
            raise ValueError(
                'projections must be letters of "qkvo", each once at most. '
                f"Received: projections={projections!r}"
            )
        check_scale(scale)
        self.num_heads = num_heads
        self.projections = projections
        self.scale = scale
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True
        self._maps = {}

    def build(self, input_shape):
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                "The input must be (batch, *grid, channels) with known "
                f"channels. Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise ValueError(
                "num_heads must divide the channels. Received: "
                f"num_heads={self.num_heads}, channels={channels}"
            )
        for letter, name in _MAP_NAMES.items():
            if letter in self.projections:
                linear = keras.layers.Dense(
                    channels,
                    use_bias=self.use_bias,
                    kernel_initializer=fresh(self.kernel_initializer),
                    kernel_regularizer=self.kernel_regularizer,
                    dtype=self.dtype_policy,
                    name=name,
                )
                linear.build((None, channels))
                self._maps[name] = linear
        if self._maps:
            self.input_spec = keras.layers.InputSpec(
                min_ndim=3, axes={-1: channels}
            )
        self.built = True

    def call(self, inputs, mask=None, return_attention_scores=False):
        return self.operator(
            inputs,
            num_heads=self.num_heads,
            scale=self.scale,
            mask=mask,
            return_attention_scores=return_attention_scores,
            **self._maps,
            **self._choices(),
        )

    def _choices(self):
        """Arguments of the operator and of its checks that a class adds."""
        return {}

    def compute_output_shape(self, input_shape, return_attention_scores=False):
        output = tuple(input_shape)
        if not return_attention_scores:
            return output
        queries, keys = self._token_counts(output[1:-1])
        return output, (output[0], self.num_heads, queries, keys)

    def compute_output_spec(
        self, inputs, mask=None, return_attention_scores=False
    ):
        # A symbolic call runs no operator, which would find the errors.
        ops.check_inputs(inputs, self.num_heads, mask, **self._choices())
        output = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return output
        _, scores = self.compute_output_shape(inputs.shape, True)
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        return output, keras.KerasTensor(scores, dtype=wide)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "projections": self.projections,
            "scale": self.scale,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
        }


@keras.saving.register_keras_serializable(package="kanets")
class KroneckerAttention(_GridAttention):
    """Attention over the means of a grid's rows and columns.

    With C̄ the H + W means of rows and columns of X:

        "kv"   Y = o(Attn(q(X), k(C̄), v(C̄)))
        "qkv"  O = o(Attn(q(C̄), k(C̄), v(C̄))),  Y[i, j] = O_L[i] + O_H[j]

    The same for sequences (B, T, C) and video (B, T, H, W, C).

    Args:
        mode: "kv" or "qkv".
        implementation: "auto", "xla" or "pallas", as in
            `kanets.ops.kao_kv`. A layer with "pallas" runs on JAX alone.
        num_heads: N, a divisor of the channels.
        projections: which of q, k, v, o are learned C -> C maps: "" is the
            bare operator, "v" the paper's choice in compact modules, "qkvo"
            the full layer. The others are identities.
        scale: factor of the logits: None is none, as in the paper; "rsqrt"
            is 1/sqrt(C/N); or a number.
        use_bias: whether the maps have a bias. In "qkv" mode the bias of
            `o` enters once per grid axis, as that map is applied before the
            outer sum, where it is cheap.
        kernel_initializer, kernel_regularizer: of the maps.

    Call arguments:
        inputs: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, *grid, C), and on request the weights in float32:
        (B, N, H·W, H + W) for "kv", (B, N, H + W, H + W) for "qkv".
        Softmax and means run in float32 in every precision.

    Raises:
        ValueError: unknown `mode`, `implementation`, `projections` or
            `scale`; channels that are unknown or not divided by `num_heads`;
            "pallas" with another backend than JAX, a mask or no picture.

    Cost: time O(H·W·(H+W)·C) for "kv", O((H+W)²·C) and one pass over X for
    "qkv", against O((H·W)²·C) for dense attention.

    Example:

    >>> layer = KroneckerAttention(mode="qkv", num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020,
    section 3.
    """

    def __init__(self, mode="qkv", implementation="auto", **kwargs):
        super().__init__(**kwargs)
        if mode not in _OPERATORS:
            raise ValueError(
                f'mode must be "kv" or "qkv". Received: mode={mode!r}'
            )
        check_implementation(implementation, ops.IMPLEMENTATIONS)
        self.mode = mode
        self.implementation = implementation

    @property
    def operator(self):
        return _OPERATORS[self.mode]

    def _choices(self):
        return {"implementation": self.implementation}

    def _token_counts(self, grid):
        tokens = None if None in grid else sum(grid)
        return (_cells(grid), tokens) if self.mode == "kv" else (tokens,) * 2

    def get_config(self):
        return {
            **super().get_config(),
            "mode": self.mode,
            "implementation": self.implementation,
        }


@keras.saving.register_keras_serializable(package="kanets")
class DenseAttention(_GridAttention):
    """Attention of every position to every position (or pooled position).

    Y = o(Attn(q(X), k(P), v(P))), where P is X or its average pool.

    Args:
        pool_size: side of the window (and stride) over which keys and values
            are averaged; 1 is no pooling.
        num_heads, projections, scale, use_bias, kernel_initializer,
            kernel_regularizer: as in `KroneckerAttention`.

    Call arguments:
        inputs: float tensor (B, *grid, C).
        mask: optional bool tensor (B, *grid); not together with pooling.
        return_attention_scores: also return the weights
            (B, N, H·W, keys) in float32.

    Returns:
        Tensor (B, *grid, C), and the weights on request.

    Raises:
        ValueError: `pool_size` below 1, or above it for an input that is no
            picture or has a mask; otherwise as in `KroneckerAttention`.

    Cost: O((H·W)²·C / pool_size²) time, O(N·(H·W)² / pool_size²) memory.
    """

    def __init__(self, pool_size=1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(pool_size, int) or pool_size < 1:
            raise ValueError(
                "pool_size must be a positive integer. "
                f"Received: pool_size={pool_size!r}"
            )
        self.pool_size = pool_size

    def build(self, input_shape):
        if self.pool_size > 1 and len(input_shape) != 4:
            raise ValueError(
                "Pooled keys need a picture (B, H, W, C). Received: "
                f"input_shape={tuple(input_shape)}, pool_size={self.pool_size}"
            )
        super().build(input_shape)

    @property
    def operator(self):
        return ops.dense_attention

    def _choices(self):
        return {"pool_size": self.pool_size}

    def _token_counts(self, grid):
        pooled = [n if n is None else -(-n // self.pool_size) for n in grid]
        return _cells(grid), _cells(pooled)

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size}


def _cells(grid):
    if None in grid:
        return None
    cells = 1
    for size in grid:
        cells *= size
    return cells
