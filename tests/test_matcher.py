"""A matcher: pictures and sentences in, scores of all pairs and looks out."""

import keras
import numpy as np
import pytest

from kanets import Matcher
from kanets.data import Vocabulary, draw_scenes
from kanets.losses import ContrastiveLoss
from tests.backends import compiled, gradient, to_numpy
from tests.layer_checks import fill_weights
from tests.precision import POLICIES, check_loaded_in_its_precision

PICTURES = draw_scenes(12, image_size=48).pictures
SENTENCES = [" ".join(s.split()[1:]) for s in draw_scenes(12).sentences]
LENGTH = max(len(s.split()) for s in SENTENCES)
WORDS = Vocabulary.of(SENTENCES).words
TOKENS = np.array([[4, 5, 0], [6, 5, 4], [4, 5, 0], [6, 0, 0], [4, 5, 0]])
SCORES = np.random.default_rng(0).normal(size=(5, 5)).astype("float32") * 3


def features():
    pictures = keras.Input((48, 48, 3))
    x = keras.layers.Rescaling(1 / 255)(pictures)
    x = keras.layers.Conv2D(8, (12, 8), (12, 8), data_format="channels_last")(x)
    return keras.Model(pictures, {"map": x}, name="net")


def matcher(**arguments):
    arguments = {"max_length": LENGTH, "units": 16, **arguments}
    return Matcher(features(), WORDS, **arguments)


def loss_by_loops(tokens, scores):
    """The losses of the pairs, and the gradient of their sum."""
    scores, count = scores.astype("float64"), len(scores)
    losses, slopes = np.zeros(count), np.zeros((count, count))
    for i in range(count):
        others = [
            j for j in range(count) if j == i or any(tokens[i] != tokens[j])
        ]
        for table, slope in ((scores, slopes), (scores.T, slopes.T)):
            exponentials = np.exp([table[i, j] for j in others])
            losses[i] += np.log(exponentials.sum()) / 2 - table[i, i] / 2
            for j, e in zip(others, exponentials, strict=True):
                slope[i, j] += e / exponentials.sum() / 2
            slope[i, i] -= 0.5
    return losses, slopes


def test_loss_is_that_of_loops_with_gradients():
    losses, slopes = loss_by_loops(TOKENS, SCORES)
    found = ContrastiveLoss(reduction=None)(TOKENS, SCORES)
    np.testing.assert_allclose(to_numpy(found), losses, atol=1e-5)
    loss = ContrastiveLoss()
    np.testing.assert_allclose(
        to_numpy(compiled(loss)(TOKENS, SCORES)), losses.mean(), atol=1e-5
    )
    (found,) = gradient(lambda scores: loss(TOKENS, scores), SCORES)
    np.testing.assert_allclose(found, slopes / 5, atol=1e-6)
    assert found[0, 2] == found[2, 0] == 0  # of the same sentence
    # With nothing else to tell it from, a pair is right.
    assert to_numpy(loss(TOKENS[[0, 2]], SCORES[:2, :2])) == 0
    with pytest.raises(ValueError, match=r"Labels must.*shape \(5,\)"):
        loss(TOKENS[:, 0], SCORES)


def scores_by_loops(model, pictures, sentences):
    """Scores and weights, pair by pair and word by word."""
    names = {"values", "words", "keys", "queries"}
    outputs = {x.name: x.output for x in model.layers if x.name in names}
    tower = keras.Model(model.input, outputs)
    table = np.zeros((len(pictures), len(sentences)))
    looks = np.zeros((*table.shape, LENGTH, 24))
    x, _ = model.examples(pictures, sentences)
    found = {name: to_numpy(values) for name, values in tower(x).items()}
    for p, s in np.ndindex(table.shape):
        for t in range(len(sentences[s].split())):
            weights = np.full(24, 1 / 24)
            if "keys" in found:
                logits = found["keys"][p] @ found["queries"][s, t] / 4
                weights = np.exp(logits) / np.exp(logits).sum()
            looks[p, s, t] = weights
            products = found["values"][p] @ found["words"][s, t]
            table[p, s] += weights @ products
    return table, looks


