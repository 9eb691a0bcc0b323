"""A recurrent decoder that looks at what it tells of before every word.

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to
Align and Translate", ICLR 2015, where what is looked at is a sentence, and Xu
et al., "Show, Attend and Tell", ICML 2015, where it is a picture:

    h_t = GRU([E y_{t-1}; z_{t-1}], h_{t-1})
    z_t = attention(h_t, memory)
    p(y_t) = softmax(W_o tanh(W_h h_t + W_z z_t + b))

Both papers look with h_{t-1}, a state that has not seen y_{t-1}; here, as in
Luong et al., EMNLP 2015, with the one that has, so that what is looked at when
a word is told is what this word is about.

Letters: B batch, T words, K cells of the memory, Y their size, U units, V
words there are.
"""

import keras
from keras import ops

from kanets.attention.additive import AdditiveAttention
from kanets.attention.checks import check_positive, check_seed
from kanets.attention.grid import check_mask_shape
from kanets.checks import as_integer
from kanets.layers.beam_search import beam_search


@keras.saving.register_keras_serializable(package="kanets")
class AttentionDecoder(keras.layers.Layer):
    """Tells words one by one, each after a look at a memory.

    The first state is a map of the memory's mean, with tanh, and the first
    context the mean itself. Steps are unrolled, so that the number of words is
    static; the number of cells need not be.

    Args:
        vocabulary_size: V. Token 0 is padding.
        units: U, of the state, the embedding of words and the attention.
        hard: whether attention is hard: see `AdditiveAttention`.
        dropout_rate: before the last map.
        seed: int or None, of draws and dropout.

    Call arguments:
        tokens: int tensor (B, T), the words before the ones to tell: a start,
            and all but the last of what is to be told ("teacher forcing").
        memory: float tensor (B, K, Y).
        memory_mask: optional bool (B, K), True where there is something; a
            mask that comes with the memory, as of `Embedding`, is used.
        training: whether hard attention draws, and dropout drops.
        return_attention_scores: also return where each word looked, float32
            (B, T, K).

    Returns:
        Logits, float32 (B, T, V), and the weights on request.

    Raises:
        ValueError: a size that is no positive integer; tokens or a memory of
            another rank, of unknown T or Y; a memory or a mask of another B,
            a mask of another K.

    Cost: O(K Y U + T (K U + (U + Y) U + U V)) multiply-adds an example.

    Example:

    >>> decoder = AttentionDecoder(vocabulary_size=30, units=64)
    >>> tokens = keras.ops.ones((2, 5), "int32")
    >>> decoder(tokens, keras.random.normal((2, 49, 96))).shape
    (2, 5, 30)

    References: Bahdanau et al., ICLR 2015, section A.2; Xu et al., ICML 2015,
    section 3.1.2; Luong et al., EMNLP 2015, section 3.3.
    """

    def __init__(
        self,
        vocabulary_size,
        units=256,
        hard=False,
        dropout_rate=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        vocabulary_size, units = check_positive(
            vocabulary_size=vocabulary_size, units=units
        )
        self.vocabulary_size = vocabulary_size
        self.units = units
        self.hard = hard
        self.dropout_rate = dropout_rate
        self.seed = seed = check_seed(seed)
        self.supports_masking = True
        layers, policy = keras.layers, {"dtype": self.dtype_policy}
        self.embedding = layers.Embedding(
            vocabulary_size, units, name="embedding", **policy
        )
        self.first = layers.Dense(units, "tanh", name="first", **policy)
        self.cell = layers.GRUCell(units, name="cell", **policy)
        self.attention = AdditiveAttention(
            units,
            hard=hard,
            use_bias=True,
            seed=seed,
            name="attention",
            **policy,
        )
        self.hidden = layers.Dense(units, "tanh", name="hidden", **policy)
        self.dropout = layers.Dropout(
            dropout_rate, seed=seed, name="dropout", **policy
        )
        self.logits = layers.Dense(
            vocabulary_size, dtype="float32", name="logits"
        )

    def build(self, tokens_shape, memory_shape):
        _check_shapes(tokens_shape, memory_shape)
        size = memory_shape[-1]
        self.embedding.build(tokens_shape)
        self.first.build((None, size))
        self.cell.build((None, self.units + size))
        self.attention.build((None, self.units), memory_shape)
        self.hidden.build((None, None, self.units + size))
        self.logits.build((None, None, self.units))
        self.built = True

    def call(
        self,
        tokens,
        memory,
        memory_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        _check_shapes(tokens.shape, memory.shape)
        _check_mask(memory_mask, memory)
        embedded = self.embedding(tokens)
        keys = self.attention.key_map(memory)
        state = self._first_state(memory, memory_mask)
        told, looks = [], []
        for position in range(tokens.shape[1]):
            state, weights = self._step(
                embedded[:, position],
                state,
                keys,
                memory,
                memory_mask,
                training,
            )
            told.append(ops.concatenate(state, axis=-1))
            looks.append(weights)
        logits = self._logits(ops.stack(told, axis=1), training)
        if not return_attention_scores:
            return logits
        return logits, ops.concatenate(looks, axis=1)

    def beam_search(
        self,
        memory,
        memory_mask=None,
        *,
        start,
        end,
        max_length,
        beam_width=1,
        length_power=1.0,
    ):
        """The likeliest sequences of words about a memory, best first.

        Args:
            memory, memory_mask: as of the call.
            start, end, max_length, beam_width, length_power: as of
                `kanets.layers.beam_search.beam_search`: numbers of words
                before the first and after the last; L, most words with the
                end; W, beams, of which one is greedy search; the power of the
                length that log-probabilities are divided by.

        Returns:
            Tokens, int32 (B, W, L), without the start, padded with 0, and
            their log-probabilities, float32 (B, W).

        Raises:
            ValueError: a width or a length that is no positive integer; a
                start or an end that is no word; a mask of another shape.
        """
        max_length, beam_width = check_positive(
            max_length=max_length, beam_width=beam_width
        )
        for name, word in (("start", start), ("end", end)):
            if as_integer(word) not in range(1, self.vocabulary_size):
                raise ValueError(
                    f"{name} must be a word, 1 to {self.vocabulary_size - 1}. "
                    f"Received: {name}={word!r}"
                )
        memory = ops.convert_to_tensor(memory, self.compute_dtype)
        if not self.built:
            self.build((None, 1), memory.shape)
        _check_mask(memory_mask, memory)
        keys = self.attention.key_map(memory)

        def step(tokens, state):
            state, _ = self._step(
                self.embedding(tokens), state, keys, memory, memory_mask
            )
            logits = self._logits(ops.concatenate(state, axis=-1))
            return ops.log_softmax(logits), state

        return beam_search(
            step,
            self._first_state(memory, memory_mask),
            start=start,
            end=end,
            max_length=max_length,
            beam_width=beam_width,
            length_power=length_power,
        )

    def _first_state(self, memory, memory_mask):
        """State (B, U) and context (B, Y) before the first word."""
        if memory_mask is None:
            mean = ops.mean(memory, axis=1)
        else:
            counts = ops.cast(memory_mask, memory.dtype)[..., None]
            mean = ops.sum(memory * counts, axis=1)
            mean = mean / ops.maximum(ops.sum(counts, axis=1), 1)
        return self.first(mean), mean

    def _step(self, embedded, state, keys, memory, memory_mask, training=None):
        """One word on, of W sequences about each memory.

        Args:
            embedded: (B·W, U), of the words before.
            state: pair of the state (B·W, U) and the context (B·W, Y).
            keys: (B, K, U), the attention's map of the memory.

        Returns:
            The next state, and weights (B, W, K).
        """
        hidden, context = state
        inputs = ops.concatenate([embedded, context], axis=-1)
        hidden, _ = self.cell(inputs, [hidden])
        cells, size = memory.shape[1:]
        sequences = ops.shape(hidden)[0] // ops.shape(memory)[0]
        query = ops.reshape(hidden, (-1, sequences, self.units))
        context, weights = self.attention.attend(
            query, keys, memory, memory_mask, training
        )
        return (hidden, ops.reshape(context, (-1, size))), weights

    def _logits(self, told, training=None):
        hidden = self.dropout(self.hidden(told), training=training)
        return self.logits(hidden)

    def compute_output_spec(
        self,
        tokens,
        memory,
        memory_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        _check_shapes(tokens.shape, memory.shape)
        _check_mask(memory_mask, memory)
        logits = keras.KerasTensor(
            (*tokens.shape, self.vocabulary_size), dtype="float32"
        )
        if not return_attention_scores:
            return logits
        shape = (*tokens.shape, memory.shape[1])
        return logits, keras.KerasTensor(shape, dtype="float32")

    def compute_mask(self, tokens, mask=None):
        return None  # words are weighed by whoever has the loss

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "units": self.units,
            "hard": self.hard,
            "dropout_rate": self.dropout_rate,
            "seed": self.seed,
        }


def _check_shapes(tokens_shape, memory_shape):
    if len(tokens_shape) != 2 or tokens_shape[1] is None:
        raise ValueError(
            "tokens must be (batch, words) of a known number of words. "
            f"Received: tokens of shape {tuple(tokens_shape)}"
        )
    if len(memory_shape) != 3 or memory_shape[-1] is None:
        raise ValueError(
            "memory must be (batch, cells, channels) with known channels. "
            f"Received: memory of shape {tuple(memory_shape)}"
        )
    batches = tokens_shape[0], memory_shape[0]
    if None not in batches and batches[0] != batches[1]:
        raise ValueError(
            "tokens and memory must be of one batch. Received: "
            f"tokens of shape {tuple(tokens_shape)}, "
            f"memory of shape {tuple(memory_shape)}"
        )


def _check_mask(mask, memory):
    if mask is not None:
        check_mask_shape(mask, memory)
