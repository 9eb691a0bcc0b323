"""A decoder that attends: step by step, and the search among its sequences."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kanets.layers import AttentionDecoder
from tests.backends import compiled, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

WORDS, START, END = 6, 1, 2
TOKENS = np.array([[1, 3, 4, 5, 2], [1, 5, 5, 2, 0]])
MEMORY = random(2, 7, 3)
MASK = np.arange(7) < np.array([[4], [6]])


@keras.saving.register_keras_serializable(package="tests")
class Tells(keras.layers.Layer):
    """What a decoder tells of its one input, for words that are given."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = AttentionDecoder(
            WORDS, 5, dtype=self.dtype_policy, name="inner"
        )

    def build(self, input_shape):
        self.inner.build((None, 4), input_shape)

    def call(self, x):
        tokens = ops.broadcast_to(TOKENS[:1, :4], (ops.shape(x)[0], 4))
        return self.inner(tokens, x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 4, WORDS)

    def compute_output_spec(self, x):
        shape = self.compute_output_shape(x.shape)
        return keras.KerasTensor(shape, dtype="float32")


def decoder(**arguments):
    layer = AttentionDecoder(WORDS, 5, **arguments)
    layer.build(TOKENS.shape, MEMORY.shape)
    fill_weights(layer.weights, layer.name)
    return layer


def log_probabilities(layer, tokens, memory, mask=None):
    """Of the words after the first of each sequence, up to the end: sums."""
    logits = layer(tokens[:, :-1], memory, memory_mask=mask)
    logits = to_numpy(ops.log_softmax(logits))
    found = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    return (found * (tokens[:, 1:] != 0)).sum(-1)


def test_checks_of_every_layer():
    check_layer(
        Tells,
        (2, 7, 6),
        grids=((1,), (3,)),
        opt_out={
            "precision": "logits are float32: see below",
            "open_sizes": "an output without an open size: see below",
        },
    )


def test_the_formulas():
    """As the docstring has them, in NumPy, a word at a time."""
    layer = decoder()
    logits, weights = layer(TOKENS, MEMORY, MASK, return_attention_scores=True)
    for row in range(2):
        memory = MEMORY[row][MASK[row]].astype("float64")
        context = memory.mean(0)
        state = np.tanh(_dense(layer.first, context))
        for step, token in enumerate(TOKENS[row]):
            word = to_numpy(layer.embedding.embeddings)[token]
            state = _gru(layer.cell, np.concatenate([word, context]), state)
            mapped = _dense(layer.attention.query_map, state)
            mapped = mapped + memory @ to_numpy(layer.attention.key_map.kernel)
            scores = np.tanh(mapped) @ to_numpy(layer.attention.score)
            attention = np.exp(scores) / np.exp(scores).sum()
            context = attention @ memory
            told = np.concatenate([state, context])
            told = _dense(layer.logits, np.tanh(_dense(layer.hidden, told)))
            found = to_numpy(logits)[row, step]
            np.testing.assert_allclose(found, told, atol=1e-4)
            found = to_numpy(weights)[row, step]
            np.testing.assert_allclose(
                found[: len(memory)], attention, atol=1e-5
            )
            assert np.all(found[len(memory) :] == 0)


def _dense(layer, x):
    return x @ to_numpy(layer.kernel).astype("float64") + to_numpy(layer.bias)


def _gru(cell, x, state):
    """Keras's, with the reset after the product."""
    kernel, recurrent = to_numpy(cell.kernel), to_numpy(cell.recurrent_kernel)
    biases = to_numpy(cell.bias)
    z, r, new = np.split(x @ kernel + biases[0], 3)
    old_z, old_r, old = np.split(state @ recurrent + biases[1], 3)
    z, r = 1 / (1 + np.exp(-z - old_z)), 1 / (1 + np.exp(-r - old_r))
    return z * state + (1 - z) * np.tanh(new + r * old)


def test_words_to_come_and_hidden_cells_change_nothing():
    layer = decoder()
    expected = to_numpy(layer(TOKENS, MEMORY, MASK))
    tokens, memory = TOKENS.copy(), MEMORY.copy()
    tokens[:, 3:] = 4
    memory[~MASK] = 9
    found = to_numpy(layer(tokens, memory, MASK))
    np.testing.assert_allclose(found[:, :3], expected[:, :3], atol=1e-6)
    assert np.abs(found[:, 3:] - expected[:, 3:]).max() > 1e-3
    assert np.abs(to_numpy(layer(TOKENS, MEMORY)) - expected).max() > 1e-3