@pytest.mark.parametrize("cross_attention", [True, False])
def test_scores_are_those_of_loops(cross_attention):
    model = matcher(cross_attention=cross_attention)
    fill_weights(model.weights)
    pictures, sentences = PICTURES[:4], SENTENCES[2:6]
    expected, looks = scores_by_loops(model, pictures, sentences)
    found = model.scores(pictures[:3], sentences, batch_size=2)
    assert found.shape == (3, 4) and found.dtype == "float32"
    np.testing.assert_allclose(found, expected[:3], rtol=1e-4, atol=1e-4)
    if not cross_attention:
        with pytest.raises(ValueError, match="cross_attention=False"):
            model.attention_maps(pictures, sentences)
        return
    maps = model.attention_maps(pictures[:3], sentences[:3], batch_size=2)
    assert maps.shape == (3, LENGTH, 4, 6)
    own = looks[range(3), range(3)].reshape(maps.shape)
    np.testing.assert_allclose(maps, own, atol=1e-5)
    counts = [len(sentence.split()) for sentence in sentences[:3]]
    told = np.arange(LENGTH) < np.reshape(counts, (3, 1))
    np.testing.assert_allclose(maps.sum((2, 3)), told, atol=1e-5)
    with pytest.raises(ValueError, match="3 pictures, 4 sentences"):
        model.attention_maps(pictures[:3], sentences)


def test_padding_counts_for_nothing():
    model, longer = matcher(), matcher(max_length=LENGTH + 5)
    fill_weights(model.weights)
    longer.set_weights(model.get_weights())
    sentences = [*SENTENCES[:11], ""]
    expected, found = (
        to_numpy(each(each.examples(PICTURES, sentences)[0]))
        for each in (model, longer)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.all(found[:, -1] == 0) and np.all(found[:, :-1] != 0)


def test_fit():
    keras.utils.set_random_seed(0)
    model = matcher()
    model.compile(keras.optimizers.Adam(0.02), ContrastiveLoss())
    frozen = [to_numpy(w) for w in model.features.weights]
    x, y = model.examples(PICTURES, SENTENCES)
    losses, _ = loss_by_loops(y, to_numpy(model(x)))
    history = model.fit(x, y, batch_size=12, epochs=30, verbose=0).history
    np.testing.assert_allclose(history["loss"][0], losses.mean(), rtol=1e-4)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    for weight, old in zip(model.features.weights, frozen, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)


@pytest.mark.parametrize(
    "cross_attention",
    [True, pytest.param(False, marks=pytest.mark.thorough)],
)
def test_saved_and_loaded(tmp_path, cross_attention):
    model = matcher(cross_attention=cross_attention, trainable_features=True)
    fill_weights(model.weights)
    model.save(tmp_path / "matcher.keras")
    loaded = keras.saving.load_model(tmp_path / "matcher.keras")
    assert type(loaded) is Matcher
    for name, value in model.get_config().items():
        assert name == "features" or loaded.get_config()[name] == value
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    x, _ = model.examples(PICTURES, SENTENCES)
    found, expected = to_numpy(loaded(x)), to_numpy(model(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("policies", POLICIES)
def test_loaded_in_the_precision_it_was_saved_in(policies):
    check_loaded_in_its_precision(matcher, "hidden", policies)


def test_errors():
    for arguments in ({"units": 0}, {"max_length": 0}):
        (name,) = arguments
        with pytest.raises(ValueError, match=f"{name}=0"):
            matcher(**arguments)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, data_format="channels_last")(inputs)
    with pytest.raises(ValueError, match="features must make one map"):
        Matcher(keras.Model(inputs, x, name="open"), WORDS)
    with pytest.raises(ValueError, match="at most"):
        matcher(max_length=2).examples(PICTURES, SENTENCES)
    model = matcher()
    for call in (model.scores, model.attention_maps, model.examples):
        with pytest.raises(ValueError, match=r"one sentence.*sentences=\[\]"):
            call(PICTURES, [])
        with pytest.raises(ValueError, match="sentences='a red'"):
            call(PICTURES, "a red")
    with pytest.raises(ValueError, match=r"pictures must.*\(0, 48, 48, 3\)"):
        model.scores(PICTURES[:0], SENTENCES)
    with pytest.raises(ValueError, match="batch_size=0"):
        model.attention_maps(PICTURES, SENTENCES, batch_size=0)
