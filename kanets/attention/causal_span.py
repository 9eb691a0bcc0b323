"""Adaptive spans along a sequence, with the segments before it.

Sukhbaatar et al., "Adaptive Attention Span in Transformers", ACL 2019, as
published: a position attends to those before it, within the span of a head,
with Shaw's relative positions; a long text comes in segments, and what an
earlier segment left is kept, as in Dai et al., "Transformer-XL", ACL 2019.

Letters: B batch, T positions of a segment, P of what came before, C channels,
N heads, L greatest span.
"""

import keras
from keras import ops

from kanets.attention.adaptive_span import AdaptiveSpanAttention
from kanets.attention.checks import check_bool, check_positive
from kanets.attention.grid import check_mask_shape


@keras.saving.register_keras_serializable(package="kanets")
class CausalSpanAttention(AdaptiveSpanAttention):
    """Attention of a sequence to what came before, as far as a head learns.

    With x = 0 for the nearest position that is seen, a key counts
    m_z(x) = clip((R + z L - x) / R, 0, 1), and logits are those of
    `AdaptiveSpanAttention`: q (k + a), a of L offsets.

    The authors' code fills what came before a text with zeros, which are
    attended to; here there is nothing, and the first position, which sees
    nothing without its own, gets zeros.

    Args:
        max_span: L, how many positions are seen at most.
        ramp: R, how many positions the mask takes from 1 to 0.
        sees_itself: whether a position sees its own; not in the paper's code.
        span_penalty: loss of a position of span, averaged over the heads.
        span, initial_span, num_heads, projections, key_dim, scale, use_bias,
            kernel_initializer, kernel_regularizer, output_initializer: as in
            `AdaptiveSpanAttention`.

    Call arguments:
        query: float tensor (B, T, C).
        key: None, or (B, P + T, C): what came before, then the query again,
            of which keys and values are made (`SegmentMemory`).
        value: None.
        mask: optional bool (B, T), True where valid.
        key_mask: optional bool (B, P + T), True where there is something; by
            default all that came before, and the mask.
        return_attention_scores: also return the weights (B, N, T, P + T) in
            float32; rows that see nothing are zero.

    Returns:
        Tensor (B, T, C), and the weights on request.

    Raises:
        ValueError: a query that is no sequence, a key that is shorter than
            it, a value, or as in `AdaptiveSpanAttention`.

    Cost: O(T r C) time and, times N / C, memory, where r is L, or z L + R of
    the largest z where that is known, at most P + T.

    Example:

    >>> layer = CausalSpanAttention(max_span=64, ramp=16, num_heads=4)
    >>> x = keras.random.normal((2, 40, 32))
    >>> layer(x[:, 20:], key=x).shape
    (2, 20, 32)

    References: Sukhbaatar et al., ACL 2019; Dai et al., ACL 2019, section
    3.2; Shaw et al., NAACL 2018.
    """

    _causal = True

    def __init__(
        self,
        max_span=256,
        ramp=32,
        sees_itself=False,
        span_penalty=2e-6,
        projections="qkvo",
        scale="rsqrt",
        **kwargs,
    ):
        super().__init__(
            max_span,
            ramp,
            span_penalty=span_penalty,
            projections=projections,
            scale=scale,
            **kwargs,
        )
        self.sees_itself = check_bool(sees_itself=sees_itself)

    def build(self, query_shape):
        _check_sequence("query", query_shape)
        super().build(query_shape)

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
        self._check_context(query, key, value, mask, key_mask)
        if isinstance(query, keras.KerasTensor):
            spec = self._spec(query, mask, return_attention_scores)
            if not return_attention_scores or key is None:
                return spec
            batch, heads, queries, _ = spec[1].shape
            shape = (batch, heads, queries, key.shape[1])
            return spec[0], keras.KerasTensor(shape, dtype=spec[1].dtype)
        if key is not None and mask is not None and key_mask is None:
            past = ops.shape(key)[1] - ops.shape(query)[1]
            before = ops.ones((ops.shape(query)[0], past), "bool")
            mask = ops.cast(mask, "bool")
            key_mask = ops.concatenate([before, mask], axis=1)
        return self.attend(
            query,
            mask,
            training,
            return_attention_scores,
            causal=self._offsets()[1],
            context=query if key is None else key,
            context_mask=mask if key_mask is None else key_mask,
        )

    def _check_context(self, query, key, value, mask, key_mask):
        _check_sequence("query", query.shape)
        if value is not None:
            raise ValueError(
                "Keys and values are made of the same, key. Received: value, "
                f"{type(value).__name__}"
            )
        if key is not None:
            _check_sequence("key", key.shape)
            sizes = query.shape[1], key.shape[1]
            if None not in sizes and sizes[1] < sizes[0]:
                raise ValueError(
                    "key must hold what came before and then the query. "
                    f"Received: query.shape={tuple(query.shape)}, "
                    f"key.shape={tuple(key.shape)}"
                )
        self.check_inputs(query, mask)
        if key_mask is not None:
            check_mask_shape(key_mask, query if key is None else key)

    def _offsets(self):
        high = 0 if self.sees_itself else -1
        return high - self.max_span + 1, high

    def get_config(self):
        return {**super().get_config(), "sees_itself": self.sees_itself}


