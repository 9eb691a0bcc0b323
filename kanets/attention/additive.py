"""Additive attention: the scores of a small network, soft or hard.

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to
Align and Translate", ICLR 2015, and Xu et al., "Show, Attend and Tell", ICML
2015, where what is attended to are the cells of a picture:

    m_i = tanh(c W_c + y_i W_y),   s = softmax over i of w m_i,
    z   = sum of s_i y_i

It is attention of a context c to annotations y and has no place in the table
of mechanisms, whose names stand for a grid's attention to itself: of n cells
that would take n² U numbers of tanh, where U is as large as the channels, in
time and memory.

Letters: B batch, T contexts, C their size, K annotations, Y their size, U
units of the network.
"""

import keras
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import check_positive, check_seed
from kanets.attention.core import masked_softmax, wide_dtype, wide_of
from kanets.attention.grid import zero_padding


def additive_scores(query, key, weights):
    """w tanh(q_t + k_i), in float32.

    Args:
        query: tensor (B, T, U) of any float dtype.
        key: tensor (B, K, U).
        weights: w, tensor (U,).

    Returns:
        Tensor (B, T, K), float32 or wider.

    Cost: O(T K U) time and memory.
    """
    wide = wide_dtype(query, key)
    query, key = ops.cast(query, wide), ops.cast(key, wide)
    hidden = ops.tanh(query[:, :, None] + key[:, None])
    return ops.tensordot(hidden, ops.cast(weights, wide), 1)


@keras.saving.register_keras_serializable(package="kanets")
class AdditiveAttention(keras.layers.Layer):
    """Attention of contexts to annotations by a network of one layer.

    The numbers of `keras.layers.AdditiveAttention`, in the calls of this
    family and with both maps in it. Keras's own is not used, since in half
    precision its softmax is, too, and where nothing is valid it attends to
    padding; here the softmax is in float32, and the output zero.

    Args:
        units: U of tanh.
        hard: if True, training attends to one annotation, drawn with the
            weights as probabilities, and inference to the likeliest.
            Gradients pass as those of the soft output; Xu et al. have
            REINFORCE, an estimate without that bias and of a much larger
            variance, which needs the loss of each draw.
        use_bias: whether the map of the context has a bias.
        seed: int or None, of the draws.
        kernel_initializer: of the maps and of w.

    Call arguments:
        query: float tensor (B, T, C), or (B, C) for one context.
        key: float tensor (B, K, Y).
        value: None for the key, or float tensor (B, K, V).
        mask: optional bool (B, T), T = 1 of one context, True where it is
            valid.
        key_mask: optional bool (B, K), True where an annotation is.
        training: whether hard attention draws.
        return_attention_scores: also return the weights (B, 1, T, K) in
            float32, the probabilities where attention is hard.

    Returns:
        Tensor (B, T, V) or, for one context, (B, V); and the weights on
        request.

    Raises:
        ValueError: `units` below 1; no key; another rank or size.

    Cost: O((T C + K Y + T K) U) time, O(T K U) memory.

    Example:

    >>> layer = AdditiveAttention(units=64)
    >>> layer(keras.random.normal((2, 32)), keras.random.normal((2, 49, 96)))

    References: Bahdanau et al., ICLR 2015, section A.1.2; Xu et al., ICML
    2015, section 4.
    """

    def __init__(
        self,
        units,
        hard=False,
        use_bias=False,
        seed=None,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_positive(units=units)
        self.hard = hard
        self.use_bias = use_bias
        self.seed = check_seed(seed)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        if hard:
            self.generator = keras.random.SeedGenerator(self.seed)

    def build(self, query_shape, key_shape=None):
        self._check_shapes(query_shape, key_shape)
        self.query_map, self.key_map = (
            keras.layers.Dense(
                self.units,
                use_bias=use_bias,
                kernel_initializer=fresh(self.kernel_initializer),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, use_bias in (("query", self.use_bias), ("key", False))
        )
        self.query_map.build((None, query_shape[-1]))
        self.key_map.build((None, key_shape[-1]))
        self.score = self.add_weight(
            shape=(self.units,),
            initializer=fresh(self.kernel_initializer),
            name="score",
        )
        self.built = True

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
        self._check_shapes(query.shape, None if key is None else key.shape)
        is_single = len(query.shape) == 2
        value = key if value is None else value
        query = query[:, None] if is_single else query
        output, weights = self.attend(
            query, self.key_map(key), value, key_mask, training
        )
        output = zero_padding(output, mask)
        if is_single:
            output = output[:, 0]
        return (output, weights[:, None]) if return_attention_scores else output

    def attend(self, query, mapped_key, value, key_mask=None, training=None):
        """The call with keys that are mapped, for many looks at the same.

        Args:
            query: float tensor (B, T, C).
            mapped_key: `layer.key_map(key)`, tensor (B, K, U).
            value, key_mask, training: as of the call.

        Returns:
            Tensor (B, T, V), and the weights (B, T, K) in float32.
        """
        scores = additive_scores(self.query_map(query), mapped_key, self.score)
        if key_mask is not None:
            key_mask = ops.cast(key_mask, "bool")[:, None]
        weights = masked_softmax(scores, key_mask, rows_may_be_empty=True)
        used = weights
        if self.hard:
            used = self._chosen(scores, weights, key_mask, training)
        return ops.matmul(ops.cast(used, value.dtype), value), weights

    def _chosen(self, scores, weights, key_mask, training):
        """1 for one annotation and 0 for others, with the weights' gradient."""
        if training:  # the greatest of the scores and Gumbel noise is a draw
            noise = keras.random.uniform(
                ops.shape(scores), dtype=scores.dtype, seed=self.generator
            )
            tiny = keras.config.epsilon()
            noise = ops.clip(noise, tiny, 1 - tiny)
            scores = scores - ops.log(-ops.log(noise))
        if key_mask is not None:
            scores = ops.where(key_mask, scores, -1e30)
        best = ops.argmax(scores, axis=-1)
        one = ops.one_hot(best, ops.shape(scores)[-1], dtype=weights.dtype)
        if key_mask is not None:
            one = ops.where(key_mask, one, 0.0)
        return weights + ops.stop_gradient(one - weights)

    def compute_output_spec(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        key_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        self._check_shapes(query.shape, None if key is None else key.shape)
        size = (key if value is None else value).shape[-1]
        output = keras.KerasTensor(
            (*query.shape[:-1], size), dtype=self.compute_dtype
        )
        if not return_attention_scores:
            return output
        contexts = query.shape[1] if len(query.shape) == 3 else 1
        shape = (query.shape[0], 1, contexts, key.shape[1])
        return output, keras.KerasTensor(
            shape, dtype=wide_of(self.compute_dtype)
        )

    def _check_shapes(self, query_shape, key_shape):
        if key_shape is None or len(key_shape) != 3 or key_shape[-1] is None:
            raise ValueError(
                "key must be annotations (batch, number, channels) with known "
                f"channels. Received: key of shape {key_shape}"
            )
        if len(query_shape) not in (2, 3) or query_shape[-1] is None:
            raise ValueError(
                "query must be (batch, contexts, channels) or (batch, "
                "channels) with known channels. "
                f"Received: query of shape {tuple(query_shape)}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hard": self.hard,
            "use_bias": self.use_bias,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }
