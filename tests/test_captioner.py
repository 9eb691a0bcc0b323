"""A captioner: pictures and sentences in, sentences and looks out."""

import keras
import numpy as np
import pytest

from kanets import Captioner
from kanets.data import Vocabulary, draw_scenes
from kanets.data.vocabulary import START
from tests.backends import to_numpy
from tests.layer_checks import fill_weights
from tests.precision import POLICIES, check_loaded_in_its_precision

PICTURES = draw_scenes(12, image_size=48).pictures
SENTENCES = [" ".join(s.split()[1:3]) for s in draw_scenes(12).sentences]
WORDS = Vocabulary.of(SENTENCES).words


def features(name="net", dictionary=False):
    pictures = keras.Input((48, 48, 3))
    x = keras.layers.Rescaling(1 / 255)(pictures)
    x = keras.layers.Conv2D(8, 12, 12, data_format="channels_last")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(pictures, {"map": x} if dictionary else x, name=name)


def captioner(**arguments):
    arguments = {"max_length": 3, "units": 16, **arguments}
    return Captioner(features(), WORDS, **arguments)


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(0.02), loss, weighted_metrics=["accuracy"]
    )
    return model


def test_fit_on_pictures_and_sentences():
    keras.utils.set_random_seed(0)
    model = compiled(captioner())
    frozen = [to_numpy(w) for w in model.features.weights]
    pair = PICTURES, SENTENCES
    history = model.fit(
        *pair, batch_size=6, epochs=6, validation_data=pair, verbose=0
    ).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    loss, accuracy = model.evaluate(*pair, verbose=0)
    np.testing.assert_allclose(loss, history["val_loss"][-1], rtol=1e-4)
    for weight, old in zip(model.features.weights, frozen, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)

    # The accuracy is that of words and ends, not of padding.
    x, targets, weights = model.examples(*pair)
    assert weights.sum() == sum(len(s.split()) + 1 for s in SENTENCES)
    right = model.predict(x, verbose=0).argmax(-1) == targets
    expected = (right * weights).sum() / weights.sum()
    np.testing.assert_allclose(accuracy, expected, atol=1e-5)
    same = model.evaluate(x, targets, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(same, [loss, accuracy], rtol=1e-4)


def test_sentences_may_be_weighed():
    model = compiled(captioner())
    first = model.evaluate(PICTURES[:1], SENTENCES[:1], verbose=0)
    weights = np.zeros(len(SENTENCES))
    weights[0] = 1
    found = model.evaluate(
        PICTURES, SENTENCES, sample_weight=weights, verbose=0, batch_size=64
    )
    np.testing.assert_allclose(found[1], first[1], atol=1e-5)


def test_sentences_and_where_each_word_looked():
    model = captioner()
    fill_weights(model.weights)
    bias = to_numpy(model.decoder.logits.bias).copy()
    bias[START] = -20  # never told, as of a model that is trained
    model.decoder.logits.bias.assign(bias)
    sentences, maps = model.caption(
        PICTURES, batch_size=6, return_attention_scores=True
    )
    assert sentences == model.caption(PICTURES, batch_size=6)
    assert maps.shape == (12, 4, 4, 4) and maps.dtype == "float32"
    sums = maps.sum((2, 3))
    for sentence, row in zip(sentences, sums, strict=True):
        words = sentence.split()
        assert set(words) <= {*WORDS, "[UNK]"}
        told = min(len(words) + 1, 4)
        np.testing.assert_allclose(row[:told], 1, atol=1e-5)
        assert np.all(row[told:] == 0)
    # The looks are those of the words, when these are given.
    x, _, _ = model.examples(PICTURES[:1], sentences[:1])
    memory = keras.Model(
        model.input["pictures"], model.get_layer("memory").output
    )
    _, weights = model.decoder(
        x["tokens"], memory(x["pictures"]), return_attention_scores=True
    )
    told = len(sentences[0].split())
    found = to_numpy(weights).reshape(4, 4, 4)[:told]
    np.testing.assert_allclose(found, maps[0, :told], atol=1e-5)


def test_saved_and_loaded(tmp_path):
    model = captioner(hard=True, trainable_features=True)
    fill_weights(model.weights)
    model.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert type(loaded) is Captioner
    for name, value in model.get_config().items():
        assert name == "features" or loaded.get_config()[name] == value
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    x, _, _ = model.examples(PICTURES, SENTENCES)
    found, expected = to_numpy(loaded(x)), to_numpy(model(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("policies", POLICIES)
def test_loaded_in_the_precision_it_was_saved_in(policies):
    check_loaded_in_its_precision(captioner, "decoder", policies)


def test_features_are_a_copy():
    net = features()
    model = Captioner(net, WORDS, units=4)
    other = Captioner(net, WORDS, units=4, trainable_features=True)
    assert net.trainable and len(net.trainable_weights) == 4
    assert len(other.features.trainable_weights) == 4
    found, expected = (
        to_numpy(model.features(PICTURES)),
        to_numpy(net(PICTURES)),
    )
    np.testing.assert_array_equal(found, expected)
    other.features.trainable_weights[0].assign(np.zeros((12, 12, 3, 8)))
    np.testing.assert_array_equal(to_numpy(net(PICTURES)), expected)


def test_features():
    model = Captioner(features(dictionary=True), WORDS, units=4)
    assert model.features.name == "net" and model.grid == (4, 4)
    assert not model.features.trainable_weights
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, data_format="channels_last")(inputs)
    with pytest.raises(ValueError, match="features must make one map.*None"):
        Captioner(keras.Model(inputs, x, name="open"), WORDS)
    with pytest.raises(ValueError, match="max_length=0"):
        Captioner(features(), WORDS, max_length=0)
    with pytest.raises(ValueError, match="keras.Model. Received: features=Non"):
        Captioner(None, WORDS)


def test_no_pictures_no_sentences():
    model = captioner()
    for pictures, shape in (
        (PICTURES[0], "48, 48, 3"),
        (PICTURES[:0], "0, 48"),
    ):
        with pytest.raises(ValueError, match=rf"pictures must.*\({shape}"):
            model.caption(pictures)
    with pytest.raises(ValueError, match="batch_size=0"):
        model.caption(PICTURES, batch_size=0)
    with pytest.raises(ValueError, match=r"one sentence.*sentences=\[\]"):
        model.fit(PICTURES, [])