@keras.saving.register_keras_serializable(package="kanets")
class SegmentMemory(keras.layers.Layer):
    """Puts what came before in front of a segment, and keeps what follows.

    Each row of a batch is a text of its own that goes on from call to call,
    in training and in inference, so that batches come in order. Gradients
    stay in the segment.

    Args:
        size: P, how many positions are kept; the `max_span` of what attends
            is enough.

    Call arguments:
        inputs: float tensor (B, T, C), B and C known.

    Returns:
        Tensor (B, P + T, C) and a mask, bool (B, P + T), True where there is
        something: `key` and `key_mask` of `CausalSpanAttention`.

    Raises:
        ValueError: `size` below 1; an input of unknown batch or channels, or
            of another batch than that of before.

    Example:

    >>> x = keras.Input((32, 64), batch_size=8)
    >>> key, key_mask = SegmentMemory(256)(x)
    >>> y = CausalSpanAttention(256)(x, key=key, key_mask=key_mask)
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = check_positive(size=size)

    def build(self, input_shape):
        _check_sequence("inputs", input_shape)
        batch, _, channels = input_shape
        if batch is None or channels is None:
            raise ValueError(
                "A memory is of a known batch and known channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.memory = self.add_weight(
            shape=(batch, self.size, channels),
            initializer="zeros",
            trainable=False,
            name="memory",
        )
        self.filled = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            name="filled",
        )
        self.built = True

    def call(self, inputs):
        if inputs.shape[0] not in (None, self.memory.shape[0]):
            raise ValueError(
                "A memory is of one batch; of data sets, drop_remainder=True "
                "leaves out a smaller last one. Received: inputs of batch "
                f"{inputs.shape[0]}, memory of batch {self.memory.shape[0]}"
            )
        memory = ops.cast(self.memory, inputs.dtype)
        keys = ops.concatenate([memory, inputs], axis=1)
        batch, length, _ = ops.shape(keys)
        filled = ops.convert_to_tensor(self.filled)
        there = ops.arange(length, dtype="int32") >= self.size - filled
        there = ops.broadcast_to(there[None], (batch, length))
        kept = ops.stop_gradient(keys[:, -self.size :])
        self.memory.assign(ops.cast(kept, self.memory.dtype))
        filled = filled + ops.shape(inputs)[1]
        self.filled.assign(ops.minimum(filled, self.size))
        return keys, there

    def compute_output_spec(self, inputs):
        batch, length, channels = inputs.shape
        if length is not None:
            length += self.size
        return (
            keras.KerasTensor(
                (batch, length, channels), dtype=self.compute_dtype
            ),
            keras.KerasTensor((batch, length), dtype="bool"),
        )

    def reset_state(self):
        """Forgets: new texts begin."""
        for variable in (self.memory, self.filled):
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def _check_sequence(name, shape):
    if len(shape) != 3:
        raise ValueError(
            f"{name} must be (batch, positions, channels). "
            f"Received: {name}.shape={tuple(shape)}"
        )