@pytest.mark.parametrize("hard", [False, True])
def test_greedy_search_is_the_argmax_of_every_step(hard):
    layer = decoder(hard=hard)
    tokens = np.full((2, 1), START)
    for _ in range(6):
        logits = to_numpy(layer(tokens, MEMORY, MASK))[:, -1]
        logits[:, 0] = -np.inf  # padding is no word
        tokens = np.append(tokens, logits.argmax(-1)[:, None], axis=1)
    ended = np.cumsum(tokens == END, axis=1) - (tokens == END) > 0
    tokens[ended] = 0
    found, scores = layer.beam_search(
        MEMORY, MASK, start=START, end=END, max_length=6
    )
    np.testing.assert_array_equal(to_numpy(found)[:, 0], tokens[:, 1:])
    expected = log_probabilities(layer, tokens, MEMORY, MASK)
    np.testing.assert_allclose(to_numpy(scores)[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_wide_beam_finds_what_brute_force_does(power):
    layer, length = decoder(), 3
    words = [w for w in range(1, WORDS)]
    sequences = [
        sequence + (0,) * (length - len(sequence))
        for count in range(1, length + 1)
        for sequence in itertools.product(words, repeat=count)
        if END not in sequence[:-1] and (count == length or sequence[-1] == END)
    ]
    tokens = np.array([(START, *sequence) for sequence in sequences])
    for row in range(2):
        memory = np.repeat(MEMORY[row : row + 1], len(tokens), axis=0)
        sums = log_probabilities(layer, tokens, memory)
        ranks = sums / (tokens[:, 1:] != 0).sum(-1) ** power
        best = np.argsort(-ranks)[:5]
        found, scores = layer.beam_search(
            MEMORY[row : row + 1],
            start=START,
            end=END,
            max_length=length,
            beam_width=WORDS ** (length - 1),
            length_power=power,
        )
        np.testing.assert_array_equal(to_numpy(found)[0, :5], tokens[best, 1:])
        np.testing.assert_allclose(
            to_numpy(scores)[0, :5], sums[best], atol=1e-4
        )


def test_wider_beams_find_likelier_sequences():
    layer = decoder()
    memory = random(20, 7, 3)
    best = []
    for width in (1, 3, 10):
        tokens, scores = layer.beam_search(
            memory, start=START, end=END, max_length=5, beam_width=width
        )
        ranks = to_numpy(scores) / (to_numpy(tokens) != 0).sum(-1)
        assert np.all(np.diff(ranks) <= 1e-6)  # best first
        best.append(ranks[:, 0])
    assert np.all(best[1] >= best[0] - 1e-6)
    assert np.all(best[2] >= best[1] - 1e-6)
    assert np.any(best[2] > best[0] + 1e-3)


@pytest.mark.thorough
def test_compiled():
    layer, tokens = decoder(), TOKENS[:, :3]

    def search(memory, mask):
        arguments = {"start": START, "end": END, "max_length": 2}
        return layer.beam_search(memory, mask, beam_width=2, **arguments)

    expected = layer(tokens, MEMORY, MASK), *search(MEMORY, MASK)
    found = (
        compiled(lambda *given: layer(*given))(tokens, MEMORY, MASK),
        *compiled(search)(MEMORY, MASK),
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=1e-5)


def test_half_precision():
    layer = decoder()
    expected = to_numpy(layer(TOKENS, MEMORY, MASK))
    half = AttentionDecoder(WORDS, 5, dtype="mixed_float16")
    half.build(TOKENS.shape, MEMORY.shape)
    half.set_weights(layer.get_weights())
    logits = half(TOKENS, MEMORY, MASK)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(logits), expected, atol=0.03)
    arguments = {"start": START, "end": END, "max_length": 2}
    for one, other in zip(
        half.beam_search(MEMORY, **arguments),
        layer.beam_search(MEMORY, **arguments),
        strict=True,
    ):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=0.06)


@pytest.mark.thorough
def test_in_a_model_that_is_saved_with_a_mask_that_comes_along(tmp_path):
    source = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(5, 3, mask_zero=True)(source)
    memory = keras.layers.GRU(4, return_sequences=True)(x)
    tokens = keras.Input((4,), dtype="int32")
    layer = AttentionDecoder(WORDS, 5, hard=True, dropout_rate=0.5, seed=1)
    outputs = layer(tokens, memory, return_attention_scores=True)
    assert [t.shape for t in outputs] == [(None, 4, WORDS), (None, 4, None)]
    model = keras.Model([source, tokens], outputs)
    fill_weights(model.weights)
    x = [np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]]), TOKENS[:, :4]]
    logits, weights = model.predict(x, verbose=0)
    assert np.all(weights[0, :, 3:] == 0) and np.all(weights[1, :, 1:] == 0)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found, _ = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    assert loaded.layers[-1].get_config() == layer.get_config()


def test_errors():
    for name in ("vocabulary_size", "units"):
        arguments = {"vocabulary_size": 4, "units": 4, name: 0}
        with pytest.raises(ValueError, match=f"{name}=0"):
            AttentionDecoder(**arguments)
    layer = decoder()
    with pytest.raises(ValueError, match=r"tokens must be.*\(2, 5, 1\)"):
        layer(TOKENS[..., None], MEMORY)
    with pytest.raises(ValueError, match=r"memory must be.*\(2, 3\)"):
        layer(TOKENS, MEMORY[:, 0])
    with pytest.raises(
        ValueError, match=r"of one batch.*\(4, 5\).*\(2, 7, 3\)"
    ):
        layer(np.repeat(TOKENS, 2, axis=0), MEMORY)
    with pytest.raises(ValueError, match=r"mask must be.*\(2, 6\)"):
        layer(TOKENS, MEMORY, MASK[:, 1:])
    arguments = {"start": START, "end": END, "max_length": 4}
    with pytest.raises(ValueError, match=r"mask must be.*\(2, 6\)"):
        layer.beam_search(MEMORY, MASK[:, 1:], **arguments)
    for name, word in (("start", 0), ("end", WORDS), ("end", 2.0)):
        with pytest.raises(
            ValueError, match=f"1 to 5. Received: {name}={word}"
        ):
            layer.beam_search(MEMORY, **{**arguments, name: word})
    for name in ("beam_width", "max_length"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            layer.beam_search(MEMORY, **{**arguments, name: 0})
